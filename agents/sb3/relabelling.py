"""Replay buffers whose rewards follow a reward that is still being learned."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences.reward_net import RewardEnsemble

CHUNK = 65_536
"""Transitions that are relabelled at a time."""


class PreferenceReplayBuffer(ReplayBuffer):
    """SB3's buffer, and what of each reward does not change when the learned part does.

    Attributes:
        fixed_rewards: from `info["fixed_reward"]`, shape (buffer_size, n_envs).
    """

    fixed_rewards: NDArray[np.float32]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fixed_rewards = np.zeros_like(self.rewards)

    def add(
        self,
        obs: NDArray[Any],
        next_obs: NDArray[Any],
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Keep a step of every row; see SB3."""
        self.fixed_rewards[self.pos] = [info["fixed_reward"] for info in infos]
        super().add(obs, next_obs, action, reward, done, infos)


def check_relabelling(agent: OffPolicyAlgorithm, ensemble: RewardEnsemble) -> None:
    """Refuse an agent whose buffer `relabel` could not bring up to date, before it learns.

    Raises:
        InvalidArgument: another buffer than `PreferenceReplayBuffer`, one without what a learned
            potential reads, or images that are transposed outside the wrapper that pays.
    """
    buffer = agent.replay_buffer
    if not isinstance(buffer, PreferenceReplayBuffer) or isinstance(buffer, DictReplayBuffer):
        raise InvalidArgument(
            "replay_buffer_class",
            type(buffer).__name__,
            "its old rewards could not follow what is learned",
            "Make the agent with replay_buffer_class=PreferenceReplayBuffer",
        )
    if ensemble.encoding.both_ends and buffer.optimize_memory_usage:
        raise InvalidArgument(
            "optimize_memory_usage",
            True,
            "the buffer has no last observations, and the learned reward reads both ends of a step",
            "Make the agent without it",
        )
    shape = ensemble.encoding.observation_space.shape
    if buffer.obs_shape != shape:
        raise InvalidArgument(
            "env",
            buffer.obs_shape,
            f"the learned reward reads observations of shape {shape}",
            "Put VecTransposeImage inside TaughtVecEnv, not around it",
        )


def relabel(agent: OffPolicyAlgorithm, ensemble: RewardEnsemble) -> int:
    """Pay everything in an agent's replay buffer anew, by what the ensemble is now.

    Args:
        agent: with a `PreferenceReplayBuffer`, see `check_relabelling`.
        ensemble: the learned part of the reward.

    Returns:
        Transitions relabelled.

    Raises:
        InvalidArgument: see `check_relabelling`.
    """
    check_relabelling(agent, ensemble)
    buffer = agent.replay_buffer
    assert isinstance(buffer, PreferenceReplayBuffer)  # checked
    encoding = ensemble.encoding
    steps = buffer.buffer_size if buffer.full else buffer.pos
    stride = max(1, CHUNK // buffer.n_envs)
    for start in range(0, steps, stride):
        part = slice(start, min(start + stride, steps))
        observations = buffer.observations[part].reshape(-1, *buffer.obs_shape)
        actions = buffer.actions[part].reshape(-1, buffer.action_dim)
        if isinstance(encoding.action_space, Box):
            # Off-policy agents store actions scaled to [-1, 1].
            actions = agent.policy.unscale_action(actions)
        seen = encoding.observations(observations)
        if encoding.both_ends:
            after = buffer.next_observations[part].reshape(-1, *buffer.obs_shape)
            seen = encoding.of_steps(seen, encoding.observations(after))
        learned = ensemble.rewards(seen, encoding.actions(actions))
        fixed = buffer.fixed_rewards[part]
        buffer.rewards[part] = learned.reshape(fixed.shape) + fixed
    return steps * buffer.n_envs
