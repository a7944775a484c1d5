"""The tables of a report: Markdown, CSV, and what fits on a screen."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from rlhf_gym.core.calibration import Estimate
from rlhf_gym.pipelines.experiments.cells import Experiment
from rlhf_gym.pipelines.experiments.findings import Report
from rlhf_gym.pipelines.experiments.statistics import Pair
from rlhf_gym.pipelines.experiments.titles import UNITS, in_order

SHOWN = ("share", "gold", "kl", "length", "gold_return", "automated_return")
"""Metrics in the table, as far as they are known; the CSV has all."""


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
    lines += ["", f"{report.finished} runs, {report.seconds / 60:.1f} minutes in all."]
    if report.missing:
        lines += ["", f"Missing, {len(report.missing)} runs: {', '.join(report.missing)}."]
    return "\n".join(lines) + "\n"


def table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows, the best scheme first."""
    speed = any(row.speed is not None for row in report.rows)
    header = ["scheme", "moves the optimum", "seeds", *(UNITS[name] for name in _columns(report))]
    header += ["mean over training"] if speed else []
    header += ["improvement"]
    best_first = sorted(report.rows, key=lambda row: -row.estimates[report.headline].value)
    rows = [
        [
            row.name,
            row.moves,
            str(row.seeds),
            *(str(row.estimates.get(name, "")) for name in _columns(report)),
            *([("" if row.speed is None else f"{row.speed:.3f}")] if speed else []),
            "" if row.improvement is None else _short(row.improvement),
        ]
        for row in best_first
    ]
    return header, rows


def screen_table(report: Report) -> Table:
    """What decides, for the terminal; the files have the rest."""
    metrics = [name for name in _columns(report) if name in (report.headline, "kl")]
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


def _columns(report: Report) -> list[str]:
    """Metrics of the table."""
    known = {name for row in report.rows for name in row.estimates}
    return [name for name in SHOWN if name in known]


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
