"""What a study leaves behind: a table on the screen, and the same as Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from rlhf_gym.core.supervised.common import check_writable, write_json


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval.

    Attributes:
        mean: over the seeds.
        low, high: percentile bootstrap of the mean.
        count: how many seeds; one has no interval.
    """

    mean: float
    low: float
    high: float
    count: int = 2

    def __str__(self) -> str:
        if self.count < 2:
            return f"{self.mean:.3f} (one seed)"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def over_seeds(values: Sequence[float], resamples: int = 10_000) -> Interval:
    """Mean and 95 % percentile-bootstrap interval of one number per seed.

    Args:
        values: one per seed; a single seed has no interval (all three are equal).
        resamples: bootstrap draws, from a generator with a fixed seed.

    Source: Agarwal et al. (2021), section 4.1.
    """
    numbers = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(0)
    draws = rng.choice(numbers, size=(resamples, len(numbers))).mean(-1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(numbers.mean()), float(low), float(high), len(numbers))


def ratio_over_seeds(
    above: Sequence[float], below: Sequence[float], resamples: int = 10_000
) -> Interval:
    """Ratio of two means over seeds and its 95 % percentile-bootstrap interval.

    Args:
        above: one number per seed; a single seed has no interval.
        below: the same of the other condition; both are drawn anew, each for itself.
        resamples: bootstrap draws, from a generator with a fixed seed.
    """
    rng = np.random.default_rng(0)
    means = []
    for values in (above, below):
        numbers = np.asarray(values, dtype=np.float64)
        means.append(rng.choice(numbers, size=(resamples, len(numbers))).mean(-1))
    low, high = np.quantile(means[0] / means[1], [0.025, 0.975])
    ratio = float(np.mean(above) / np.mean(below))
    return Interval(ratio, float(low), float(high), min(len(above), len(below)))


@dataclass
class StudyReport:
    """A table that grows row by row.

    Attributes:
        title: what was measured.
        columns: names of the columns.
        rows: one list of cells each.
        notes: sentences under the table.
        raw: every number behind the table, by name.
    """

    title: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def add(self, *cells: object) -> None:
        """One more row."""
        self.rows.append([str(cell) for cell in cells])

    def markdown(self) -> str:
        """The table and the notes as Markdown."""
        lines = [f"# {self.title}", "", f"| {' | '.join(self.columns)} |"]
        lines.append(f"|{'---|' * len(self.columns)}")
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([*lines, "", *self.notes]) + "\n"

    def publish(self, folder: Path) -> None:
        """Print the table and write `report.md` and `results.json`."""
        check_writable(folder)
        (folder / "report.md").write_text(self.markdown(), encoding="utf-8")
        write_json(folder / "results.json", {"title": self.title, **self.raw})
        console = Console()
        table = Table(title=self.title)
        for column in self.columns:
            table.add_column(column, overflow="fold")  # narrow or piped, numbers are never cut off
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for note in self.notes:
            console.print(note, markup=False)
        console.print(f"written to {folder}", markup=False)
