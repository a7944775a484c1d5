"""One cell of a comparison where the task is to write: train by a scheme, judge without it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback

from rlhf_gym.agents.callbacks import SampleTableCallback
from rlhf_gym.agents.checkpoint import newest_checkpoint
from rlhf_gym.agents.registry import AGENTS
from rlhf_gym.core.data import write_jsonl
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.exact import ExactVectorEnv
from rlhf_gym.pipelines.environment import EnvironmentConfig, make_environment
from rlhf_gym.pipelines.experiments.cells import SAMPLES, TRAINING, Cell
from rlhf_gym.pipelines.experiments.config import CompareConfig
from rlhf_gym.pipelines.experiments.events import (
    CellEvents,
    remove_events,
    session,
    write_session,
)
from rlhf_gym.pipelines.experiments.judging import (
    exact_metrics,
    judge_text,
    judging_environment,
    task_reward,
)
from rlhf_gym.pipelines.experiments.watching import ExactShare, ProgressCallback, TermHistograms
from rlhf_gym.pipelines.generation import text_task
from rlhf_gym.pipelines.train import Attached, TrainConfig, train
from rlhf_gym.rewards.scheme_terms import scheme_reward
from rlhf_gym.rewards.schemes import Scheme

SAMPLE_EVERY, SAMPLE_ROWS = 10, 6


def is_ours(agent: str) -> bool:
    """Whether an agent is one of this library's, that collects whole batches."""
    from rlhf_gym.agents.lm_algorithm import LMAlgorithm

    found = AGENTS.load(agent)
    return isinstance(found, type) and issubclass(found, LMAlgorithm)


def scheme_environment(
    config: EnvironmentConfig, scheme: Scheme, agent: str
) -> VectorEnv[Any, Any, Any]:
    """The task, paid by a scheme, as an agent needs it.

    Agents of ours get each token's reward with its address. Stock ones read rewards alone, so that
    a scheme can only mean something to them if every token is paid in its own step.

    Raises:
        InvalidArgument: the scheme is not possible on this task, or for this agent.
    """
    task = text_task(make_environment(config))
    own = task_reward(task)
    settings: dict[str, Any] = {} if task.gold is not None else {"gold": own.score}
    settings |= {"ends": "together"} if is_ours(agent) else {"reward_timing": "step"}
    try:
        reward = scheme_reward(scheme.expression, own)
        return make_environment(config, reward=reward, **settings)
    except InvalidArgument as error:
        raise InvalidArgument(
            "schemes",
            scheme.name,
            f"not possible on {config.model or config.env} with {agent}: {error}".rstrip("."),
            "Leave this scheme out",
        ) from error


def train_cell(config: CompareConfig, cell: Cell) -> dict[str, Any]:
    """Train and judge; goes on from a checkpoint where there is one.

    Returns:
        The summary: `metrics`, `timesteps` and `updates`.
    """
    training = cell.folder / TRAINING
    checkpoint = newest_checkpoint(training / "checkpoints") if is_ours(config.agent) else None
    if checkpoint is None:
        shutil.rmtree(training, ignore_errors=True)
        remove_events(cell.folder)
    events = CellEvents(cell.folder, None if checkpoint is None else _steps(checkpoint))
    judge_env = judging_environment(config.environment)
    kept = _Keeper()
    callbacks: list[BaseCallback] = [
        kept,
        ProgressCallback(cell.folder, config.budget),
        TermHistograms(),
        SampleTableCallback(SAMPLE_EVERY, SAMPLE_ROWS),
    ]
    if isinstance(text_task(judge_env), ExactVectorEnv):
        callbacks.append(
            ExactShare(
                lambda: exact_metrics(config.agent, kept.model, judge_env)["share"],
                events,
                config.budget,
            )
        )
    result = train(
        TrainConfig(
            environment=config.environment,
            agent=config.agent,
            total_timesteps=config.budget,
            agent_kwargs=config.agent_kwargs,
            output=str(training),
            seed=cell.seed,
            checkpoint_every=config.checkpoint_every,
            progress=False,
        ),
        Attached(
            scheme_environment(config.environment, cell.scheme, config.agent),
            callbacks,
            events.logger(),
        ),
    )
    verdict = judge_text(config.agent, kept.model, judge_env, config.episodes)
    write_jsonl(cell.folder / SAMPLES, [sample.record() for sample in verdict.samples])
    write_session(
        events.writer, cell.scheme.name, session(config.settings(), cell.scheme), verdict.metrics
    )
    events.close()
    return {
        "metrics": verdict.metrics,
        "timesteps": result.timesteps,
        "updates": result.updates,
    }


class _Keeper(BaseCallback):
    """Knows the agent that trains."""

    def _on_step(self) -> bool:
        return True


def _steps(checkpoint: Path) -> int:
    """Timesteps at which a checkpoint was made, from its name."""
    found = re.search(r"\d+$", checkpoint.name)
    assert found is not None  # `newest_checkpoint` looked for it
    return int(found[0])
