"""Rounds of learning on disk: whole or not at all, the last few of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from rlhf_gym.agents.state_files import STATE, write_state
from rlhf_gym.core.preferences.reward_net import RewardEnsemble

AgentT = TypeVar("AgentT", bound=BaseAlgorithm)

ENSEMBLE, AGENT, BUFFER = "reward.safetensors", "agent.zip", "replay_buffer.pkl"
KEPT_ROUNDS = 2


def save_round(
    rounds: Path, agent: BaseAlgorithm, ensemble: RewardEnsemble, state: dict[str, Any]
) -> Path:
    """Write a round; a killed process leaves a whole one or none. Older ones are cleared away.

    Args:
        rounds: the folder of all rounds.
        agent: with its replay buffer.
        ensemble: the reward.
        state: what else a resumed run needs, see `write_state`.

    Returns:
        The round's folder.
    """
    target = rounds / f"step-{agent.num_timesteps:012d}"
    unfinished = rounds / f".unfinished-{target.name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    agent.save(unfinished / AGENT)
    if isinstance(agent, OffPolicyAlgorithm):
        agent.save_replay_buffer(unfinished / BUFFER)
    ensemble.save(unfinished / ENSEMBLE)
    write_state(unfinished, state)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(unfinished, target)
    for old in _whole(rounds)[:-KEPT_ROUNDS]:
        shutil.rmtree(old)
    return target


def newest_round(rounds: Path) -> Path | None:
    """The folder of the newest whole round; None if there is none yet."""
    found = _whole(rounds)
    return found[-1] if found else None


def load_agent(saved: Path, kind: type[AgentT], env: VecEnv, **kwargs: Any) -> AgentT:
    """The agent of a round, with its replay buffer.

    Args:
        saved: the round's folder.
        kind: the agent's class.
        env: for it.
        **kwargs: for `kind.load`.
    """
    agent = kind.load(saved / AGENT, env=env, **kwargs)
    if isinstance(agent, OffPolicyAlgorithm):
        agent.load_replay_buffer(saved / BUFFER)
    return agent


def _whole(rounds: Path) -> list[Path]:
    """Whole rounds, oldest first."""
    return sorted(path for path in rounds.glob("step-*") if (path / STATE).is_file())
