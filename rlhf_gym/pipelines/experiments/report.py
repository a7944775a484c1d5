"""`rlhf-gym report`: which schemes differ, in tables and pictures; also of half an experiment.

rlhf-gym report runs/compare-exact-v0-ppo
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import tyro
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from rlhf_gym.core.calibration import Estimate
from rlhf_gym.core.command import Command
from rlhf_gym.core.errors import InvalidData
from rlhf_gym.core.supervised.common import check_writable
from rlhf_gym.pipelines.experiments.board import write_board
from rlhf_gym.pipelines.experiments.cells import Cell, Experiment
from rlhf_gym.pipelines.experiments.curves import Curve, Curves, scheme_curves
from rlhf_gym.pipelines.experiments.figures import draw_curves, draw_frontier, draw_intervals
from rlhf_gym.pipelines.experiments.judging import HEADLINES
from rlhf_gym.pipelines.experiments.statistics import (
    Pair,
    compare_pairs,
    interquartile_mean,
    probability_of_improvement,
)
from rlhf_gym.pipelines.experiments.titles import TITLES, UNITS, in_order

EXACT_ID = "rlhf_gym/Exact-v0"
SHOWN = ("share", "gold", "kl", "length", "gold_return", "automated_return")
"""Metrics in the table, as far as they are known; the CSV has all."""


@dataclass(frozen=True)
class ReportConfig:
    """Tables and pictures of an experiment, finished or not."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The folder that `rlhf-gym compare` wrote to."""
    output: Path | None = None
    """Where the report goes; by default into the folder."""


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
    """

    title: str
    headline: str
    rows: Sequence[Row]
    pairs: Sequence[Pair]
    missing: Sequence[str]

    @property
    def columns(self) -> list[str]:
        """Metrics of the table."""
        known = {name for row in self.rows for name in row.estimates}
        return [name for name in SHOWN if name in known]


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
    return Report(
        f"{settings['agent']} on {task}, {settings['budget']:,} timesteps",
        headline,
        rows,
        compare_pairs(judged),
        [cell.name for cell in experiment.cells if not cell.is_done],
    )


def write_report(report: Report, folder: Path) -> None:
    """Write report.md, report.csv and pairs.csv."""
    (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    metrics = in_order({name for row in report.rows for name in row.estimates})
    header = ["scheme", "moves_optimum", "seeds", "speed"]
    header += [f"{name}{end}" for name in metrics for end in ("", "_low", "_high")]
    header += ["improvement", "improvement_low", "improvement_high"]
    lines: list[list[object]] = [
        [
            row.name,
            row.moves,
            row.seeds,
            row.speed,
            *(part for name in metrics for part in row.estimates.get(name, ("", "", ""))),
            *(row.improvement or ("", "", "")),
        ]
        for row in report.rows
    ]
    _write_csv(folder / "report.csv", header, lines)
    _write_csv(folder / "pairs.csv", [*Pair._fields], [list(pair) for pair in report.pairs])


def write_cells(experiment: Experiment, folder: Path) -> None:
    """Write cells.csv: every metric of every finished cell, from which all else follows."""
    done = [cell for cell in experiment.cells if cell.is_done]
    metrics = in_order({name for cell in done for name in cell.metrics})
    lines = [
        [cell.scheme.name, cell.seed, *(cell.metrics.get(name, "") for name in metrics)]
        for cell in done
    ]
    _write_csv(folder / "cells.csv", ["scheme", "seed", *metrics], lines)


def markdown(report: Report) -> str:
    """The report as Markdown."""
    lines = [f"# {report.title}", "", *_table_lines(*table(report)), ""]
    lines += [
        "Interquartile means over seeds with 95 % stratified bootstrap intervals. Improvement is "
        f"the probability that a run beats one of `{report.rows[0].name}`. Moves the optimum: see "
        "reward-schemes.md.",
        "",
    ]
    certain = [pair for pair in report.pairs if pair.differ]
    lines += [f"{len(certain)} of {len(report.pairs)} pairs differ (Welch's test, Holm)."]
    if certain:
        cells = [[p.better, p.worse, f"{p.difference:.3f}", f"{p.corrected:.2g}"] for p in certain]
        lines += ["", *_table_lines(["better", "worse", "by", "corrected p"], cells)]
    if report.missing:
        lines += ["", f"Missing, {len(report.missing)} runs: {', '.join(report.missing)}."]
    return "\n".join(lines) + "\n"


def table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows, the best scheme first."""
    speed = any(row.speed is not None for row in report.rows)
    header = ["scheme", "moves the optimum", "seeds", *(UNITS[name] for name in report.columns)]
    header += ["mean over training"] if speed else []
    header += ["improvement"]
    best_first = sorted(report.rows, key=lambda row: -row.estimates[report.headline].value)
    rows = [
        [
            row.name,
            row.moves,
            str(row.seeds),
            *(str(row.estimates.get(name, "")) for name in report.columns),
            *([("" if row.speed is None else f"{row.speed:.3f}")] if speed else []),
            "" if row.improvement is None else _short(row.improvement),
        ]
        for row in best_first
    ]
    return header, rows


def show(config: ReportConfig) -> None:
    """Write tables and pictures, and print the table.

    Raises:
        InvalidData: no experiment, or nothing finished.
        FolderNotWritable: before any work is done.
    """
    folder = config.output or config.folder
    experiment = Experiment.read(config.folder)
    check_writable(folder)
    curves = scheme_curves(experiment)
    report = make_report(experiment, curves)
    write_report(report, folder)
    write_cells(experiment, folder)
    if config.output is None:
        write_board(experiment, curves)
    draw_curves(curves, TITLES, folder / "curves.png")
    draw_frontier(curves, folder / "frontier.png")
    estimates = {row.name: row.estimates[report.headline] for row in report.rows}
    draw_intervals(estimates, UNITS[report.headline], folder / "intervals.png")
    console = Console()
    console.print(_screen_table(report))
    certain = [pair for pair in report.pairs if pair.differ]
    console.print(f"{len(certain)} of {len(report.pairs)} pairs differ (Welch's test, Holm)")
    if report.missing:
        console.print(f"missing, {len(report.missing)} runs: {', '.join(report.missing)}")
    console.print(f"written to {folder}: report.md, CSV files, pictures", markup=False)


def _screen_table(report: Report) -> Table:
    """What decides; the files have the rest."""
    metrics = [name for name in report.columns if name in (report.headline, "kl")]
    columns = ["scheme", "moves the optimum", "seeds", *(UNITS[name] for name in metrics)]
    columns.append("improvement")
    header, rows = table(report)
    shown = Table(title=report.title, box=SIMPLE, padding=(0, 1, 0, 0))
    for name in columns:
        shown.add_column(name, no_wrap=name == UNITS[report.headline])
    for row in rows:
        cells = {name: row[header.index(name)] for name in columns}
        for name in (UNITS["kl"], "improvement"):  # their intervals are in the file
            if name in cells:
                cells[name] = cells[name].partition(" ")[0]
        shown.add_row(*cells.values())
    return shown


def _by_metric(cells: Sequence[Cell]) -> dict[str, list[float]]:
    """Metric -> one number per cell; metrics that not all cells have are left out."""
    found = [cell.metrics for cell in cells]
    names = set.intersection(*map(set, found)) if found else set()
    return {name: [metrics[name] for metrics in found] for name in sorted(names)}


def _moves(experiment: Experiment) -> dict[str, str]:
    """Whether schemes move the optimum: computed on Exact-v0, by definition elsewhere."""
    words: dict[str, str] = {scheme.name: scheme.moves or "" for scheme in experiment.schemes}
    if experiment.settings.get("environment.env") != EXACT_ID:
        return {} if experiment.is_control else words
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


def _speed(curves: Mapping[str, Curve], headline: str) -> float | None:
    """Mean of the headline's curve over training."""
    return float(np.mean(curves[headline].mean)) if headline in curves else None


def _short(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


COMMAND = Command(ReportConfig, show)
