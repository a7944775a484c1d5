"""The loop study's cells on `rlhf_gym/Pizza-v0`: a robot taught by comparisons, in three rounds.

One agent learns throughout. A round is a third of its training: labels first, from what it has done
so far (before the first round: random acts), then what they teach.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from rlhf_gym.agents.preference_learning import PreferenceConfig, PreferenceLearning
from rlhf_gym.agents.sb3.control import CONTROL_AGENTS
from rlhf_gym.core.preferences import RewardLearnerConfig
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.pipelines.control import EVALUATION_SEED, judge, make_control_environment
from rlhf_gym.pipelines.control_settings import TASKS
from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.loop_ways import ROUNDS, Way
from rlhf_gym.pipelines.studies.preference_learning_cells import Task

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

TASK = Task("rlhf_gym/Pizza-v0", timesteps=75_000)
LABELS = 100
"""Comparisons in each round."""
EPISODES = 128
"""In which the agent is judged each time."""


def cell(way: Way, folder: Path, seed: int) -> dict[str, Any]:
    """One training: gold return at the end of each third of it.

    Args:
        way: to spend the labels.
        folder: of the task's cells.
        seed: of everything.

    Returns:
        Lists of `ROUNDS` numbers: `gold`, and `reference`, the gold return before any training;
        `kl`, empty, for there is no reference to stay near; `seconds` of the processor.
    """
    config = teaching(way)
    agent_settings = dict(TASKS[TASK.env].agents.get(TASK.agent, {}))
    settings = {"task": asdict(TASK), "taught": asdict(config), "agent": agent_settings}
    return kept(
        folder / f"seed-{seed}" / f"{way.slug}.json",
        settings | {"episodes": EPISODES, "seed": seed},
        lambda: train(config, agent_settings, seed),
    )


def teaching(way: Way) -> PreferenceConfig:
    """What suits the task, with the labels in as many instalments as the way has rounds."""
    config = TASKS[TASK.env].preferences()
    schedule = replace(
        config.schedule,
        total=LABELS * ROUNDS,
        initial=1 / way.rounds,
        rate="uniform",
        until=1 - 1 / ROUNDS,  # the last ones are acted on for as long as the others
    )
    # What rounds are worth by themselves: without detours, which only later rounds have.
    plain = RewardLearnerConfig()
    learner = replace(config.learner, selection=way.selection, candidates=plain.candidates)
    rounds = max(1, way.rounds - 1)
    return replace(config, schedule=schedule, learner=learner, rounds=rounds, detours=0)


def train(config: PreferenceConfig, agent_settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Teach an agent, and judge it whenever a third of the training is over."""
    kind = CONTROL_AGENTS.load(TASK.agent)

    def gold(agent: BaseAlgorithm) -> float:
        env = make_control_environment(TASK.env, 64)
        returns, _ = judge(agent, env, EPISODES, seed=seed + EVALUATION_SEED)
        return float(np.mean(returns))

    venv = GymnasiumVecEnv(make_control_environment(TASK.env, TASK.rows))
    started = time.process_time()
    with tempfile.TemporaryDirectory() as run:
        learning = PreferenceLearning(venv, run, "oracle", config, seed=seed)
        agent = kind.make(learning.env, **agent_settings, seed=seed)
        before = gold(agent)
        thirds = Thirds(gold, TASK.timesteps)
        learning.learn(agent, TASK.timesteps, callback=thirds)
        labels = learning.learner.asked
        learning.learner.store.close()
    after = gold(agent)
    venv.close()
    return {
        "gold": [*thirds.found, after],
        "reference": [before] * ROUNDS,
        "kl": [],
        "labels": labels,
        "seconds": time.process_time() - started,
    }


class Thirds(BaseCallback):
    """Judges the agent when a third of its training is over, and when two are.

    Args:
        judged: what the agent is worth.
        total: steps of the training.

    Attributes:
        found: what it was worth each time.
    """

    def __init__(self, judged: Callable[[BaseAlgorithm], float], total: int) -> None:
        super().__init__()
        self.judged = judged
        self.total = total
        self.found: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        over = math.floor(ROUNDS * self.model.num_timesteps / self.total)
        while len(self.found) < min(over, ROUNDS - 1):
            self.found.append(self.judged(self.model))
