"""What the over-optimisation study says: fits, peaks, advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlhf_gym.pipelines.studies.overoptimisation_cells import MEMBERS, SIZES
from rlhf_gym.pipelines.studies.overoptimisation_fits import (
    FitWithRanges,
    Floats,
    Form,
    Points,
    best_of_n_kl,
    fit_curve,
    fit_with_ranges,
)
from rlhf_gym.pipelines.studies.results import StudyReport, over_seeds

Curves = Mapping[str, Sequence[Mapping[str, Any]]]
"""By name of the proxy, one result per seed."""

LEAST_D = 0.3
"""Of PPO's updates those below are left out of the fit: nearly the reference, all noise."""


class Unit(NamedTuple):
    """Mean and deviation of gold over the reference's own samples: the unit gains are told in."""

    mean: float
    deviation: float

    def gain(self, gold: Any) -> Floats:
        """How far above the reference's mean, in its deviations; the shape of `gold`."""
        return (np.asarray(gold, dtype=np.float64) - self.mean) / self.deviation


class Curve(NamedTuple):
    """What one proxy came to, over all seeds.

    Attributes:
        form: "bon" or "rl".
        d: sqrt(KL), shape (seeds, points).
        gold: gain, the same shape; of best-of-n (seeds, prompts, points).
        proxy: the proxy's own score, as `gold`.
    """

    form: Form
    d: Floats
    gold: Floats
    proxy: Floats

    def points(self) -> Points:
        """What is fitted: of best-of-n the mean over seeds and prompts, of PPO every update."""
        if self.form == "bon":
            return self.d[0], self.gold.mean((0, 1))
        return _off_the_reference(self.d.ravel(), self.gold.ravel())

    def resample(self, rng: np.random.Generator) -> Points:
        """The same of seeds drawn with replacement, and in each of prompts or updates likewise."""
        seeds = rng.integers(len(self.d), size=len(self.d))
        within = rng.integers(self.gold.shape[1], size=(len(seeds), self.gold.shape[1]))
        gold = self.gold[seeds[:, None], within]
        if self.form == "bon":
            return self.d[0], gold.mean((0, 1))
        return _off_the_reference(self.d[seeds[:, None], within].ravel(), gold.ravel())


def _off_the_reference(d: Floats, gold: Floats) -> Points:
    """Updates that have left the reference; NaN, where a seed has ended, is none."""
    return d[d >= LEAST_D], gold[d >= LEAST_D]


def bon_curves(cells: Curves, unit: Unit) -> dict[str, Curve]:
    """Best-of-n cells as curves; n = 1, whose gain is 0 by definition, is left out."""
    d = np.sqrt(best_of_n_kl(np.array(SIZES[1:], dtype=np.float64)))
    return {
        name: Curve(
            "bon",
            np.tile(d, (len(seeds), 1)),
            unit.gain([cell["gold"] for cell in seeds])[..., 1:],
            np.array([cell["proxy"] for cell in seeds])[..., 1:],
        )
        for name, seeds in cells.items()
    }


def rl_curves(cells: Curves, unit: Unit) -> dict[str, Curve]:
    """PPO's cells as curves; a seed with fewer updates than another ends in NaN.

    Runs end after so many tokens, and a policy that writes longer responses has fewer updates.
    """
    curves = {}
    for name, seeds in cells.items():
        updates = max(len(cell["kl"]) for cell in seeds)
        columns = {
            key: np.array([_padded(cell[key], updates) for cell in seeds])
            for key in ("kl", "gold", "proxy")
        }
        d = np.sqrt(columns["kl"].clip(min=0.0))  # a mean of samples can be below 0
        curves[name] = Curve("rl", d, unit.gain(columns["gold"]), columns["proxy"])
    return curves


def _padded(values: Sequence[float], length: int) -> Floats:
    return np.pad(np.array(values), (0, length - len(values)), constant_values=np.nan)


def fits_of(curves: Mapping[str, Curve]) -> dict[str, FitWithRanges]:
    """A fit for each proxy, intervals over seeds (and prompts)."""
    return {
        name: fit_with_ranges(curve.form, curve.points(), curve.resample)
        for name, curve in curves.items()
    }


def fit_report(
    bon: Mapping[str, FitWithRanges], rl: Mapping[str, FitWithRanges], seeds: int
) -> StudyReport:
    """Coefficients and peaks of best-of-n and PPO, by name of the proxy."""
    report = StudyReport(
        "Over-optimisation on Sentiment-v0: gold gained over the reference, in deviations of the "
        "reference's gold, fitted over d = sqrt(KL)",
        ["by", "proxy", "alpha", "beta", "peak at KL, nats", "gain there", "turns", "R2"],
    )
    for by, fits in (("best of n", bon), ("PPO", rl)):
        for name, fit in fits.items():
            report.add(
                by,
                name,
                fit.alpha,
                fit.beta,
                *_peak(fit),
                f"{fit.turned:.0%}",
                f"{fit.r_squared:.2f}",
            )
            report.raw[f"{by}: {name}"] = fit._asdict()
    report.notes.append(
        f"{seeds} seed(s), each with its own pairs, reward models and run; 95 % bootstrap "
        "intervals over seeds and, in each, over prompts (best of n) or updates (PPO). Best of n: "
        "gain = d (alpha - beta d); PPO: gain = d (alpha - beta log d). Turns: share of the "
        "resamples whose peak lies within what was measured. An ensemble has "
        f"{MEMBERS} reward models of the same pairs."
    )
    return report


def _peak(fit: FitWithRanges) -> tuple[str, str]:
    """KL and gain at the peak; a peak that nothing was measured near is no number."""
    if fit.peak_kl.value > fit.reach:
        return f"none up to {fit.reach:.3g}", ""
    return str(fit.peak_kl), str(fit.peak_gain)


def course_report(rl: Mapping[str, Curve]) -> StudyReport:
    """Gold and proxy over the thirds of training, which no result had a say in."""
    report = StudyReport(
        "PPO against a proxy: first, middle and last third of the updates",
        ["proxy", "number", "first", "middle", "last", "last - middle", "KL in the last"],
    )
    for name, curve in rl.items():
        kl = _thirds(curve.d**2)[2].mean()
        for number, values in (("gold", curve.gold), ("proxy", curve.proxy)):
            thirds = _thirds(values)
            report.add(
                name,
                number,
                *(f"{third.mean():+.2f}" for third in thirds),
                over_seeds(list(thirds[2] - thirds[1])),
                f"{kl:.1f}" if number == "gold" else "",
            )
            report.raw[f"{name}: {number}"] = [third.tolist() for third in thirds]
    return report


def _thirds(values: Floats) -> Floats:
    """Mean of each third of each seed's updates, shape (3, seeds)."""
    seeds = [row[~np.isnan(row)] for row in values]
    return np.array([[part.mean() for part in np.array_split(row, 3)] for row in seeds]).T


def defence_report(
    curves: Mapping[str, Curve], base: str, defences: Sequence[str], resamples: int = 2000
) -> StudyReport:
    """Whether a defence moves the peak, both fitted to the same resampled seeds.

    Args:
        curves: of one form.
        base: what is defended.
        defences: names to compare it with.
        resamples: bootstrap draws.
    """
    report = StudyReport(
        f"Does it push the peak out? Beside {base}",
        ["defence", "peak lies further out", "peak is higher"],
    )
    for name in defences:
        rng = np.random.default_rng(0)
        further, higher = [], []
        for _ in range(resamples):
            state = rng.bit_generator.state
            defended = fit_curve(curves[name].form, *curves[name].resample(rng))
            rng.bit_generator.state = state  # the same seeds and prompts
            bare = fit_curve(curves[base].form, *curves[base].resample(rng))
            further.append(defended.peak > bare.peak)
            higher.append(_top(defended, curves[name]) > _top(bare, curves[base]))
        report.add(name, f"{np.mean(further):.0%}", f"{np.mean(higher):.0%}")
        report.raw[name] = {"further": np.mean(further), "higher": np.mean(higher)}
    report.notes.append(
        "Share of the bootstrap resamples in which it does; a peak beyond what was measured counts "
        "as high as the curve is at the end of what was measured."
    )
    return report


def _top(fit: Any, curve: Curve) -> float:
    """The fitted gain at its peak, or where the data end before it."""
    return float(fit.gain(np.array(min(fit.peak, np.nanmax(curve.d)))))


def advice(fit: FitWithRanges, base: str) -> str:
    """When to stop PPO against a proxy, in a sentence."""
    return (
        f"Early stopping, PPO against {base}: the fitted gold peaks at a KL of {fit.peak_kl} nats, "
        f"{fit.peak_gain} deviations above the reference; the curve turns within the data in "
        f"{fit.turned:.0%} of the resamples."
    )
