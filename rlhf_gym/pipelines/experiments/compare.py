"""`rlhf-gym compare`: schemes x seeds, whatever of them is missing.

rlhf-gym compare --env rlhf_gym/Exact-v0 --schemes score,dense,potential --seeds 5
"""

from __future__ import annotations

import shlex
import sys

from rich.console import Console
from rich.live import Live

from rlhf_gym.core.command import Command
from rlhf_gym.pipelines.experiments.cells import FAILURE, Cell, Experiment
from rlhf_gym.pipelines.experiments.config import BOARD, CompareConfig
from rlhf_gym.pipelines.experiments.progress import ProgressTable

REDRAWS_PER_SECOND = 2


def compare(config: CompareConfig, console: Console | None = None) -> Experiment:
    """Run what is missing of an experiment, and lay it out for TensorBoard.

    Args:
        config: what is compared; the folder may hold a part of it already.
        console: for the progress table; none shows none.

    Raises:
        InvalidArgument: an agent or scheme that is not possible, or a folder with an experiment of
            other settings.
        KeyboardInterrupt: as it came; every finished cell is kept.
    """
    from rlhf_gym.pipelines.experiments.board import write_board
    from rlhf_gym.pipelines.experiments.running import check, work
    from rlhf_gym.pipelines.experiments.workers import work_in_processes

    experiment = Experiment.open(config)
    check(config, experiment)
    run = work if config.jobs == 1 else work_in_processes
    live = Live(
        ProgressTable(experiment),
        console=console or Console(quiet=True),
        refresh_per_second=REDRAWS_PER_SECOND,
    )
    with live:
        run(config, experiment)
    write_board(Experiment.read(experiment.folder))
    return experiment


def show(config: CompareConfig) -> None:
    """Run with a live table, and say how to go on, or what comes next."""
    console = Console()
    folder = shlex.quote(str(config.folder))
    try:
        experiment = compare(config, console)
    except KeyboardInterrupt:
        done = sum(cell.is_done for cell in Experiment.read(config.folder).cells)
        console.print(
            f"\n{done} runs are done and kept. Go on with the same command, or look at what is "
            f"there:\n  rlhf-gym report {folder}",
            markup=False,
        )
        raise
    unfinished = [cell for cell in experiment.cells if not cell.is_done]
    for cell in unfinished:
        console.print(f"{cell.name}: {_why(cell)}", markup=False, soft_wrap=True)
    board = shlex.quote(str(config.folder / BOARD))
    console.print(
        f"\nrlhf-gym report {folder}\ntensorboard --logdir {board}", markup=False, soft_wrap=True
    )
    if any((cell.folder / FAILURE).is_file() for cell in unfinished):
        sys.exit(1)


def _why(cell: Cell) -> str:
    failure = cell.folder / FAILURE
    if failure.is_file():
        return f"failed: {failure.read_text(encoding='utf-8').strip().splitlines()[-1]}"
    return "being run by another process"


COMMAND = Command(CompareConfig, show)
