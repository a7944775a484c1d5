"""What there is to say about an experiment, finished or not: estimates, and which pairs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from rlhf_gym.core.calibration import Estimate
from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.pipelines.experiments.cells import SUMMARY, Cell, Experiment
from rlhf_gym.pipelines.experiments.curves import Curve, Curves
from rlhf_gym.pipelines.experiments.statistics import (
    Pair,
    compare_pairs,
    interquartile_mean,
    probability_of_improvement,
)
from rlhf_gym.pipelines.experiments.titles import HEADLINES
from rlhf_gym.rewards.control_schemes import control_scheme, moves_optimum

EXACT_ID = "rlhf_gym/Exact-v0"
CURVE_OF = {"gold_return": "gold"}
"""Headline -> its curve, where that is called otherwise."""


@dataclass(frozen=True)
class Row:
    """One scheme.

    Attributes:
        name: of the scheme.
        moves: whether it moves the optimum, in a word, or how far.
        seeds: how many are finished.
        estimates: metric -> interquartile mean with its interval.
        improvement: probability that a run of it beats one of the first scheme; None for that one.
        speed: mean of the headline over training, where it is known; tells fast from slow.
    """

    name: str
    moves: str
    seeds: int
    estimates: Mapping[str, Estimate]
    improvement: Estimate | None
    speed: float | None


@dataclass(frozen=True)
class Report:
    """What there is to say about an experiment.

    Attributes:
        title: environment and agent.
        headline: the metric by which schemes are compared.
        rows: one for each scheme with a finished seed.
        pairs: all pairs of schemes.
        missing: names of the cells that are not finished.
        finished: how many are.
        seconds: that these took, one after another; of an interrupted one since it went on.
    """

    title: str
    headline: str
    rows: Sequence[Row]
    pairs: Sequence[Pair]
    missing: Sequence[str]
    finished: int
    seconds: float


def make_report(experiment: Experiment, curves: Curves) -> Report:
    """Compare what is finished.

    Args:
        experiment: as it lies on disk.
        curves: scheme -> quantity -> curve.

    Raises:
        InvalidData: nothing is finished yet.
    """
    done = [cell for cell in experiment.cells if cell.is_done]
    values = {
        scheme.name: _by_metric([cell for cell in done if cell.scheme == scheme])
        for scheme in experiment.schemes
    }
    known = {name for found in values.values() for name in found}
    headline = next((name for name in HEADLINES if name in known), None)
    if headline is None:
        raise InvalidData(
            "experiment", str(experiment.folder), "no run is finished yet", "Wait, or go on with it"
        )
    judged = {name: found[headline] for name, found in values.items() if headline in found}
    first = next(iter(judged))
    moves = _moves(experiment)
    rows = [
        Row(
            name,
            moves.get(name, ""),
            len(numbers),
            {metric: interquartile_mean(values[name][metric]) for metric in values[name]},
            None if name == first else probability_of_improvement(numbers, judged[first]),
            _speed(curves.get(name, {}), headline),
        )
        for name, numbers in judged.items()
    ]
    settings = experiment.settings
    task = settings.get("environment.model") or settings["environment.env"]
    if arguments := settings.get("environment.env_kwargs"):
        task = f"{task} ({', '.join(arguments)})"
    return Report(
        f"{settings['agent']} on {task}, {settings['budget']:,} timesteps",
        headline,
        rows,
        compare_pairs(judged),
        [cell.name for cell in experiment.cells if not cell.is_done],
        len(done),
        sum(cell.read(SUMMARY).get("seconds", 0.0) for cell in done),
    )


def _by_metric(cells: Sequence[Cell]) -> dict[str, list[float]]:
    """Metric -> one number per cell; metrics that not all cells have are left out."""
    found = [cell.metrics for cell in cells]
    names = set.intersection(*map(set, found)) if found else set()
    return {name: [metrics[name] for metrics in found] for name in sorted(names)}


def _moves(experiment: Experiment) -> dict[str, str]:
    """Whether schemes move the optimum: computed on Exact-v0, by definition elsewhere."""
    if experiment.is_control:
        return {scheme.name: _by_form(scheme.expression) for scheme in experiment.schemes}
    words: dict[str, str] = {scheme.name: scheme.moves or "" for scheme in experiment.schemes}
    if experiment.settings.get("environment.env") != EXACT_ID:
        return words
    from rlhf_gym.envs.exact import ExactVectorEnv
    from rlhf_gym.pipelines.environment import EnvironmentConfig, make_environment
    from rlhf_gym.pipelines.experiments.optimum import optimum_of

    flags = {
        name.removeprefix("environment."): value
        for name, value in experiment.settings.items()
        if name.startswith("environment.")
    }
    env = make_environment(EnvironmentConfig(**flags)).unwrapped
    for scheme in experiment.schemes:
        moved = optimum_of(scheme.expression, cast(ExactVectorEnv, env))
        if moved is not None:
            far = f"by {moved.distance:.2f}, to {moved.share:.2f}"
            words[scheme.name] = far if moved.distance > 0.005 else "no"
    return words


def _by_form(expression: str) -> str:
    """The same of a scheme for acting; nothing where a module of the user's is out of reach now."""
    try:
        return moves_optimum(control_scheme(expression))
    except InvalidArgument:
        return ""


def _speed(curves: Mapping[str, Curve], headline: str) -> float | None:
    """Mean of the headline's curve over training."""
    name = CURVE_OF.get(headline, headline)
    return float(np.mean(curves[name].mean)) if name in curves else None
