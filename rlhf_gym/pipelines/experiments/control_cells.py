"""One cell of a comparison where the task is to act."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from rlhf_gym.pipelines.control import train_control
from rlhf_gym.pipelines.experiments.cells import TRAINING, Cell
from rlhf_gym.pipelines.experiments.config import CompareConfig
from rlhf_gym.pipelines.experiments.control_schemes import control_scheme
from rlhf_gym.pipelines.experiments.events import remove_events, write_session
from rlhf_gym.pipelines.experiments.text_cells import session
from rlhf_gym.pipelines.train import TrainConfig


def train_control_cell(config: CompareConfig, cell: Cell) -> dict[str, Any]:
    """Train and judge in fresh episodes; a cell that was interrupted begins anew.

    Returns:
        The summary: `metrics`, `timesteps` and `labels`.
    """
    source, weight = control_scheme(cell.scheme.expression)
    training = cell.folder / TRAINING
    shutil.rmtree(training, ignore_errors=True)
    remove_events(cell.folder)
    preferences = replace(config.teaching.preferences, automated_weight=weight)
    result = train_control(
        TrainConfig(
            environment=replace(config.environment, reward=source),
            agent=config.agent,
            total_timesteps=config.budget,
            agent_kwargs=config.agent_kwargs,
            output=str(training),
            seed=cell.seed,
            resume=False,
            progress=False,
            teaching=replace(config.teaching, preferences=preferences),
        )
    )
    metrics = {
        "gold_return": result.gold_return.value,
        "automated_return": result.automated_return.value,
        "labels": float(result.labels),
    }
    with SummaryWriter(log_dir=str(cell.folder)) as writer:
        write_session(writer, cell.scheme.name, session(config, cell), metrics)
    return {"metrics": metrics, "timesteps": result.timesteps, "labels": result.labels}
