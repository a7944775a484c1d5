"""Numbers over seeds that can be believed: the one place where rliable and SciPy are used.

Sources: Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical
Precipice"; Colas et al. (2019), "A Hitchhiker's Guide to Statistical Comparisons of Reinforcement
Learning Algorithms", for Welch's test; Holm (1979), "A Simple Sequentially Rejective Multiple Test
Procedure".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_ind

from rlhf_gym.core.calibration import Estimate
from rlhf_gym.pipelines.experiments.rliable_import import import_rliable

library, metrics = import_rliable()

RESAMPLES = 1000
LEVEL = 0.05
"""Of all comparisons of pairs together."""

Floats = NDArray[np.float64]


class Pair(NamedTuple):
    """Two schemes, compared.

    Attributes:
        better: the one with the larger mean.
        worse: the other.
        difference: of their means.
        p: of Welch's test that the means are equal.
        corrected: p for all pairs together, after Holm.
    """

    better: str
    worse: str
    difference: float
    p: float
    corrected: float

    @property
    def differ(self) -> bool:
        """Whether they truly differ: false for at most 5 % of experiments with nothing in them."""
        return self.corrected < LEVEL


def interquartile_mean(values: Sequence[float]) -> Estimate:
    """Mean of the middle half, and its 95 % stratified bootstrap interval.

    Args:
        values: one per seed; of a single one all three numbers are the same.
    """
    scores = _runs(values)
    return _interval(scores, lambda runs: np.array([metrics.aggregate_iqm(runs)]))


def probability_of_improvement(values: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Probability that a run of one scheme beats a run of another, ties half; 95 % interval.

    Args:
        values: of the scheme, one per seed.
        baseline: of the other.
    """
    return _interval((_runs(values), _runs(baseline)), _share_of_wins)


def compare_pairs(values: Mapping[str, Sequence[float]]) -> list[Pair]:
    """Every pair of schemes with two seeds or more, the most certain first.

    Args:
        values: scheme -> one number per seed.
    """
    known = {name: list(numbers) for name, numbers in values.items() if len(numbers) > 1}
    found = []
    for one, other in combinations(known, 2):
        difference = float(np.mean(known[one]) - np.mean(known[other]))
        better, worse = (one, other) if difference >= 0 else (other, one)
        p = _welch(known[one], known[other])
        found.append(Pair(better, worse, abs(difference), p, p))
    found.sort(key=lambda pair: pair.p)
    corrected = holm([pair.p for pair in found])
    return [pair._replace(corrected=p) for pair, p in zip(found, corrected, strict=True)]


def holm(ps: Sequence[float]) -> list[float]:
    """Corrected p-values, in the order of the given ones, which rise.

        p'_i = max over j <= i of min(1, (m - j) p_j),  j counted from 0

    Args:
        ps: of m tests, the smallest first.
    """
    factors = np.arange(len(ps), 0, -1)
    corrected: list[float] = np.maximum.accumulate(np.minimum(factors * ps, 1.0)).tolist()
    return corrected


def _welch(one: Sequence[float], other: Sequence[float]) -> float:
    """Two-sided p of equal means, variances left to differ."""
    if np.ptp(one) == np.ptp(other) == 0:  # no variance: the test divides by it
        return 1.0 if one[0] == other[0] else 0.0
    return float(ttest_ind(one, other, equal_var=False).pvalue)


def _share_of_wins(x: Floats, y: Floats) -> Floats:
    """What `metrics.probability_of_improvement` says of one task, tested to be the same.

    That one goes through a rank test, twenty times slower, for every resample.
    """
    return np.array([(1 + np.sign(x - y.T).mean()) / 2])


def _runs(values: Sequence[float]) -> Floats:
    """As rliable wants it, shape (runs, tasks): one task."""
    return np.asarray(values, dtype=np.float64).reshape(-1, 1)


def _interval(scores: Any, of: Callable[..., Floats]) -> Estimate:
    first = scores if isinstance(scores, np.ndarray) else scores[0]
    with _own_generator():
        if len(first) == 1:
            value = float(of(*(scores if isinstance(scores, tuple) else (scores,)))[0])
            return Estimate(value, value, value)
        points, intervals = library.get_interval_estimates({"": scores}, of, reps=RESAMPLES)
    low, high = intervals[""][:, 0].tolist()
    return Estimate(float(points[""][0]), low, high)


@contextmanager
def _own_generator() -> Iterator[None]:
    """rliable draws from NumPy's global generator: it is seeded here, and put back as it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
