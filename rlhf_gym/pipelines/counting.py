"""A progress bar over work that is counted, looking like those of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def counting(stage: str, total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """One line: stage, bar, count, time gone and left.

    Args:
        stage: name at the beginning of the line.
        total: how much there is to do.
        shown: False shows nothing.

    Yields:
        A function that is told how much more has been done.
    """
    bar = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=not shown,
    )
    with bar:
        task = bar.add_task(stage, total=total)
        yield lambda done: bar.advance(task, done)
