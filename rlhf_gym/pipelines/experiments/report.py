"""`rlhf-gym report`: which schemes differ, in tables and pictures; also of half an experiment.

rlhf-gym report runs/compare-exact-v0-ppo
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from rlhf_gym.core.command import Command
from rlhf_gym.core.supervised.common import check_writable
from rlhf_gym.pipelines.experiments.cells import Experiment
from rlhf_gym.pipelines.experiments.titles import TITLES, UNITS


@dataclass(frozen=True)
class ReportConfig:
    """Tables and pictures of an experiment, finished or not."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The folder that `rlhf-gym compare` wrote to."""
    output: Path | None = None
    """Where the report goes; by default into the folder."""


def show(config: ReportConfig) -> None:
    """Write tables and pictures, and print the table.

    Raises:
        InvalidData: no experiment, or nothing finished.
        FolderNotWritable: before any work is done.
    """
    from rlhf_gym.pipelines.experiments.board import write_board
    from rlhf_gym.pipelines.experiments.curves import scheme_curves
    from rlhf_gym.pipelines.experiments.figures import draw_curves, draw_frontier, draw_intervals
    from rlhf_gym.pipelines.experiments.findings import make_report
    from rlhf_gym.pipelines.experiments.tables import screen_table, write_cells, write_report

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
    console.print(screen_table(report))
    certain = [pair for pair in report.pairs if pair.differ]
    console.print(f"{len(certain)} of {len(report.pairs)} pairs differ (Welch's test, Holm)")
    if report.missing:
        console.print(f"missing, {len(report.missing)} runs: {', '.join(report.missing)}")
    console.print(f"written to {folder}: report.md, CSV files, pictures", markup=False)


COMMAND = Command(ReportConfig, show)
