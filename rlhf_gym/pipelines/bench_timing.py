"""Timing that a busy machine does not fool: warm up, take turns, take medians, say ratios.

On one thread the clock is the process's own CPU time: on an idle machine that is the time on the
wall, on a busy one it leaves out what the neighbours took. Work on a GPU is waited for, and the
clock is the wall's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from rlhf_gym.core.errors import InvalidArgument

Result = TypeVar("Result")
Kind = Literal["speed-up", "share", "growth", "saving"]


@dataclass(frozen=True)
class Measurement:
    """One comparison, as a row of a table.

    Attributes:
        what: what was measured.
        kind: what `value` says. "speed-up": how many times faster ours is. "share": per cent of the
            baseline that ours takes. "growth": how many times dearer ours is. "saving": how many
            times less memory ours needs.
        baseline: what we compare with, in seconds; MiB for a saving.
        ours: the same of this library.
        target: what the value should reach, or for shares and growths stay under; None if nothing.
    """

    what: str
    kind: Kind
    baseline: float
    ours: float
    target: float | None = None

    @property
    def value(self) -> float:
        """The figure that has the target."""
        if self.kind == "share":
            return 100 * self.ours / self.baseline
        return self.ours / self.baseline if self.kind == "growth" else self.baseline / self.ours

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without a target."""
        if self.target is None:
            return None
        if self.kind in ("share", "growth"):
            return self.value <= self.target
        return self.value >= self.target


def alternate(
    runs: Mapping[str, Callable[[], Result]], rounds: int, *, warm_up: int = 1
) -> dict[str, list[Result]]:
    """Run each once per round, in turn, so that a slow minute slows all of them.

    Args:
        runs: name -> something that measures itself.
        rounds: rounds whose results are kept.
        warm_up: rounds before them.

    Raises:
        InvalidArgument: no rounds.
    """
    if rounds < 1:
        raise InvalidArgument("rounds", rounds, "nothing would be measured", "Give 1 or more")
    results: dict[str, list[Result]] = {name: [] for name in runs}
    for number in range(warm_up + rounds):
        for name, run in runs.items():
            result = run()
            if number >= warm_up:
                results[name].append(result)
    return results


def median_of(work: Callable[[], object], rounds: int, *, warm_up: int = 1) -> float:
    """Median seconds of one call."""
    seconds = alternate({"": lambda: seconds_of(work)}, rounds, warm_up=warm_up)[""]
    return statistics.median(seconds)


def column_medians(rows: Sequence[tuple[float, ...]]) -> list[float]:
    """The median of each column."""
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def now() -> float:
    """Seconds of CPU time on one thread, of the wall's clock on several; differences count.

    Once a GPU is in use, what was given to it is waited for first, and the clock is the wall's.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    started = now()
    work()
    return now() - started


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
