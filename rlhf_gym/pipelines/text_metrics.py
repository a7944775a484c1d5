"""What is measured on generated text: variety, repetition, length, endings, wins. Pure functions.

Responses are given as tokens without padding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from rlhf_gym.core.calibration import Estimate, mean_interval
from rlhf_gym.core.errors import InvalidArgument

Tokens = Sequence[Hashable]
"""Token ids or words of one response."""


def ngrams(tokens: Tokens, n: int) -> list[tuple[Hashable, ...]]:
    """All runs of n tokens, in order; none if there are fewer than n.

    Raises:
        InvalidArgument: n below 1.
    """
    if n < 1:
        raise InvalidArgument("n", n, "a run of tokens has at least one", "Give 1 or more")
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def distinct_n(responses: Iterable[Tokens], n: int) -> float:
    """Share of different n-grams among all n-grams of all responses; low when they are all alike.

    It falls with the number of responses, so compare policies on equally many.

    Source: Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation
    Models".
    """
    seen = [gram for response in responses for gram in ngrams(response, n)]
    return len(set(seen)) / len(seen) if seen else math.nan


def repetition(responses: Iterable[Tokens], n: int = 4) -> float:
    """Mean share of n-grams that already occurred in the same response; high when a policy loops.

    Responses shorter than n tokens are left out; NaN if all are.

    Source: Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training", seq-rep-n.
    """
    runs = (ngrams(response, n) for response in responses)
    shares = [1 - len(set(grams)) / len(grams) for grams in runs if grams]
    return float(np.mean(shares)) if shares else math.nan


def duplicates(responses: Sequence[Tokens]) -> float:
    """Share of responses that another, earlier response repeats to the letter: mode collapse."""
    return 1 - len({tuple(r) for r in responses}) / len(responses) if responses else math.nan


def finish_shares(reasons: Iterable[str]) -> dict[str, float]:
    """Share of each finish reason, by name in alphabetical order."""
    counts = Counter(reasons)
    total = counts.total()
    return {reason: counts[reason] / total for reason in sorted(counts)}


def win_rate(scores: ArrayLike, reference_scores: ArrayLike) -> Estimate:
    """How often a response beats the reference's on the same prompt, ties counting half.

    Args:
        scores: judge's score of each response, shape (prompts,), or (prompts, samples) for several.
        reference_scores: judge's score of the reference's responses to the same prompts, of the
            same form; each sample is compared with every sample of the reference.

    Returns:
        The win rate in [0, 1] with its 95 % interval over prompts, which were drawn at random.

    Raises:
        InvalidArgument: another number of prompts on either side.
    """
    mine = np.atleast_2d(np.asarray(scores, dtype=np.float64).T).T
    other = np.atleast_2d(np.asarray(reference_scores, dtype=np.float64).T).T
    if len(mine) != len(other):
        raise InvalidArgument(
            "reference_scores",
            other.shape,
            f"{len(mine)} prompts on one side and {len(other)} on the other",
            "Judge both on the same prompts, in the same order",
        )
    difference = np.sign(mine[:, :, None] - other[:, None, :])
    wins = (1 + difference.mean((1, 2))) / 2
    mean, low, high = mean_interval(wins)
    return Estimate(mean, max(0.0, low), min(1.0, high))
