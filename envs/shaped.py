"""Potential-based shaping where the task is to act, for Gymnasium and for Stable-Baselines3.

Scaling, clipping and normalising need nothing of ours: `gymnasium.wrappers.TransformReward` and
`NormalizeReward`, and SB3's `VecNormalize`, do so around any environment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from rlhf_gym.core.errors import InvalidReward
from rlhf_gym.rewards.discount import check_discount

Floats = NDArray[np.float64]

KEPT_EPISODES = 10_000

StatePotential = Callable[[Any], Any]
"""Phi: an observation -> one number, the same for the same observation at any time."""

BatchPotential = Callable[[Any], Any]
"""Phi of many: observations of n rows -> n numbers."""


class ShapedEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Adds gamma * Phi(s') - Phi(s) to the reward, with Phi = 0 where an episode terminates.

    The discounted sum is -Phi(s_0) whatever is done, so the optimal policies are those without it,
    for an agent of the same discount. Where an episode is truncated it goes on in the agent's eyes,
    and Phi is that of the last observation.

    Args:
        env: the environment.
        potential: Phi.
        gamma: the agent's discount per step.

    Attributes:
        required_gamma: the only discount it is right for, which `make_sb3_env` and `GammaCallback`
            compare with the agent's.

    Raises:
        InvalidArgument: a discount outside 0 to 1.

    Source: Ng, Harada and Russell (1999), "Policy Invariance under Reward Transformations",
    theorem 1; Grzes (2017), "Reward Shaping in Episodic Reinforcement Learning".
    """

    def __init__(self, env: gym.Env[Any, Any], potential: StatePotential, gamma: float) -> None:
        super().__init__(env)
        self.potential = potential
        self.required_gamma = check_discount(gamma)
        self._before = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._before = self._value(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The step, shaped; `info["shaping"]` is what was added."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        after = 0.0 if terminated else self._value(observation)
        shaping = self.required_gamma * after - self._before
        self._before = after
        return (
            observation,
            float(reward) + shaping,
            terminated,
            truncated,
            info | {"shaping": shaping},
        )

    def _value(self, observation: Any) -> float:
        return float(_checked(np.reshape(self.potential(observation), (-1,)), 1)[0])


class ShapedVecEnv(VecEnvWrapper):
    """`ShapedEnv` for an SB3 VecEnv: the potential is asked about all rows at once.

    Put it around `TaughtVecEnv`, inside `VecMonitor` and `VecNormalize`. It is not for agents whose
    replay buffer is relabelled: old steps would be paid anew without it.

    Args:
        venv: the environment.
        potential: Phi of the observations of n rows, n numbers. It may change while an agent
            learns: what is subtracted is what it said when the agent came there, so that the sum
            over an episode stays what it is.
        gamma: the agent's discount per step.

    Attributes:
        episodes: what shaping came to in each finished episode, oldest first; whoever reads them
            takes them out.

    Raises:
        InvalidArgument: a discount outside 0 to 1.

    Source: as of `ShapedEnv`; Devlin and Kudenko (2012), "Dynamic Potential-Based Reward Shaping",
    theorem 1, for potentials that change.
    """

    def __init__(self, venv: VecEnv, potential: BatchPotential, gamma: float) -> None:
        super().__init__(venv)
        self.potential = potential
        self.required_gamma = check_discount(gamma)
        self.episodes: deque[float] = deque(maxlen=KEPT_EPISODES)
        self._before: Floats = np.zeros(self.num_envs)
        self._sums: Floats = np.zeros(self.num_envs)

    def reset(self) -> Any:
        """Begin new episodes."""
        observations = self.venv.reset()
        self._before = self._values(observations)
        self._sums = np.zeros(self.num_envs)
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """The step, shaped; `info["shaping"]` is what was added."""
        observations, rewards, dones, infos = self.venv.step_wait()
        begun = self._values(observations)
        after = np.where(dones, 0.0, begun)
        for row in np.flatnonzero(dones).tolist():
            if infos[row].get("TimeLimit.truncated", False):
                last = infos[row]["terminal_observation"]
                after[row] = _checked(self.potential(_batch_of_one(last)), 1)[0]
        shaping = self.required_gamma * after - self._before
        for row, info in enumerate(infos):  # SB3 asks for one dictionary per row
            info["shaping"] = float(shaping[row])
        self._before = begun
        self._sums += shaping
        self.episodes.extend(self._sums[dones].tolist())
        self._sums[dones] = 0.0
        return observations, (rewards + shaping).astype(np.float32), dones, infos

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """As of the environment inside, but for the discount."""
        if attr_name == "required_gamma":
            return [self.required_gamma for _ in self._get_indices(indices)]
        return self.venv.get_attr(attr_name, indices)

    def _values(self, observations: Any) -> Floats:
        return _checked(self.potential(observations), self.num_envs)


def _checked(said: Any, count: int) -> Floats:
    values = np.asarray(said, dtype=np.float64)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise InvalidReward(
            "potential", said, f"not {count} finite numbers", "Return one for each observation"
        )
    return values


def _batch_of_one(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: _batch_of_one(value) for key, value in observation.items()}
    return np.asarray(observation)[None]
