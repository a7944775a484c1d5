"""`rlhf-gym bench`: the library's speed, as ratios in one run."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table

from rlhf_gym.core.command import Command
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.supervised.common import check_writable, write_json
from rlhf_gym.pipelines.bench_sizes import BenchTask

if TYPE_CHECKING:
    from rlhf_gym.pipelines.bench_timing import Measurement

Part = Literal["sampling", "step", "iteration", "control"]

TINY = BenchTask()
QUICK = BenchTask(layers=1, hidden=32, vocab_size=64, responses=8, response_tokens=8)
GPT2_SMALL = BenchTask(
    layers=12, hidden=768, heads=12, vocab_size=50257, prompt_tokens=32, response_tokens=64
)
"""What a GPU is measured with: on the tiny task it would wait for Python."""


@dataclass(frozen=True)
class BenchConfig:
    """Measure sampling, `step` and whole PPO iterations against transformers and TRL."""

    parts: tuple[Part, ...] = ("sampling", "step", "iteration")
    """What to measure; control is the tasks of acting, native vectors against a loop."""
    rounds: int = 5
    """Measured runs of each contestant, in turn; the median counts."""
    batches: tuple[int, ...] = (16, 64)
    """Rows that sample together."""
    trl_python: Path = Path(".bench-trl/bin/python")
    """Interpreter of the environment with TRL; `make bench-trl` makes it."""
    device: str = "cpu"
    """Where both sides work. On a GPU sampling and iteration are measured, the latter at the size
    of GPT-2 small."""
    quick: bool = False
    """Toy sizes and one round: shows that everything runs, says nothing about speed."""
    output: Path | None = None
    """Folder for `bench.json`; None writes no file."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InvalidArgument("rounds", self.rounds, "nothing is measured", "Give 1 or more")
        if not self.batches or min(self.batches) < 1:
            raise InvalidArgument("batches", self.batches, "no rows", "Give numbers above 0")
        on_cpu = {"step", "control"} & {*self.parts}
        if self.device != "cpu" and on_cpu:
            raise InvalidArgument(
                "parts",
                self.parts,
                f"{' and '.join(sorted(on_cpu))} would be the CPU's figures",
                "Measure them without --device, or give --parts sampling iteration",
            )


def bench(config: BenchConfig) -> None:
    """Measure, print each table when it is ready, and write it down.

    Raises:
        FolderNotWritable: the output folder, before anything is measured.
        WorkerFailed: a process of the iteration benchmark broke down.
    """
    from rlhf_gym.core.devices import choose_device
    from rlhf_gym.pipelines.bench_timing import threads

    choose_device(config.device)
    if config.output is not None:
        check_writable(config.output)
    console = Console()
    results: dict[str, list[Measurement]] = {}
    with threads(1):
        for title, measurements in _measure(config, console):
            console.print(as_table(title, measurements))
            results[title] = measurements
            if config.output is not None:
                content = {"machine": machine(config.device), "results": _with_values(results)}
                write_json(config.output / "bench.json", content)


def _measure(config: BenchConfig, console: Console) -> Iterator[tuple[str, list[Measurement]]]:
    """Title and rows of each table, one after another."""
    from rlhf_gym.pipelines.bench_control import BenchControl, control_measurements
    from rlhf_gym.pipelines.bench_iteration import measure_iterations
    from rlhf_gym.pipelines.bench_sampling import SamplingBenchConfig, sampling_measurements
    from rlhf_gym.pipelines.bench_step import measure_growth, measure_step

    task = QUICK if config.quick else TINY if config.device == "cpu" else GPT2_SMALL
    task = replace(task, device=config.device)
    rounds = 1 if config.quick else config.rounds
    if "sampling" in config.parts:
        sampling = SamplingBenchConfig(
            rounds, config.batches, quick=config.quick, device=config.device
        )
        yield "sampling through step against generate", list(sampling_measurements(sampling))
    if "step" in config.parts:
        rows = [row for batch in config.batches for row in measure_step(task, batch, rounds)]
        yield f"step beside the sampling: {task.label}", rows
        long = replace(task, response_tokens=8 * task.response_tokens)
        title = f"responses of {long.response_tokens} tokens: {long.label}"
        yield title, measure_growth(long, config.batches[0], rounds)
    if "control" in config.parts:
        control = BenchControl(rounds=rounds)
        if config.quick:
            control = BenchControl(num_envs=2, rounds=1, seconds=0.0)
        title = f"a step of each of {control.num_envs} environments against SyncVectorEnv"
        yield title, list(control_measurements(control))
    if "iteration" in config.parts:
        if config.trl_python.exists():
            for lengths, rows in measure_iterations(task, rounds, config.trl_python):
                yield f"one PPO iteration against TRL, {lengths}: {task.label}", rows
        else:
            console.print(f"No TRL at {config.trl_python}: `make bench-trl` installs it there.")


def as_table(title: str, measurements: list[Measurement]) -> Table:
    """A table for the terminal, targets and whether they are reached included."""
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    for column in ("baseline", "ours", "", "target"):
        table.add_column(column, justify="right")
    for row in measurements:
        table.add_row(
            row.what,
            _amount(row.baseline, row.kind == "saving"),
            _amount(row.ours, row.kind == "saving"),
            _value(row, row.value),
            "" if row.target is None else _target(row),
        )
    return table


def machine(device: str = "cpu") -> dict[str, str]:
    """Where the figures come from; ratios travel better than seconds."""
    import torch

    gpu = {} if device == "cpu" else {"gpu": torch.cuda.get_device_name(device)}
    return gpu | {
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": "1",
    }


def _with_values(results: dict[str, list[Measurement]]) -> dict[str, list[dict[str, object]]]:
    return {
        title: [{**asdict(row), "value": row.value, "met": row.met} for row in rows]
        for title, rows in results.items()
    }


def _amount(amount: float, is_memory: bool) -> str:
    if math.isnan(amount):
        return "unknown"
    if is_memory:
        return f"{amount:.0f} MiB"
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if abs(amount) * factor >= 1:
            return f"{amount * factor:.3g} {unit}"
    return f"{amount * 1e6:.3g} us"


def _value(row: Measurement, value: float) -> str:
    return f"{value:.1f} %" if row.kind == "share" else f"{value:.2f}x"


def _target(row: Measurement) -> str:
    assert row.target is not None
    sign = "<" if row.kind in ("share", "growth") else ">"
    colour = "green" if row.met else "red"
    return f"[{colour}]{sign} {_value(row, row.target)}[/{colour}]"


COMMAND = Command(BenchConfig, bench)
