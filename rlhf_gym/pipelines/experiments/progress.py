"""The live table: what each scheme has come to, in all processes that work on the experiment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlhf_gym.pipelines.experiments.cells import FAILURE, PROGRESS, Cell, Experiment
from rlhf_gym.pipelines.experiments.titles import HEADLINES

MARKS = {"done": "[green]●[/]", "running": "[yellow]◐[/]", "failed": "[red]✕[/]", "waiting": "○"}


def state(cell: Cell) -> str:
    """done, running, failed or waiting."""
    if cell.is_done:
        return "done"
    if cell.is_running:
        return "running"
    return "failed" if (cell.folder / FAILURE).is_file() else "waiting"


class ProgressTable:
    """Reads the cells' small files whenever it is drawn.

    Args:
        experiment: what is run.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment

    def __rich__(self) -> RenderableType:
        cells = self.experiment.cells
        states = {cell.name: state(cell) for cell in cells}
        headline = headline_of(cells)
        table = Table(
            "scheme", "seeds", headline or "", "now", title=escape(str(self.experiment.folder))
        )
        for scheme in self.experiment.schemes:
            own = [cell for cell in cells if cell.scheme == scheme]
            marks = "".join(MARKS[states[cell.name]] for cell in own)
            found = [c.metrics[headline] for c in own if headline in c.metrics] if headline else []
            mean = f"{np.mean(found):.3f}" if found else ""
            running = [cell for cell in own if states[cell.name] == "running"]
            table.add_row(escape(scheme.name), marks, mean, _now(running))
        done = sum(name == "done" for name in states.values())
        total = Table.grid(padding=(0, 1))
        total.add_row(
            ProgressBar(total=len(cells), completed=done, width=40),
            Text(f"{done} of {len(cells)} runs"),
        )
        return Group(table, total)


def headline_of(cells: Sequence[Cell]) -> str | None:
    """The metric by which the finished cells are compared; None while none is finished."""
    metrics = next((cell.metrics for cell in cells if cell.metrics), {})
    return next((name for name in HEADLINES if name in metrics), None)


def _now(running: Sequence[Cell]) -> str:
    """How far the running cells of a scheme are."""
    parts = []
    for cell in running:
        seen = cell.read(PROGRESS)
        share = seen["timesteps"] / seen["budget"] if seen else 0.0
        speed = f" {seen['per_second']:.0f}/s" if seen.get("per_second") else ""
        parts.append(f"{cell.folder.name} {min(share, 1):.0%}{speed}")
    return ", ".join(parts)
