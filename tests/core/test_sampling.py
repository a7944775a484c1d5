"""Tokens are drawn in proportion to their probability, and never where there is none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlhf_gym.core import sampling
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.sampling import greedy_tokens, sample_tokens


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chi_squared(tokens: Tensor, probs: Tensor) -> float:
    """Pearson's statistic in deviations from its mean: (X - k) / sqrt(2k) with k degrees of
    freedom.

    Tokens that are expected fewer than ten times are counted together.
    """
    expected = probs.double() * len(tokens)
    counts = torch.bincount(tokens, minlength=len(probs)).double()
    common = expected >= 10
    expected = torch.cat([expected[common], expected[~common].sum()[None]])
    counts = torch.cat([counts[common], counts[~common].sum()[None]])
    used = expected > 0
    degrees = int(used.sum()) - 1
    statistic = ((counts - expected)[used] ** 2 / expected[used]).sum().item()
    return (statistic - degrees) / math.sqrt(2 * degrees)


# 512: one running sum. 1024 = 32 x 32: folded without a rest. 601 is a prime: folded with one.
@pytest.mark.parametrize("vocab", [3, 17, 512, 1024, 601])
def test_frequencies_are_probabilities(vocab: int) -> None:
    logits = 2 * torch.randn(vocab, generator=generator())
    logits[vocab // 2] = -torch.inf
    source, copies = generator(1), logits.repeat(500, 1)
    tokens = torch.cat([sample_tokens(copies, source)[0] for _ in range(100)])
    # 4 deviations: one false alarm in tens of thousands of seeds, and the seed is fixed.
    assert abs(chi_squared(tokens, logits.softmax(-1))) < 4
    assert not (tokens == vocab // 2).any()


def test_rows_have_their_own_distributions_and_independent_draws() -> None:
    # Row 0 draws 0 or 1 evenly, row 1 draws 2 or 3 evenly.
    logits = torch.tensor([[0.0, 0.0, -torch.inf, -torch.inf], [-torch.inf, -torch.inf, 0.0, 0.0]])
    source = generator()
    draws = torch.stack([sample_tokens(logits, source)[0] for _ in range(4_000)])
    ones, threes = draws[:, 0] == 1, draws[:, 1] == 3
    assert set(draws[:, 0].tolist()) == {0, 1}
    assert set(draws[:, 1].tolist()) == {2, 3}
    # Four equally likely pairs, 1000 expected of each; deviation sqrt(4000 * 1/4 * 3/4) = 27.4.
    assert abs((ones & threes).sum().item() - 1_000) < 4 * 27.4
    assert abs((ones & ~threes).sum().item() - 1_000) < 4 * 27.4


@pytest.mark.parametrize("vocab", [8, 512, 601])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_the_only_legal_token_is_always_drawn(vocab: int, place: str) -> None:
    token = {"first": 0, "middle": vocab // 2, "last": vocab - 1}[place]
    logits = torch.full((500, vocab), -torch.inf)
    logits[:, token] = -3.0
    tokens, log_probs = sample_tokens(logits, generator())
    assert (tokens == token).all()
    assert (log_probs == 0).all()


def test_log_probabilities_by_hand() -> None:
    # Logits log 1, log 2, log 5 and one illegal: probabilities 1/8, 2/8, 5/8.
    logits = torch.tensor([[0.0, math.log(2), math.log(5), -torch.inf]]).expand(200, 4)
    tokens, log_probs = sample_tokens(logits, generator())
    by_hand = torch.tensor([-2.0794415, -1.3862944, -0.4700036, -torch.inf])
    assert set(tokens.tolist()) == {0, 1, 2}
    torch.testing.assert_close(log_probs, by_hand[tokens])


def test_the_same_seed_draws_the_same_whatever_the_global_one() -> None:
    logits = torch.randn(64, 1_000, generator=generator())
    torch.manual_seed(1)
    first = sample_tokens(logits, generator(5))[0]
    torch.manual_seed(2)
    assert torch.equal(first, sample_tokens(logits, generator(5))[0])
    assert not torch.equal(first, sample_tokens(logits, generator(6))[0])


def test_half_precision_logits_give_float_log_probabilities() -> None:
    logits = torch.randn(4, 10, generator=generator()).bfloat16()
    tokens, log_probs = sample_tokens(logits, generator())
    assert log_probs.dtype == torch.float32
    expected = logits.float().log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)
    torch.testing.assert_close(log_probs, expected)


def test_greedy_takes_the_first_of_the_best() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0], [-torch.inf, 0.0, -torch.inf, -torch.inf]])
    tokens, log_probs = greedy_tokens(logits)
    assert tokens.tolist() == [1, 1]
    # e^3 / (e + 2 e^3 + e^2) = 1 / (e^-2 + 2 + e^-1), whose logarithm is -log 2.5032147 =
    # -0.9175759.
    torch.testing.assert_close(log_probs, torch.tensor([-0.9175759, 0.0]))


@pytest.mark.parametrize("choose", [greedy_tokens, lambda x: sample_tokens(x, generator())])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_rows_without_a_distribution_are_refused(choose: object, value: float) -> None:
    logits = torch.zeros(3, 6)
    logits[1] = value
    with pytest.raises(InvalidArgument, match="no legal token left"):
        choose(logits)  # type: ignore[operator]


def test_a_running_sum_that_is_not_monotone_cannot_choose_the_impossible() -> None:
    # What a parallel sum on an accelerator may do in the last bit: point at tokens of weight 0.
    probs = torch.tensor([[0.5, 0.0, 0.5], [0.2, 0.7, 0.1]])
    repaired = sampling._repair_impossible(torch.tensor([[1], [2]]), probs)
    assert repaired.tolist() == [[0], [2]]
