"""The language model under SB3's policies: cached = uncached, prefixes shared = read one by one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from rlhf_gym.agents.lm_models import build_language_model
from rlhf_gym.agents.sb3.cached_lm import CachedLM
from rlhf_gym.agents.sb3.shared_prefixes import SharedPrefixes
from rlhf_gym.core.errors import InvalidArgument, TokenizerMismatch
from rlhf_gym.core.tokens import TokenRules, next_token_logits

Maker = Callable[..., Any]
RULES = TokenRules(vocab_size=12, pad_id=0, stop_ids=(1,))
PROMPT, RESPONSE = 4, 6


def tiny_llama(**shape: Any) -> LlamaForCausalLM:
    sizes = {"num_attention_heads": 2, "num_key_value_heads": 1, **shape}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=12, hidden_size=16, intermediate_size=24, num_hidden_layers=2, **sizes
        )
        return LlamaForCausalLM(config)


def cached_lm(model: Any) -> CachedLM:
    return CachedLM(build_language_model(model), RULES, PROMPT)


def walk(rows: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """Observations of `rows` episodes that end and begin anew one by one, step after step."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(rows, PROMPT + RESPONSE, dtype=torch.long)
    mask = torch.zeros(rows, PROMPT + RESPONSE, dtype=torch.int8)
    length = torch.full((rows,), RESPONSE)
    seen = []
    for _ in range(20):
        ends = (length == RESPONSE) | (torch.rand(rows, generator=generator) < 0.15)
        for row in range(rows):
            if ends[row]:
                prompt = int(torch.randint(1, PROMPT + 1, (), generator=generator))
                ids[row], mask[row], length[row] = 0, 0, 0
                drawn = torch.randint(1, 12, (prompt,), generator=generator)
                ids[row, PROMPT - prompt : PROMPT], mask[row, PROMPT - prompt : PROMPT] = drawn, 1
            else:
                column = PROMPT + int(length[row])
                ids[row, column] = torch.randint(1, 12, (), generator=generator)
                mask[row, column] = 1
                length[row] += 1
        seen.append({"input_ids": ids.clone(), "attention_mask": mask.clone()})
    return seen


def uncached(lm: CachedLM, observation: dict[str, Tensor]) -> Tensor:
    """Log-probabilities from the model's own forward, row by row."""
    with torch.no_grad():
        logits = next_token_logits(lm.model, observation)
        return logits[:, : RULES.vocab_size].log_softmax(-1)


def log_probs(lm: CachedLM, observation: dict[str, Tensor], **kwargs: Any) -> Tensor:
    return lm.logits(lm.hidden(observation, **kwargs)).log_softmax(-1)


def tiny_neox() -> GPTNeoXForCausalLM:
    """A family that neither the fast decoder nor the packed pass knows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPTNeoXConfig(
            vocab_size=12,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=24,
        )
        return GPTNeoXForCausalLM(config)


@pytest.fixture
def make_family(make_model: Maker) -> Callable[[str], Any]:
    makers: dict[str, Maker] = {"gpt2": make_model, "llama": tiny_llama, "neox": tiny_neox}
    return lambda family: makers[family]()


@pytest.fixture(params=["gpt2", "llama", "neox"])
def lm(request: pytest.FixtureRequest, make_family: Callable[[str], Any]) -> CachedLM:
    return cached_lm(make_family(request.param))


@torch.no_grad()
def test_cached_equals_uncached_while_rows_come_and_go(lm: CachedLM) -> None:
    for observation in walk(rows=5):
        torch.testing.assert_close(
            log_probs(lm, observation), uncached(lm, observation), atol=1e-4, rtol=0
        )


@torch.no_grad()
def test_a_rollout_keeps_its_cache_through_an_evaluation(make_model: Maker) -> None:
    """EvalCallback predicts for an environment of its own, of the same size or another."""
    lm = cached_lm(make_model())
    begun = []
    make_sampler = lm._cache._make_sampler
    lm._cache._make_sampler = lambda: begun.append(1) or make_sampler()
    others = {2: walk(2, seed=1), 5: walk(5, seed=2)}
    for step, observation in enumerate(walk(rows=5)):
        torch.testing.assert_close(
            log_probs(lm, observation), uncached(lm, observation), atol=1e-4, rtol=0
        )
        for other in others[2 if step < 10 else 5][:step:3]:
            torch.testing.assert_close(log_probs(lm, other), uncached(lm, other), atol=1e-4, rtol=0)
    # Neither is read from its beginning at each of the 20 steps.
    assert len(begun) == 2


@torch.no_grad()
def test_a_step_reads_one_token_per_row(make_model: Maker, monkeypatch: Any) -> None:
    from rlhf_gym.core.sampler import Sampler

    read = {"prefill": 0, "replace": 0, "advance": 0}
    for name in read:
        method = getattr(Sampler, name)

        def counted(self: Any, *args: Any, name: str = name, method: Any = method) -> None:
            read[name] += 1
            method(self, *args)

        monkeypatch.setattr(Sampler, name, counted)
    lm = cached_lm(make_model())
    full = torch.arange(1, 11).remainder(11)[None] + 1
    for time in range(RESPONSE):
        mask = (torch.arange(10) < PROMPT + time)[None]
        observation = {"input_ids": full * mask, "attention_mask": mask}
        lm.hidden(observation)
        lm.hidden(observation)  # a second look, as at the end of a rollout, costs nothing
    assert read == {"prefill": 1, "replace": 0, "advance": RESPONSE - 1}


@torch.no_grad()
@pytest.mark.parametrize(
    "change", ["in place", "load_state_dict", "assigned", "address used again"]
)
def test_changed_weights_are_noticed(make_model: Maker, change: str) -> None:
    lm, observation = cached_lm(make_model()), walk(3)[0]
    before = log_probs(lm, observation)
    other = make_model(seed=1)
    parameters = list(lm.model.parameters())
    if change == "in place":
        for parameter in parameters:
            parameter.mul_(1.1)
    elif change == "load_state_dict":
        lm.model.load_state_dict(other.state_dict())
    elif change == "assigned":
        for parameter, new in zip(parameters, other.parameters(), strict=True):
            parameter.data = new.data
    else:
        # What TRPO's line search may do: new tensors at the same addresses, same versions.
        lm.train()
        log_probs(lm, observation)
        for parameter in parameters:
            parameter.data.mul_(1.1)
        lm.eval()
    after = log_probs(lm, observation)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, uncached(lm, observation), atol=1e-4, rtol=0)


@pytest.mark.parametrize("twice", [False, True])
def test_shared_prefixes_equal_separate_passes(lm: CachedLM, twice: bool) -> None:
    steps = walk(rows=4)
    batch = {key: torch.cat([step[key] for step in steps]) for key in steps[0]}
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))[:70]
    batch = {key: value[order] for key, value in batch.items()}
    lm.train()
    ours = log_probs(lm, batch, twice_differentiable=twice)
    theirs = next_token_logits(lm.model, batch)[:, :12].log_softmax(-1)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)

    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(0))
    parameters = list(lm.model.parameters())
    for ours_by, theirs_by in zip(
        torch.autograd.grad((weights * ours).sum(), parameters),
        torch.autograd.grad((weights * theirs).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours_by, theirs_by, atol=1e-4, rtol=1e-4)


def test_shared_prefixes_by_hand() -> None:
    """Of [7], [7 8], [7 8 9], [7 5], [7 8] two are read: [7 8 9] and [7 5], five tokens of ten."""
    ids = torch.tensor([[7, 0, 0], [7, 8, 0], [7, 8, 9], [7, 5, 0], [7, 8, 0]])
    shared = SharedPrefixes.of(ids, ids > 0)
    assert shared.rows.rows == 2
    assert shared.tokens == 5
    # In lexicographic order: [7], [7 5], [7 8], [7 8 9]; [7] is the beginning of [7 5].
    assert shared.rows.ids.tolist() == [7, 5, 7, 8, 9]
    assert shared.rows.wanted.tolist() == [0, 1, 3, 4]
    assert shared.state_of.tolist() == [0, 2, 3, 1, 2]


def test_texts_that_begin_in_other_columns_are_not_shared() -> None:
    ids = torch.tensor([[0, 7, 0], [7, 8, 0], [0, 7, 8]])
    assert SharedPrefixes.of(ids, ids > 0).rows.rows == 2
    # A token whose id is that of PAD counts as a token where the mask says so.
    mask = torch.tensor([[1, 0, 0], [1, 1, 0]], dtype=torch.bool)
    assert SharedPrefixes.of(torch.zeros(2, 3, dtype=torch.long), mask).tokens == 2


def test_a_row_of_padding_gives_finite_numbers_and_disturbs_nobody(make_model: Maker) -> None:
    """RecurrentPPO pads its sequences with observations that are 0 everywhere."""
    lm, batch = cached_lm(make_model()), walk(3)[5]
    padded = {key: torch.cat([value, torch.zeros_like(value[:2])]) for key, value in batch.items()}
    for training in (True, False):
        lm.train(training)
        with torch.no_grad():
            hidden = lm.hidden(padded)
            assert hidden.isfinite().all()
            torch.testing.assert_close(hidden[:3], lm.hidden(batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "tolerance"), [("gpt2", 1e-4), ("llama", 1e-2), ("neox", 1e-2)])
def test_gradients_can_be_differentiated_again(
    make_family: Callable[[str], Any], family: str, tolerance: float
) -> None:
    """A Hessian-vector product against the difference of two gradients."""
    # Parts of the other two compute in single precision whatever the model's is.
    lm, batch = cached_lm(make_family(family).double()), walk(3)[5]
    lm.train()
    parameters = list(lm.model.parameters())
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def gradient(create_graph: bool) -> list[Tensor]:
        loss = log_probs(lm, batch, twice_differentiable=create_graph)[:, 3].square().sum()
        return list(torch.autograd.grad(loss, parameters, create_graph=create_graph))

    along = sum((g * d).sum() for g, d in zip(gradient(True), direction, strict=True))
    product = torch.autograd.grad(along, parameters, allow_unused=True)
    step, sides = 1e-5, []
    for sign in (1, -1):
        for parameter, d in zip(parameters, direction, strict=True):
            parameter.data += sign * step * d
        sides.append(gradient(False))
        for parameter, d in zip(parameters, direction, strict=True):
            parameter.data -= sign * step * d
    for exact, up, down in zip(product, *sides, strict=True):
        if exact is not None:
            torch.testing.assert_close(
                exact, (up - down) / (2 * step), atol=tolerance, rtol=tolerance
            )


def test_a_model_of_another_vocabulary_is_refused(make_model: Maker) -> None:
    rules = TokenRules(vocab_size=13, pad_id=0, stop_ids=(1,))
    with pytest.raises(TokenizerMismatch, match="vocabulary of 13"):
        CachedLM(make_model(), rules, PROMPT)


def test_observations_without_mask_are_refused(make_model: Maker) -> None:
    lm, observation = cached_lm(make_model()), walk(2)[0]
    with pytest.raises(InvalidArgument, match="attention_mask"):
        lm.hidden({"input_ids": observation["input_ids"]})
    with pytest.raises(InvalidArgument, match="observation='Tensor'"):
        lm.hidden(observation["input_ids"])  # type: ignore[arg-type]


def test_a_copy_has_caches_of_its_own(make_model: Maker) -> None:
    from copy import deepcopy

    lm, observation = cached_lm(make_model()), walk(3)[0]
    assert isinstance(lm.model, GPT2LMHeadModel)
    with torch.no_grad():
        before = log_probs(lm, observation)
        copied = deepcopy(lm)
        for parameter in copied.model.parameters():
            parameter.mul_(1.1)
        torch.testing.assert_close(
            log_probs(copied, observation), uncached(copied, observation), atol=1e-4, rtol=0
        )
        torch.testing.assert_close(log_probs(lm, observation), before)
