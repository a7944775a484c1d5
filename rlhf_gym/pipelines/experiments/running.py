"""Going through the cells of an experiment: each is claimed, trained, judged, and then done.

Processes that work on one experiment know nothing of each other but the claims in the cells.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from rlhf_gym.agents.registry import AGENTS
from rlhf_gym.agents.sb3.control import CONTROL_AGENTS
from rlhf_gym.core.errors import InvalidCheckpoint, RLHFGymError
from rlhf_gym.core.supervised.common import check_writable, write_json
from rlhf_gym.pipelines.experiments.cells import (
    CONFIG,
    FAILURE,
    PROGRESS,
    SUMMARY,
    Cell,
    Experiment,
)
from rlhf_gym.pipelines.experiments.claims import claim
from rlhf_gym.pipelines.experiments.config import CompareConfig

TrainCell = Callable[[CompareConfig, Cell], dict[str, Any]]


def check(config: CompareConfig, experiment: Experiment) -> None:
    """Refuse what would only fail in the middle: an agent or a scheme that is not possible.

    Raises:
        InvalidArgument: see above.
    """
    unfinished = {cell.scheme: cell for cell in experiment.cells if not cell.is_done}
    (CONTROL_AGENTS if config.is_control else AGENTS).load(config.agent)
    for scheme, cell in unfinished.items():
        if config.is_control:
            from rlhf_gym.pipelines.experiments.control_cells import check_control

            check_control(config, cell)
        else:
            from rlhf_gym.pipelines.experiments.text_cells import scheme_environment

            scheme_environment(config.environment, scheme, config.agent).close()


def work(config: CompareConfig, experiment: Experiment) -> None:
    """Run cells until none is left that nobody works on.

    A cell that fails for a reason of the library's is noted in its folder, and the others go on;
    the next `compare` tries it again.
    """
    failed: set[str] = set()
    while True:
        took = False
        for cell in experiment.cells:
            if cell.is_done or cell.name in failed:
                continue
            check_writable(cell.folder)
            with claim(cell.claim_file) as mine:
                if not mine or cell.is_done:  # done since we looked
                    continue
                took = True
                if not run_cell(config, cell):
                    failed.add(cell.name)
        if not took:
            return


def run_cell(config: CompareConfig, cell: Cell) -> bool:
    """Train and judge one cell that is claimed; its summary is written last and whole.

    Returns:
        Whether it came to its end.

    Raises:
        InvalidCheckpoint: the folder holds a cell of other settings.
    """
    described = {
        "scheme": cell.scheme.name,
        "expression": cell.scheme.expression,
        "seed": cell.seed,
        "settings": config.settings(),
    }
    before = cell.read(CONFIG)
    if before and before != described:
        raise InvalidCheckpoint(
            "output", str(cell.folder), "it holds a run of other settings", "Give another --output"
        )
    write_json(cell.folder / CONFIG, described)
    (cell.folder / FAILURE).unlink(missing_ok=True)
    started = time.monotonic()
    try:
        summary = _trainer(config)(config, cell)
    except RLHFGymError:
        (cell.folder / FAILURE).write_text(traceback.format_exc(), encoding="utf-8")
        return False
    (cell.folder / PROGRESS).unlink(missing_ok=True)
    # Of the last process that worked on it: what an interrupted one spent is not known.
    seconds = time.monotonic() - started
    write_json(cell.folder / SUMMARY, {**described, **summary, "seconds": seconds})
    return True


def _trainer(config: CompareConfig) -> TrainCell:
    if config.is_control:
        from rlhf_gym.pipelines.experiments.control_cells import train_control_cell

        return train_control_cell
    from rlhf_gym.pipelines.experiments.text_cells import train_cell

    return train_cell
