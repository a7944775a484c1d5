"""One PPO iteration, ours against TRL's: rollout, scoring, epochs of minibatches; and its memory.

Every contestant is a process of its own that waits, runs one iteration and answers, so they take
turns in one run and none inherits another's memory. All use one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple

from rlhf_gym.core.errors import RLHFGymError
from rlhf_gym.pipelines import bench_trl
from rlhf_gym.pipelines.bench_task import BenchTask, save_task
from rlhf_gym.pipelines.bench_timing import Measurement, alternate, column_medians

STOP_PROBABILITY = 0.05
"""With a budget of 32 tokens: 16 tokens a response on average."""
TRUNK_TARGET, NETWORKS_TARGET, LENGTHS_TARGET = 3.0, 1.6, 5.0
"""Speed-ups over TRL: shared trunk; four networks as there; shared trunk and different lengths."""


class WorkerFailed(RLHFGymError, RuntimeError):
    """A process of the benchmark ended before its answer."""


class Iteration(NamedTuple):
    """What one iteration cost.

    Attributes:
        seconds: of CPU time; with one thread the time on the wall of an idle machine.
        wall: seconds on the wall of this machine, whatever else it did.
        rollout: seconds of sampling and scoring.
        update: seconds of the epochs.
        tokens: response tokens.
        peak_mib: most memory during the iteration beside what was resident before the first one
            (libraries and networks); optimiser states, activations and buffers.
    """

    seconds: float
    wall: float
    rollout: float
    update: float
    tokens: float
    peak_mib: float


class Worker:
    """A process that runs one iteration whenever asked, started by `start_worker`.

    Args:
        process: speaks the protocol of `bench_trl.IterationClock`.
        errors: where its standard error goes.

    Attributes:
        loaded_mib: resident memory before the first iteration.
    """

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process = process
        self._errors = errors
        self.loaded_mib = self._read()["loaded_mib"]

    def run(self) -> Iteration:
        """Run one iteration.

        Raises:
            WorkerFailed: the process ended; with the last lines of what it said.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        answer = Iteration(**self._read())
        return answer._replace(peak_mib=answer.peak_mib - self.loaded_mib)

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        answer: dict[str, float] = json.loads(line)
        return answer

    def _failure(self) -> WorkerFailed:
        self._process.wait()
        self._errors.seek(0)
        last = "\n".join(self._errors.read().splitlines()[-15:])
        return WorkerFailed(
            f"{self._process.args!r} ended with status {self._process.returncode}:\n{last}"
        )


@contextmanager
def start_worker(command: Sequence[str]) -> Iterator[Worker]:
    """Start a worker on one thread, wait until it has loaded, and end it afterwards.

    Raises:
        WorkerFailed: it ended while loading.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        ) as process,
    ):
        try:
            yield Worker(process, errors)
        finally:
            process.kill()


def measure_iterations(
    task: BenchTask, rounds: int, trl_python: Path
) -> Iterator[tuple[str, list[Measurement]]]:
    """Iterations of equal and of different response lengths, against TRL's.

    Args:
        task: sizes of the networks, the batch and the update.
        rounds: measured iterations of each contestant.
        trl_python: interpreter of the environment that `make bench-trl` makes.

    Yields:
        What the lengths are, and the rows of their table, each when it is ready.

    Raises:
        WorkerFailed: a contestant broke down.
    """
    even: dict[str, float | None] = {"trunk": TRUNK_TARGET, "separate": NETWORKS_TARGET}
    uneven: dict[str, float | None] = {"trunk": LENGTHS_TARGET, "separate": None}
    if task.device != "cpu":  # the targets are those of one core
        even, uneven = dict.fromkeys(even), dict.fromkeys(uneven)
    stops = replace(task, stop_probability=STOP_PROBABILITY)
    yield "equal lengths", compare(task, rounds, trl_command(trl_python), even)
    yield "different lengths", compare(stops, rounds, trl_command(trl_python), uneven)


def trl_command(python: Path) -> list[str]:
    """Starts TRL's worker; the folder comes behind it."""
    return [str(python), str(Path(bench_trl.__file__))]


def our_command(value_model: str, folder: Path) -> list[str]:
    """Starts our worker, with a value head on the trunk or a separate value model."""
    return [sys.executable, "-m", "rlhf_gym.pipelines.bench_ours", str(folder), value_model]


def compare(
    task: BenchTask, rounds: int, baseline: Sequence[str], targets: dict[str, float | None]
) -> list[Measurement]:
    """Let a baseline and our variants take turns at one task.

    Args:
        task: sizes, and whether responses stop at different lengths.
        rounds: measured iterations of each.
        baseline: command of the baseline's worker; the task's folder is added.
        targets: value model ("trunk" or "separate") -> wanted speed-up, or None.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        save_task(task, folder)
        commands = {"": [*baseline, name]} | {v: our_command(v, folder) for v in targets}
        workers = {
            variant: stack.enter_context(start_worker(command))
            for variant, command in commands.items()
        }
        iterations = alternate({variant: w.run for variant, w in workers.items()}, rounds)
    medians = {variant: Iteration(*column_medians(rows)) for variant, rows in iterations.items()}
    theirs = medians.pop("")
    return [
        row
        for variant, ours in medians.items()
        for row in _table(_label(task, variant), theirs, ours, targets[variant])
    ]


def _label(task: BenchTask, variant: str) -> str:
    networks = {"trunk": "shared trunk", "separate": "four networks"}[variant]
    lengths = f"about {task.mean_length:.0f} of " if task.stops else ""
    return f"{networks}, {task.responses} responses of {lengths}{task.response_tokens} tokens"


def _table(
    label: str, theirs: Iteration, ours: Iteration, target: float | None
) -> list[Measurement]:
    return [
        Measurement(f"PPO iteration, {label}", "speed-up", theirs.seconds, ours.seconds, target),
        Measurement("  on the wall", "speed-up", theirs.wall, ours.wall),
        Measurement("  rollout and scoring", "speed-up", theirs.rollout, ours.rollout),
        Measurement("  update", "speed-up", theirs.update, ours.update),
        Measurement("  peak memory beside the networks", "saving", theirs.peak_mib, ours.peak_mib),
    ]
