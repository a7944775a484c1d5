"""One cell of a comparison where the task is to act."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from rlhf_gym.agents.sb3.control import CONTROL_AGENTS, ControlAgent
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.pipelines.control import agent_settings, make_control_environment, train_control
from rlhf_gym.pipelines.control_payment import check_payment
from rlhf_gym.pipelines.experiments.cells import TRAINING, Cell
from rlhf_gym.pipelines.experiments.config import CompareConfig
from rlhf_gym.pipelines.experiments.events import (
    CellEvents,
    remove_events,
    session,
    write_session,
)
from rlhf_gym.pipelines.experiments.watching import ProgressCallback
from rlhf_gym.pipelines.train import Attached, TrainConfig
from rlhf_gym.rewards.control_schemes import control_scheme


def check_control(config: CompareConfig, cell: Cell) -> None:
    """Refuse a cell that would only fail in the middle: its scheme, its agent, or both together.

    Raises:
        InvalidArgument: see above.
    """
    scheme = control_scheme(cell.scheme.expression)
    kind: ControlAgent = CONTROL_AGENTS.load(config.agent)
    env_id, kwargs = config.environment.env, config.environment.parsed_env_kwargs()
    env = GymnasiumVecEnv(make_control_environment(env_id, config.environment.num_envs, **kwargs))
    agent = kind.make(env, **agent_settings(_training(config, cell)))
    env.close()
    try:
        check_payment(scheme, agent, config.teaching.for_task(env_id, kwargs).learner.judges)
    except InvalidArgument as error:
        raise InvalidArgument(
            "schemes",
            cell.scheme.name,
            f"not possible on {env_id} with {config.agent}: {error}".rstrip("."),
            "Or leave this scheme out",
        ) from error


def train_control_cell(config: CompareConfig, cell: Cell) -> dict[str, Any]:
    """Train and judge in fresh episodes; a cell that was interrupted begins anew.

    Returns:
        The summary: `metrics`, `timesteps` and `labels`.
    """
    shutil.rmtree(cell.folder / TRAINING, ignore_errors=True)
    remove_events(cell.folder)
    events = CellEvents(cell.folder)
    progress = ProgressCallback(cell.folder, config.budget)
    result = train_control(
        _training(config, cell), Attached(callbacks=[progress], logger=events.logger())
    )
    metrics = {
        "gold_return": result.gold_return.value,
        "automated_return": result.automated_return.value,
        "labels": float(result.labels),
    }
    write_session(events.writer, cell.scheme.name, session(config.settings(), cell.scheme), metrics)
    events.close()
    return {"metrics": metrics, "timesteps": result.timesteps, "labels": result.labels}


def _training(config: CompareConfig, cell: Cell) -> TrainConfig:
    return TrainConfig(
        environment=replace(config.environment, reward=cell.scheme.expression),
        agent=config.agent,
        total_timesteps=config.budget,
        agent_kwargs=config.agent_kwargs,
        output=str(cell.folder / TRAINING),
        seed=cell.seed,
        resume=False,
        progress=False,
        teaching=config.teaching,
    )
