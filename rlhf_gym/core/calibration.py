"""How far to trust a reward model: accuracy with an interval, calibration, pull towards length.

Everything here is a pure function of arrays; nothing is random.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_gym.core.errors import InvalidArgument

Floats = NDArray[np.float64]

_NORMAL_QUANTILE_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal."""


class Estimate(NamedTuple):
    """A number with its 95 % interval.

    Attributes:
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:z.3f} [{self.low:z.3f}, {self.high:z.3f}]"  # z: no minus before zero


class ReliabilityBin(NamedTuple):
    """Predictions of one band of confidence.

    Attributes:
        confidence: their mean confidence.
        accuracy: the share of them that was right.
        size: how many there are.
    """

    confidence: float
    accuracy: float
    size: int


def wilson_interval(share: float, trials: float) -> Estimate:
    """The score interval of a proportion; it stays within [0, 1] and is right for few trials too.

    Args:
        share: observed proportion.
        trials: number of independent trials; a fraction is allowed (an effective number).

    Returns:
        The proportion with its 95 % interval; (nan, 0, 1) without trials.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if trials <= 0:
        return Estimate(math.nan, 0.0, 1.0)
    z = _NORMAL_QUANTILE_95
    # (p + z^2/2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2/n)
    shrink = 1.0 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # At 0 and 1 rounding would put the proportion itself just outside.
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def mean_interval(values: ArrayLike) -> Estimate:
    """Mean of independent numbers with its normal 95 % interval; NaN without any, open for one."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        return Estimate(math.nan, -math.inf, math.inf)
    mean = float(numbers.mean())
    if numbers.size == 1:
        return Estimate(mean, -math.inf, math.inf)
    half = _NORMAL_QUANTILE_95 * float(numbers.std(ddof=1)) / math.sqrt(numbers.size)
    return Estimate(mean, mean - half, mean + half)


def accuracy_interval(correct: ArrayLike, groups: ArrayLike) -> Estimate:
    """Accuracy with an interval that knows that comparisons of one prompt are not independent.

    Args:
        correct: 1 right, 0 wrong, 0.5 for a tie in the scores, shape (comparisons,).
        groups: the prompt of each comparison (any hashable number or string), shape (comparisons,).

    Returns:
        Wilson's interval with the number of comparisons divided by the design effect: how much
        larger the variance between prompts is than that of as many independent comparisons. Never
        more trials than comparisons; if all are right or all wrong, as many as there are prompts.

    Source: Kish 1965, "Survey Sampling" (design effect); Korn and Graubard 1998 (its use in an
    interval for a proportion).
    """
    right = np.asarray(correct, dtype=np.float64)
    if right.size == 0:
        return wilson_interval(math.nan, 0)
    share = float(right.mean())
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    prompts = int(group.max()) + 1
    independent = share * (1 - share) / right.size
    if prompts < 2 or independent == 0:
        return wilson_interval(share, prompts)
    residuals = np.bincount(group, weights=right - share)
    # variance of a ratio of sums over prompts: G/(G-1) sum_g (sum_i (x_i - p))^2 / n^2
    clustered = prompts / (prompts - 1) * float((residuals**2).sum()) / right.size**2
    effective = right.size * independent / clustered if clustered > 0 else math.inf
    return wilson_interval(share, min(effective, right.size))


def reliability(
    probabilities: ArrayLike, outcomes: ArrayLike, bins: int = 10
) -> list[ReliabilityBin]:
    """Accuracy against confidence of binary predictions; empty bands are left out.

    Args:
        probabilities: predicted probability of the positive outcome, shape (count,).
        outcomes: 1 if it happened, 0 if not, 0.5 for a tie, shape (count,).
        bins: bands of equal width between a confidence of 0.5 and 1.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2. The
    prediction is the likelier side, so which side of a pair is named first does not matter.
    """
    if bins < 1:
        raise InvalidArgument("bins", bins, "no band to count in", "Give at least 1")
    p = np.asarray(probabilities, dtype=np.float64)
    happened = np.asarray(outcomes, dtype=np.float64)
    confidence = np.maximum(p, 1 - p)
    right = np.where(p == 0.5, 0.5, np.where(p > 0.5, happened, 1 - happened))
    band = np.clip(((confidence - 0.5) * 2 * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(band, minlength=bins)
    mean_confidence = np.bincount(band, confidence, bins) / np.maximum(count, 1)
    accuracy = np.bincount(band, right, bins) / np.maximum(count, 1)
    return [
        ReliabilityBin(float(mean_confidence[i]), float(accuracy[i]), int(count[i]))
        for i in np.flatnonzero(count)
    ]


def expected_calibration_error(
    probabilities: ArrayLike, outcomes: ArrayLike, bins: int = 10
) -> float:
    """Mean distance between confidence and accuracy, in probability; 0 is perfect.

    Args and source: as `reliability`. NaN without predictions.
    """
    table = reliability(probabilities, outcomes, bins)
    if not table:
        return math.nan
    count = sum(row.size for row in table)
    return sum(row.size / count * abs(row.accuracy - row.confidence) for row in table)


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Rank correlation in [-1, 1], ties sharing their mean rank; NaN if either side is constant.

    Args:
        first: numbers, shape (count,).
        second: numbers, shape (count,).

    Source: Spearman 1904.
    """
    return pearson(_ranks(first), _ranks(second))


def pearson(first: ArrayLike, second: ArrayLike) -> float:
    """Linear correlation in [-1, 1]; NaN if either side is constant.

    Args:
        first: numbers, shape (count,).
        second: numbers, shape (count,).
    """
    a = np.asarray(first, dtype=np.float64)
    b = np.asarray(second, dtype=np.float64)
    if a.size < 2:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a**2).sum()) * float((b**2).sum()))
    return float((a * b).sum()) / scale if scale > 0 else math.nan


def length_correlation(scores: ArrayLike, lengths: ArrayLike) -> float:
    """Rank correlation of score and response length: near 1, the model pays for length.

    Args:
        scores: shape (count,).
        lengths: tokens, shape (count,).

    Source: Singhal et al. 2023, "A Long Way to Go: Investigating Length Correlations in RLHF".
    """
    return spearman(scores, lengths)


def concordance(scores: ArrayLike, ratings: ArrayLike) -> float:
    """Share of all pairs with different ratings that the scores put in the same order, ties half.

    With ratings of 0 and 1 it is the area under the ROC curve.

    Args:
        scores: shape (count,).
        ratings: what they should follow, shape (count,).

    Returns:
        0.5 for chance, 1 for the same order; NaN if all ratings are equal.

    Source: Harrell et al. 1982, "Evaluating the yield of medical tests" (C index).
    """
    score = np.asarray(scores, dtype=np.float64)
    rating = np.asarray(ratings, dtype=np.float64)
    order = np.argsort(rating, kind="stable")
    score, rating = score[order], rating[order]
    agreeing, compared = 0.0, 0
    # One level of equal ratings at a time against all that are rated lower: pairs counted once.
    edges = [*(np.flatnonzero(np.diff(rating)) + 1).tolist(), len(rating)]
    for start, stop in pairwise(edges):
        lower = np.sort(score[:start])
        below = np.searchsorted(lower, score[start:stop], side="left")
        up_to = np.searchsorted(lower, score[start:stop], side="right")
        agreeing += float((below + up_to).sum()) / 2
        compared += start * (stop - start)
    return agreeing / compared if compared else math.nan


def _ranks(values: ArrayLike) -> Floats:
    """Ranks from 0, equal values sharing the mean of theirs."""
    numbers: NDArray[Any] = np.asarray(values, dtype=np.float64)
    _, position, count = np.unique(numbers, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: Floats = (last - (count + 1) / 2)[position]
    return ranks
