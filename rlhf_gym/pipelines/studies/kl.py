"""KL estimators and where KL is charged: bias, variance, gradients, and what PPO makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_gym.envs.exact import ExactVectorEnv
from rlhf_gym.envs.exact.judge import ExactJudge
from rlhf_gym.envs.exact.solver import NodeTable
from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.kl_exact import (
    ESTIMATORS,
    Use,
    estimator_error,
    every_response,
    gradient_error,
)
from rlhf_gym.pipelines.studies.kl_picture import draw
from rlhf_gym.pipelines.studies.kl_placement import (
    BETA,
    LEARNING_RATE,
    ROWS,
    TOKENS,
    VARIANTS,
    placement_cell,
)
from rlhf_gym.pipelines.studies.kl_samples import SAMPLES, sample_cell
from rlhf_gym.pipelines.studies.results import StudyReport, over_seeds

if TYPE_CHECKING:
    from rlhf_gym.pipelines.studies import StudyConfig

DISTANCES = (0.1, 0.3, 1.0, 3.0, 10.0)
"""KL of whole responses in nats; the optimum at a coefficient of 0.1 is at 11.1."""
STOPS = (2_000, 8_000)
"""Tokens after which PPO on Sentiment-v0 pauses and is judged."""
FIRST_SEED = 10
"""Seeds from here on are reported; settings were tried out on others."""
NAMES = (*ESTIMATORS, "exact")
USES: tuple[Use, ...] = ("token", "response", "sequence")
GRADIENTS = ("reward", "loss", "sequence loss")

Table = Mapping[str, Any]
"""By distance, by use, by estimator: numbers of an `Error` or a `GradientError` by name."""


def run(config: StudyConfig) -> None:
    """Enumerate, sample, train what is not there yet, print four tables and draw one picture."""
    folder = config.output / "kl"
    judge = ExactVectorEnv().judge
    policies = {distance: at_distance(judge, distance) for distance in DISTANCES}
    errors = {kl: estimator_table(judge, policy) for kl, policy in policies.items()}
    gradients = {kl: gradient_table(judge, policy) for kl, policy in policies.items()}
    settings = {"stops": STOPS, "samples": SAMPLES, "seed": FIRST_SEED}
    samples = kept(
        folder / "cells" / "samples.json",
        settings,
        lambda: {"stops": sample_cell(STOPS, FIRST_SEED)},
    )["stops"]
    placements = {name: _placement(folder, name, config.seeds) for name in VARIANTS}
    for name, report in (
        ("estimators", _estimator_report(errors)),
        ("gradients", _gradient_report(gradients)),
        ("samples", _sample_report(samples)),
        ("placement", _placement_report(placements)),
    ):
        report.publish(folder / name)
    draw(errors, gradients, placements, folder / "kl.png")


def at_distance(judge: ExactJudge, kl: float) -> NodeTable:
    """The policy on the way from the reference to the optimum whose KL is `kl` nats.

    Policies on this way are the optima of larger coefficients, pi_ref exp(r / beta) / Z: the best
    reward for their KL.
    """
    low, high = math.log(1e-3), math.log(1e3)  # of the coefficient; KL falls as it grows
    for _ in range(60):
        middle = (low + high) / 2
        if judge.optimum(math.exp(middle)).kl > kl:
            low = middle
        else:
            high = middle
    return judge.optimum(math.exp(high)).log_probs


def estimator_table(judge: ExactJudge, policy: NodeTable) -> dict[str, dict[str, Any]]:
    """By use and estimator, how far it is off."""
    responses = every_response(judge.tree, policy, judge.reference)
    return {
        use: {
            name: estimator_error(responses, name, use)._asdict()
            for name in NAMES
            if (use, name) != ("sequence", "exact")
        }
        for use in USES
    }


def gradient_table(judge: ExactJudge, policy: NodeTable) -> dict[str, dict[str, Any]]:
    """By use and estimator, how far its gradient is from that of the KL of whole responses."""
    return {
        how: {
            name: gradient_error(judge, policy, name, how)._asdict()
            for name in NAMES
            if (how, name) != ("sequence loss", "exact")
        }
        for how in GRADIENTS
    }


def _placement(folder: Path, name: str, seeds: int) -> list[dict[str, Any]]:
    variant = VARIANTS[name]
    fixed = {"tokens": TOKENS, "rows": ROWS, "learning_rate": LEARNING_RATE}
    slug = name.replace(", ", "-").replace(" ", "-")
    return [
        kept(
            folder / "placement" / f"{slug}-{seed}.json",
            {"variant": asdict(variant), "seed": seed, **fixed},
            lambda seed=seed: placement_cell(variant, seed),  # type: ignore[misc]
        )
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
    ]


def _estimator_report(errors: Mapping[float, Table]) -> StudyReport:
    report = StudyReport(
        "KL estimators on Exact-v0, by enumeration: bias, and deviation of one estimate, in nats",
        ["KL of a response", "estimate of", "truth", *NAMES],
    )
    for distance, table in errors.items():
        for use, row in table.items():
            cells = [f"{e['bias']:+z.3f}, {_short(e['deviation'])}" for e in row.values()]
            truth = next(iter(row.values()))["truth"]
            report.add(f"{distance:g}", f"a {use}", f"{truth:.3f}", *_padded(cells))
    report.raw = {"errors": errors}
    return report


def _gradient_report(gradients: Mapping[float, Table]) -> StudyReport:
    report = StudyReport(
        "Expected gradient of each way to charge KL, beside that of KL: cosine, ratio of lengths, "
        "noise of one response",
        ["KL of a response", "charged in the", *NAMES],
    )
    for distance, table in gradients.items():
        for how, row in table.items():
            cells = [
                "no gradient"
                if math.isnan(e["cosine"])
                else f"{e['cosine']:+z.2f}, {e['ratio']:.2f}, {_short(e['noise'])}"
                for e in row.values()
            ]
            report.add(f"{distance:g}", how, *_padded(cells))
    report.notes.append(
        "Noise is in units of the true gradient's length; no baseline is taken off."
    )
    report.raw = {"gradients": gradients}
    return report


def _sample_report(samples: Sequence[Mapping[str, Any]]) -> StudyReport:
    report = StudyReport(
        f"KL estimators on Sentiment-v0, {SAMPLES} responses of PPO along its way: bias with 95 % "
        "interval, and deviation of one estimate, in nats",
        ["tokens trained on", "KL of a response", "estimate of", *ESTIMATORS],
    )
    for row in samples:
        kl, low, high = row["kl"]
        for use in USES:
            cells = []
            for name in ESTIMATORS:
                bias, least, most = row[use][name]["bias"]
                deviation = _short(row[use][name]["deviation"])
                cells.append(f"{bias:+z.3f} [{least:+z.3f}, {most:+z.3f}], {deviation}")
            report.add(row["tokens"], f"{kl:.2f} [{low:.2f}, {high:.2f}]", f"a {use}", *cells)
    report.raw = {"samples": samples}
    return report


def _placement_report(placements: Mapping[str, Sequence[Mapping[str, Any]]]) -> StudyReport:
    report = StudyReport(
        f"PPO on Exact-v0 by how KL is charged, {TOKENS} tokens, judged at {BETA} a nat",
        ["KL charged", "share of the way", "reward", "KL, nats", "coefficient at the end"],
    )
    for name, cells in placements.items():
        means = {
            key: float(np.mean([cell[key] for cell in cells])) for key in ("reward", "kl", "coef")
        }
        report.add(
            name,
            over_seeds([cell["share"] for cell in cells]),
            f"{means['reward']:.2f}",
            f"{means['kl']:.2f}",
            f"{means['coef']:.3g}",
        )
    seeds = len(next(iter(placements.values())))
    report.notes.append(f"Means over {seeds} seeds with 95 % bootstrap intervals.")
    report.raw = {"placement": placements}
    return report


def _padded(cells: Sequence[str]) -> list[str]:
    return [*cells, *["" for _ in range(len(NAMES) - len(cells))]]


def _short(number: float) -> str:
    return f"{number:.2f}" if number < 100 else f"{number:.2g}"
