"""Wrappers between agent and environment: those of Stable-Baselines3 and those of Gymnasium."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import vector as wrappers
from stable_baselines3.common.vec_env import VecCheckNan, VecEnv, VecMonitor, VecNormalize

from rlhf_gym.agents import RLOO
from rlhf_gym.agents.sb3.stock import A2C
from rlhf_gym.core.errors import InvalidArgument, RewardWasWrapped
from rlhf_gym.envs.sb3 import make_sb3_env

EXACT = "rlhf_gym/Exact-v0"
OF_SB3: dict[str, Callable[[VecEnv], VecEnv]] = {
    "VecMonitor": VecMonitor,
    "VecCheckNan": lambda env: VecCheckNan(env, raise_exception=True),
    "VecNormalize": lambda env: VecNormalize(env, norm_obs=False, gamma=1.0),
}
OF_GYMNASIUM: dict[str, Callable[[VectorEnv], VectorEnv]] = {
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "TransformReward": lambda env: wrappers.TransformReward(env, lambda reward: 2.0 * reward),
    "ClipReward": lambda env: wrappers.ClipReward(env, -10.0, 10.0),
    "NormalizeReward": lambda env: wrappers.NormalizeReward(env, gamma=1.0),
}
NOT_BY_TOKEN = ("VecNormalize", "NormalizeReward")
"""They scale every step by another number, so a response's reward has no address any more; agents
that credit by token say so, and learn with `reward_timing="step"`."""


def learn_with_ours(env: Any) -> None:
    RLOO("LMPolicy", env, seed=0, device="cpu", minibatches=2).learn(30)


@pytest.mark.parametrize("name", OF_SB3)
def test_stock_agents_learn_behind_sb3s_wrappers(name: str) -> None:
    agent = A2C.make(OF_SB3[name](make_sb3_env(EXACT, num_envs=8)), seed=0, device="cpu")
    agent.learn(80)
    assert agent.num_timesteps >= 80


@pytest.mark.parametrize("name", OF_GYMNASIUM)
def test_stock_agents_learn_behind_gymnasiums_wrappers(name: str) -> None:
    env = make_sb3_env(OF_GYMNASIUM[name](gym.make_vec(EXACT, num_envs=8)))
    agent = A2C.make(env, seed=0, device="cpu")
    agent.learn(80)
    assert agent.num_timesteps >= 80


@pytest.mark.parametrize("name", [*OF_SB3, *OF_GYMNASIUM])
def test_ours_learn_behind_wrappers_or_say_why_not(name: str) -> None:
    def wrapped(**kwargs: Any) -> Any:
        if name in OF_SB3:
            return OF_SB3[name](make_sb3_env(EXACT, num_envs=8, **kwargs))
        return OF_GYMNASIUM[name](gym.make_vec(EXACT, num_envs=8, **kwargs))

    if name in NOT_BY_TOKEN:
        with pytest.raises(RewardWasWrapped, match="reward_timing"):
            learn_with_ours(wrapped())
    else:
        learn_with_ours(wrapped())
    learn_with_ours(wrapped(reward_timing="step"))


def test_ours_refuse_normalised_observations_before_any_work() -> None:
    normalised = VecMonitor(VecNormalize(make_sb3_env(EXACT, num_envs=8)))
    with pytest.raises(
        InvalidArgument, match=r"norm_obs=True.*VecNormalize\(env, norm_obs=False\)"
    ):
        RLOO("LMPolicy", normalised, device="cpu")


def test_environments_side_by_side_must_restart_in_the_step_that_ends_them() -> None:
    def make(mode: AutoresetMode) -> VectorEnv[Any, Any, Any]:
        return gym.make_vec(
            EXACT,
            num_envs=4,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": mode},
        )

    with pytest.raises(InvalidArgument, match=r"NEXT_STEP.*SAME_STEP"):
        learn_with_ours(make(AutoresetMode.NEXT_STEP))
    learn_with_ours(make(AutoresetMode.SAME_STEP))
