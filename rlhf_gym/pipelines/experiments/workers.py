"""Several processes on one experiment; they end when the process that began them does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Final, cast

from rlhf_gym.pipelines.experiments.cells import Experiment
from rlhf_gym.pipelines.experiments.config import CompareConfig
from rlhf_gym.pipelines.experiments.running import work

START_METHOD: Final = "spawn"
"""A forked process inherits torch's threads in whatever state they are."""
GRACE = 10.0
"""Seconds that an interrupted worker has to let go."""


def work_in_processes(config: CompareConfig, experiment: Experiment) -> None:
    """`work` in `jobs` processes; returns when all have nothing left to do.

    Raises:
        KeyboardInterrupt: after the workers were stopped.
    """
    context = multiprocessing.get_context(START_METHOD)
    workers = [
        context.Process(target=_worker, args=(config, experiment)) for _ in range(config.jobs)
    ]
    threads = max(1, (os.cpu_count() or 1) // config.jobs)
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # spawned processes read it
    try:
        try:
            for worker in workers:
                worker.start()
        finally:
            if before is None:
                del os.environ["OMP_NUM_THREADS"]
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:  # it may come while some of them are still to be started
        _stop([worker for worker in workers if worker.pid is not None])
        raise
    for worker in workers:
        if worker.exitcode:
            raise ChildProcessError(
                f"a worker ended with status {worker.exitcode}; what it said stands above. The "
                "same command goes on from what is there"
            )


def _worker(config: CompareConfig, experiment: Experiment) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        work(config, experiment)
    except KeyboardInterrupt:
        return  # the parent says what there is to say


def _die_with_parent() -> None:
    """Ends this process at once, as a kill -9 would: cells are safe, claims are let go."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _stop(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        if worker.is_alive():
            os.kill(cast(int, worker.pid), signal.SIGINT)
    for worker in workers:
        worker.join(GRACE)
        if worker.is_alive():
            worker.kill()
