"""Completions end where they should, and say with which probability they were written."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rlhf_gym.core.errors import InvalidArgument, InvalidPrompt
from rlhf_gym.core.sampler import Completions, Sampler, complete
from rlhf_gym.core.scoring import token_log_probs
from rlhf_gym.core.tokens import TokenRules

VOCAB, PAD, EOS = 24, 0, 2
RULES = TokenRules(VOCAB, PAD, (EOS, 5), temperature=0.7, banned_ids=(1,))
IDS = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": PAD}


def make_gpt2() -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=64, **IDS)
    return GPT2LMHeadModel(config)


def make_llama() -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            **IDS,
        )
    )


def prompts(rows: int = 12) -> tuple[Tensor, Tensor]:
    """Prompts of 1 to 4 tokens, padded on the left."""
    ids = torch.randint(6, VOCAB, (rows, 4), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(4) >= torch.arange(rows)[:, None] % 4).long()
    return ids * mask, mask


def whole(ids: Tensor, mask: Tensor, completions: Completions) -> tuple[Tensor, Tensor]:
    """Prompt and response side by side, ids and mask."""
    return (
        torch.cat([ids, completions.response_ids], 1),
        torch.cat([mask, completions.mask.long()], 1),
    )


@pytest.mark.parametrize("make_model", [make_gpt2, make_llama])
@pytest.mark.parametrize("backend", ["fast", "transformers"])
def test_completions_are_well_formed_and_scored_as_written(make_model, backend) -> None:  # type: ignore[no-untyped-def]
    model = make_model()
    ids, mask = prompts()
    completions = complete(
        model, ids, mask, RULES, 16, torch.Generator().manual_seed(0), backend=backend
    )
    response_ids, log_probs, response_mask, stopped = completions
    lengths = response_mask.sum(-1)
    assert torch.equal(response_mask, torch.arange(16) < lengths[:, None])
    assert (response_ids[~response_mask] == PAD).all()
    assert (log_probs[~response_mask] == 0).all()
    written = response_ids[response_mask]
    assert not torch.isin(written, torch.tensor([PAD, 1])).any()
    is_stop = torch.isin(response_ids, torch.tensor([EOS, 5])) & response_mask
    last = torch.zeros_like(is_stop).scatter_(1, lengths[:, None] - 1, True)
    assert torch.equal(is_stop, last & stopped[:, None])  # stop tokens stand at the end only
    assert (lengths[~stopped] == 16).all()
    assert stopped.any()
    assert not stopped.all()

    scored = token_log_probs(
        model, *whole(ids, mask, completions), 4, RULES, backend="transformers"
    )
    torch.testing.assert_close(scored, log_probs, atol=1e-5, rtol=1e-5)


def test_backends_write_the_same() -> None:
    model = make_gpt2()
    fast, generic = (
        complete(model, *prompts(), RULES, 16, torch.Generator().manual_seed(3), backend=backend)
        for backend in ("fast", "transformers")
    )
    assert torch.equal(fast.response_ids, generic.response_ids)
    torch.testing.assert_close(fast.log_probs, generic.log_probs, atol=1e-5, rtol=1e-5)


def test_greedy_completions_do_not_depend_on_their_company() -> None:
    model = make_llama()
    ids, mask = prompts()
    together = complete(model, ids, mask, RULES, 10, torch.Generator(), deterministic=True)
    split = complete(
        model, ids, mask, RULES, 10, torch.Generator(), deterministic=True, batch_size=5
    )
    for a, b in zip(together, split, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_greedy_is_transformers_greedy() -> None:
    model = make_gpt2().eval()
    model.generation_config.suppress_tokens = [PAD, 1]
    model.generation_config.pad_token_id = PAD
    ids, mask = prompts()
    ours = complete(model, ids, mask, RULES, 12, torch.Generator(), deterministic=True)
    theirs = model.generate(
        ids, attention_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=[EOS, 5]
    )[:, 4:]
    assert torch.equal(ours.response_ids[:, : theirs.shape[1]], theirs)


def test_no_stop_token_at_all() -> None:
    rules = TokenRules(VOCAB, PAD, ())
    completions = complete(make_gpt2(), *prompts(), rules, 5, torch.Generator().manual_seed(0))
    assert completions.mask.all()
    assert not completions.stopped.any()


def test_everything_stops_at_once() -> None:
    rules = TokenRules(VOCAB, PAD, (EOS,), banned_ids=(1, *range(3, VOCAB)))
    completions = complete(make_gpt2(), *prompts(), rules, 5, torch.Generator().manual_seed(0))
    assert completions.mask.sum(-1).tolist() == [1] * 12
    assert completions.stopped.all()
    assert (completions.log_probs == 0).all()


def test_bad_arguments() -> None:
    model, generator = make_gpt2(), torch.Generator()
    ids, mask = prompts()
    with pytest.raises(InvalidArgument, match="max_new_tokens"):
        complete(model, ids, mask, RULES, 0, generator)
    with pytest.raises(InvalidArgument, match="batch_size"):
        complete(model, ids, mask, RULES, 4, generator, batch_size=0)
    with pytest.raises(InvalidPrompt, match="at least one prompt"):
        complete(model, ids[:0], mask[:0], RULES, 4, generator)
    with pytest.raises(InvalidPrompt, match="context of 64"):
        complete(model, ids, mask, RULES, 61, generator)
    with pytest.raises(InvalidArgument, match="Call prefill first"):
        Sampler(model, RULES, generator=generator).draw()


def test_a_diverged_model_is_reported() -> None:
    model = make_gpt2()
    torch.nn.init.constant_(model.transformer.ln_f.weight, torch.nan)
    with pytest.raises(InvalidArgument, match="diverged"):
        complete(model, *prompts(), RULES, 4, torch.Generator())


def test_a_sampler_by_hand() -> None:
    model = make_gpt2()
    ids, mask = prompts(3)
    sampler = Sampler(
        model, RULES, generator=torch.Generator().manual_seed(0), with_distribution=True
    )
    sampler.prefill(ids, mask, 8)
    assert len(sampler) == 3
    assert sampler.hidden.shape == (3, 32)

    allowed = torch.zeros(3, VOCAB, dtype=torch.bool)
    allowed[:, [7, 8]] = True
    draw = sampler.draw(allowed)
    assert torch.isin(draw.tokens, torch.tensor([7, 8])).all()
    assert draw.log_distribution is not None
    torch.testing.assert_close(draw.log_distribution.exp().sum(-1), torch.ones(3))
    chosen = draw.log_distribution.gather(1, draw.tokens[:, None]).squeeze(1)
    torch.testing.assert_close(chosen, draw.log_probs)
    assert (draw.log_distribution[~allowed] == -torch.inf).all()

    sampler.advance(draw.tokens)
    before = sampler.logits()
    sampler.keep(torch.tensor([True, False, True]))
    torch.testing.assert_close(sampler.logits(), before[[0, 2]], atol=1e-6, rtol=1e-6)
    sampler.replace(torch.tensor([1]), ids[:1], mask[:1])
    torch.testing.assert_close(sampler.logits()[0], before[0], atol=1e-6, rtol=1e-6)
    fresh = Sampler(model, RULES, generator=torch.Generator())
    fresh.prefill(ids[:1], mask[:1], 8)
    torch.testing.assert_close(sampler.logits()[1], fresh.logits()[0], atol=1e-5, rtol=1e-5)

    sampler.release()
    assert len(sampler) == 0
