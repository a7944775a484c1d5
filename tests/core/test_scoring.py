"""Teacher-forced log-probabilities equal the model's own, token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from rlhf_gym.core import scoring
from rlhf_gym.core.scoring import sequence_perplexity, token_log_distributions, token_log_probs
from rlhf_gym.core.tokens import TokenRules, legal_logits

VOCAB, PAD, PROMPT, TIME = 20, 0, 5, 7
RULES = TokenRules(VOCAB, PAD, (2,), temperature=0.6, banned_ids=(1,))


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2,
        n_embd=16,
        n_head=2,
        vocab_size=22,
        n_positions=32,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = GPT2LMHeadModel(config).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def batch() -> tuple[Tensor, Tensor]:
    """Six rows of unequal prompts and responses; the last has no response at all."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, VOCAB, (6, PROMPT + TIME), generator=generator)
    columns = torch.arange(PROMPT + TIME)
    starts, ends = torch.tensor([0, 2, 4, 1, 0, 3]), torch.tensor([7, 3, 1, 5, 6, 0]) + PROMPT
    mask = (columns >= starts[:, None]) & (columns < ends[:, None])
    return ids * mask, mask.to(torch.int8)


@torch.no_grad()
def by_hand(model: PreTrainedModel, rules: TokenRules, masks: Tensor | None = None) -> Tensor:
    """Log-distributions before each response token, one unpadded row at a time."""
    model.eval()
    ids, mask = batch()
    result = torch.zeros(len(ids), TIME, VOCAB)
    for row in range(len(ids)):
        real = ids[row][mask[row].bool()][None]
        length = int(mask[row, PROMPT:].sum())
        if length:
            logits = model(real).logits[0, -length - 1 : -1]
            allowed = None if masks is None else masks[row, :length]
            result[row, :length] = legal_logits(logits, rules, allowed).log_softmax(-1)
    model.train()
    return result


@pytest.mark.parametrize("backend", ["fast", "transformers"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tiny_chunks", [False, True])
def test_every_token_is_the_models(
    model: PreTrainedModel,
    backend: scoring.Backend,
    masked: bool,
    tiny_chunks: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if tiny_chunks:
        monkeypatch.setattr(scoring, "TRUNK_TOKENS", 17)
        monkeypatch.setattr(scoring, "HEAD_FLOATS", 2 * VOCAB)
    ids, mask = batch()
    allowed = None
    if masked:
        allowed = torch.rand(6, TIME, VOCAB, generator=torch.Generator().manual_seed(3)) < 0.5
        allowed.scatter_(-1, ids[:, PROMPT:, None], True)  # what was written had been allowed
    expected = by_hand(model, RULES, allowed)
    counts = mask[:, PROMPT:].bool()

    distributions = token_log_distributions(
        model, ids, mask, PROMPT, RULES, allowed, backend=backend
    )
    torch.testing.assert_close(distributions, expected, atol=1e-5, rtol=1e-5)
    log_probs = token_log_probs(model, ids, mask, PROMPT, RULES, allowed, backend=backend)
    chosen = expected.gather(-1, ids[:, PROMPT:, None]).squeeze(-1)
    torch.testing.assert_close(log_probs, chosen.masked_fill(~counts, 0), atol=1e-5, rtol=1e-5)
    assert (log_probs[~counts] == 0).all()
    assert not log_probs.requires_grad
    # Not an inference tensor: a loss may be built on it.
    (log_probs * torch.ones(6, TIME, requires_grad=True)).sum().backward()


def test_perplexity_is_the_inverse_of_the_geometric_mean(model: PreTrainedModel) -> None:
    rules = TokenRules(VOCAB, PAD, (2,))
    ids, mask = batch()
    perplexity = sequence_perplexity(model, ids, mask, PROMPT, rules)
    probs = by_hand(model, rules).exp().gather(-1, ids[:, PROMPT:, None]).squeeze(-1)
    # Row 1 has three response tokens: 1 / cube root of the product of their probabilities.
    torch.testing.assert_close(perplexity[1], (probs[1, :3].prod() ** (-1 / 3)))
    assert perplexity[5].isnan()  # no response, no perplexity


def test_no_response_at_all(model: PreTrainedModel) -> None:
    ids, mask = batch()
    mask[:, PROMPT:] = 0
    assert torch.equal(token_log_probs(model, ids, mask, PROMPT, RULES), torch.zeros(6, TIME))
    distributions = token_log_distributions(model, ids, mask, PROMPT, RULES)
    assert torch.equal(distributions, torch.zeros(6, TIME, VOCAB))
    empty = token_log_probs(model, ids[:0], mask[:0], PROMPT, RULES)
    assert empty.shape == (0, TIME)


def test_large_vocabularies_are_scored_in_pieces(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(scoring, "HEAD_FLOATS", 3 * VOCAB)
    monkeypatch.setattr(
        scoring,
        "legal_logits",
        lambda raw, *rest: (sizes.append(len(raw)), legal_logits(raw, *rest))[1],
    )
    ids, mask = batch()
    token_log_probs(model, ids, mask, PROMPT, RULES)
    # 7 + 3 + 1 + 5 + 6 = 22 response tokens, and never more than three at once.
    assert sum(sizes) == 22
    assert max(sizes) == 3
