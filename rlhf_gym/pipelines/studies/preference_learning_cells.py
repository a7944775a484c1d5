"""One cell of the study of preferences: a toy task, what pays the agent, a seed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.vec_env import VecMonitor

from rlhf_gym.agents.preference_learning import PreferenceConfig, PreferenceLearning
from rlhf_gym.agents.sb3.control import CONTROL_AGENTS
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.taught import TaughtVecEnv
from rlhf_gym.pipelines.control import EVALUATION_SEED, judge, make_control_environment
from rlhf_gym.pipelines.control_settings import TASKS
from rlhf_gym.rewards.learned import AutomatedReward, GoldReward, PaymentRule

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

EPISODES = 128
"""Fresh episodes in which the policy without chance is judged."""


@dataclass(frozen=True)
class Pay:
    """What an agent is paid by.

    Attributes:
        name: for tables and files.
        labels: comparisons; 0 without any.
        automated_weight: of the task's own reward beside the learned one.
        teacher: who compares.
    """

    name: str
    labels: int = 0
    automated_weight: float = 0.0
    teacher: str = "oracle"


AUTOMATED, GOLD = Pay("automated"), Pay("gold")
PAYS = (
    AUTOMATED,
    Pay("200 comparisons", labels=200),
    Pay("700 comparisons", labels=700),
    Pay("mixture", labels=700, automated_weight=0.2),
    GOLD,
)
ORACLE = Pay("700 by oracle", labels=700)
TEACHERS = (
    ORACLE,
    *(
        Pay(f"700 by {name}", labels=700, teacher=name)
        for name in ("mistake", "stochastic", "skip", "myopic", "equal")
    ),
)
"""B-Pref's six. The oracle's cells are those of `700 comparisons`."""


@dataclass(frozen=True)
class Task:
    """A task and the agent on it: the same budget whatever pays.

    Attributes:
        env: a registered id.
        agent: in the registry of agents for control.
        timesteps: of training.
        rows: environments side by side.
        opponents: whom a player of games is judged against; there win rates are told too.
    """

    env: str
    agent: str = "sb3.ppo"
    timesteps: int = 80_000
    rows: int = 16
    opponents: tuple[str, ...] = field(default=())


STUDIED: Mapping[str, Task] = {
    "pizza": Task("rlhf_gym/Pizza-v0", timesteps=250_000, rows=64),
    "navigation": Task("rlhf_gym/Navigation-v0", timesteps=400_000, rows=128),
    "recommender": Task("rlhf_gym/Recommender-v0", rows=64),
    "tutor": Task("rlhf_gym/Tutor-v0", rows=64),
    "go": Task(
        "rlhf_gym/Go-v0",
        "contrib.maskable_ppo",
        rows=32,
        opponents=("random", "capturer", "shape"),
    ),
}


def teaching(task: Task, pay: Pay) -> PreferenceConfig:
    """How the agent is taught by comparisons."""
    config = TASKS[task.env].preferences()
    return replace(
        config,
        schedule=replace(config.schedule, total=pay.labels),
        automated_weight=pay.automated_weight,
    )


def cell(task: Task, pay: Pay, seed: int, kept_agent: Path | None = None) -> dict[str, Any]:
    """Train an agent, and judge it.

    Args:
        task: what to do.
        pay: for what.
        seed: of everything.
        kept_agent: where to save the agent; None does not.

    Returns:
        `gold` and `automated`: mean returns of the policy without chance; `seconds` of training;
        with comparisons `held_out_accuracy` and `correlation` of the last fit; for games `wins`, by
        opponent, and `wins_before`, those of the untrained agent.
    """
    kind = CONTROL_AGENTS.load(task.agent)
    settings = {**TASKS[task.env].agents.get(task.agent, {}), "seed": seed}
    venv = GymnasiumVecEnv(make_control_environment(task.env, task.rows))
    started = time.perf_counter()
    result: dict[str, Any] = {}
    if pay.labels:
        with tempfile.TemporaryDirectory() as folder:
            config = teaching(task, pay)
            learning = PreferenceLearning(venv, folder, pay.teacher, config, seed=seed)
            agent = kind.make(learning.env, **settings)
            result["wins_before"] = wins(agent, task, seed)
            last = learning.learn(agent, task.timesteps)
            learning.learner.store.close()
        result |= {name: last.get(name) for name in ("held_out_accuracy", "correlation")}
    else:
        rule: PaymentRule = GoldReward() if pay == GOLD else AutomatedReward()
        agent = kind.make(VecMonitor(TaughtVecEnv(venv, rule)), **settings)
        result["wins_before"] = wins(agent, task, seed)
        agent.learn(task.timesteps)
    seconds = time.perf_counter() - started
    venv.close()
    if kept_agent is not None:
        kept_agent.parent.mkdir(parents=True, exist_ok=True)
        agent.save(kept_agent)
    gold, automated = judge(
        agent,
        make_control_environment(task.env, 64),
        EPISODES,
        seed=seed + EVALUATION_SEED,
        masked=kind.is_masked,
    )
    return {
        **result,
        "gold": float(np.mean(gold)),
        "automated": float(np.mean(automated)),
        "wins": wins(agent, task, seed),
        "seconds": seconds,
    }


def wins(agent: BaseAlgorithm, task: Task, seed: int) -> dict[str, float]:
    """Share of games won against each of a task's opponents; nothing where there are none."""
    shares = {}
    for opponent in task.opponents:
        _, won = judge(
            agent,
            make_control_environment(task.env, 64, opponent=opponent),
            EPISODES,
            seed=seed + EVALUATION_SEED,
            masked=CONTROL_AGENTS.load(task.agent).is_masked,
        )
        shares[opponent] = float(np.mean(np.array(won) > 0))
    return shares
