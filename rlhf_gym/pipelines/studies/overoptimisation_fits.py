"""Over-optimisation in numbers: best of n without bias, the curves of Gao et al., their peaks.

d is the square root of KL(policy || reference) in nats, and a gain is what gold (or the proxy) says
above the reference's mean. Pure functions of arrays.

Source: Gao, Schulman and Hilton, "Scaling Laws for Reward Model Overoptimization" (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument

Floats = NDArray[np.float64]
Form = Literal["bon", "rl"]

RESAMPLES = 2000
"""Bootstrap draws, from a generator with a fixed seed."""


class Fit(NamedTuple):
    """Coefficients of a curve.

    Attributes:
        form: "bon" is d (alpha - beta d), "rl" is d (alpha - beta log d).
        alpha: slope of the gain where optimisation begins, gain per sqrt(nat).
        beta: how fast it is eaten up.
    """

    form: Form
    alpha: float
    beta: float

    def gain(self, d: Floats) -> Floats:
        """What the curve says at each d, 0 at d = 0; the shape of `d`."""
        return d * self.alpha - self.beta * _bend(self.form, d)

    @property
    def peak(self) -> float:
        """The d at which the gain is largest; infinite if the curve never turns down.

        "bon": alpha / (2 beta).  "rl": exp(alpha / beta - 1).
        """
        if self.beta <= 0:
            return float("inf")
        if self.form == "bon":
            return max(self.alpha / (2 * self.beta), 0.0)
        return float(np.exp(min(self.alpha / self.beta - 1, 100.0)))


class Range(NamedTuple):
    """A number with its 95 % bootstrap interval; `low` and `high` may be infinite."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


class FitWithRanges(NamedTuple):
    """A fit and what the bootstrap says of it.

    Attributes:
        fit: to all data.
        alpha, beta: with intervals.
        peak_kl: KL at the peak, nats.
        peak_gain: the gain there.
        turned: share of the resamples in which the curve turns down within the data.
        r_squared: share of the fitted points' variance that the curve explains.
        reach: largest KL that was fitted, nats.
    """

    fit: Fit
    alpha: Range
    beta: Range
    peak_kl: Range
    peak_gain: Range
    turned: float
    r_squared: float
    reach: float


def best_of_n_kl(n: Floats) -> Floats:
    """KL of best-of-n sampling from the reference in nats, log n - (n - 1) / n.

    Exact where no two responses tie, an upper bound otherwise.

    Source: Stiennon et al. (2020), appendix G.3; Beirami et al. (2024) for the bound.
    """
    return np.log(n) - (n - 1) / n


def best_of_n(proxy: Floats, values: Floats, n: Sequence[int]) -> Floats:
    """Expected value of the response that a proxy likes best among n, without bias.

    Every subset of n among a prompt's N samples counts: the i-th worst by the proxy is the best of
    C(i - 1, n - 1) of the C(N, n) subsets.

    Args:
        proxy: score of each response, shape (prompts, N).
        values: what to average, the same shape: gold, or the proxy itself.
        n: sizes, each from 1 to N.

    Returns:
        Shape (prompts, sizes).

    Raises:
        InvalidArgument: a size below 1 or above N.

    Source: Nakano et al., "WebGPT" (2021), appendix I.
    """
    total = proxy.shape[1]
    if min(n) < 1 or max(n) > total:
        raise InvalidArgument("n", list(n), f"there are {total} samples", f"Give 1 to {total}")
    ranked = np.take_along_axis(values, np.argsort(proxy, axis=1, kind="stable"), axis=1)
    # log k! for k = 0 ... N
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    place, size = np.arange(1, total + 1)[:, None], np.asarray(n)[None, :]
    worse = np.maximum(place - size, 0)
    subsets = factorial[place - 1] - factorial[size - 1] - factorial[worse]
    all_subsets = factorial[total] - factorial[size] - factorial[total - size]
    weight = np.where(place >= size, np.exp(subsets - all_subsets), 0.0)
    return np.asarray(ranked @ weight)


def fit_curve(form: Form, d: Floats, gain: Floats) -> Fit:
    """Least squares for alpha and beta, which the curves hold linearly.

    Args:
        form: of the curve.
        d: sqrt(KL), above 0, shape (points,).
        gain: above the reference, shape (points,).

    Source: Gao et al. (2022), section 3.1.
    """
    (alpha, beta), *_ = np.linalg.lstsq(np.stack([d, -_bend(form, d)], -1), gain, rcond=None)
    return Fit(form, float(alpha), float(beta))


Points = tuple[Floats, Floats]
"""d and gain, each of shape (points,)."""


def fit_with_ranges(
    form: Form, points: Points, resample: Callable[[np.random.Generator], Points]
) -> FitWithRanges:
    """A fit, with percentile-bootstrap intervals.

    Args:
        form: of the curve.
        points: what is fitted.
        resample: the same from units (seeds, prompts) drawn with replacement.
    """
    rng = np.random.default_rng(0)
    fit = fit_curve(form, *points)
    drawn = [fit_curve(form, *resample(rng)) for _ in range(RESAMPLES)]

    def range_of(number: Callable[[Fit], float]) -> Range:
        # Some peaks are infinite: nearest, because between a number and infinity nothing lies.
        low, high = np.quantile([number(one) for one in drawn], [0.025, 0.975], method="nearest")
        return Range(number(fit), float(low), float(high))

    d, gain = points
    residual = np.square(gain - fit.gain(d)).sum()
    return FitWithRanges(
        fit=fit,
        alpha=range_of(lambda one: one.alpha),
        beta=range_of(lambda one: one.beta),
        peak_kl=range_of(lambda one: one.peak**2),
        peak_gain=range_of(_gain_at_peak),
        turned=float(np.mean([one.peak < d.max() for one in drawn])),
        r_squared=float(1 - residual / np.square(gain - gain.mean()).sum()),
        reach=float(d.max() ** 2),
    )


def _gain_at_peak(fit: Fit) -> float:
    return float(fit.gain(np.array(fit.peak))) if np.isfinite(fit.peak) else float("inf")


def _bend(form: Form, d: Floats) -> Floats:
    """What beta multiplies: d^2, or d log d with 0 log 0 = 0."""
    if form == "bon":
        return d**2
    return d * np.log(np.where(d > 0, d, 1.0))
