"""A Gymnasium vector environment as a Stable-Baselines3 VecEnv, without a Python loop over rows."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.text.infos import row_info
from rlhf_gym.rewards.discount import check_gamma

VecObs = Any
BoolArray = NDArray[np.bool_]


class GymnasiumVecEnv(VecEnv):
    """Any Gymnasium VectorEnv, spoken to as SB3 does.

    `final_obs` becomes `terminal_observation`, truncated and not terminated `TimeLimit.truncated`,
    info one dictionary per row. In DISABLED mode rows that end are reset in `step_wait`.

    Args:
        vector_env: in SAME_STEP or DISABLED mode.
        refuse_next_step: NEXT_STEP has a dead step after each episode, whose action does nothing;
            SB3 would store it as experience. False is for agents that step `vector_env` themselves.

    Attributes:
        vector_env: the environment behind, with its wrappers.

    Raises:
        InvalidArgument: an environment in NEXT_STEP mode, or one that does not say its mode.
    """

    def __init__(
        self, vector_env: VectorEnv[Any, Any, Any], *, refuse_next_step: bool = True
    ) -> None:
        self.vector_env = vector_env
        mode = vector_env.metadata.get("autoreset_mode")
        if mode is None or (refuse_next_step and mode is AutoresetMode.NEXT_STEP):
            raise InvalidArgument(
                "autoreset_mode",
                mode,
                "the step after an episode would do nothing, and SB3 would learn from it",
                "Make the environment with autoreset_mode=AutoresetMode.SAME_STEP",
            )
        self._mode = mode
        self._actions: Any = None
        super().__init__(
            vector_env.num_envs,
            vector_env.single_observation_space,
            vector_env.single_action_space,
        )

    @property
    def spec(self) -> EnvSpec | None:
        """The spec of the environment; VecMonitor writes its id."""
        return self.vector_env.unwrapped.spec

    def reset(self) -> VecObs:
        """Start new episodes in all rows, with the seed and options set before."""
        options = self._options[0]
        if any(other != options for other in self._options):
            raise InvalidArgument(
                "options", self._options, "they differ by row", "Set one dictionary for all rows"
            )
        observations, info = self.vector_env.reset(seed=self._seeds[0], options=dict(options))
        self.reset_infos = self._by_row(info)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all rows; rows that end come back as they begin anew."""
        observations, rewards, terminated, truncated, info = self.vector_env.step(self._actions)
        dones = terminated | truncated
        infos = self._by_row(info)
        for row, only_truncated in enumerate((truncated & ~terminated).tolist()):
            infos[row]["TimeLimit.truncated"] = only_truncated
        if dones.any() and self._mode is not AutoresetMode.NEXT_STEP:
            observations = self._restart(observations, dones, infos)
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the environment."""
        self.vector_env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute, for each row asked for; what belongs to all rows is given to each.

        Raises:
            AttributeError: neither the environment nor a wrapper of it has it.
        """
        if isinstance(self.vector_env.unwrapped, SyncVectorEnv):
            values = self.vector_env.unwrapped.get_attr(attr_name)
            return [values[row] for row in self._get_indices(indices)]
        value = _find_attribute(self.vector_env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute in all rows.

        Raises:
            InvalidArgument: only some rows were meant.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise InvalidArgument(
                "indices", indices, "rows of a vector environment share attributes", "Leave it out"
            )
        if isinstance(self.vector_env.unwrapped, SyncVectorEnv):
            self.vector_env.unwrapped.set_attr(attr_name, [value] * self.num_envs)
        else:
            setattr(self.vector_env.unwrapped, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method once for all rows, and give each row its own part of the result.

        A result with one entry per row (array, list or tuple, such as `action_masks()`) is parted;
        any other is given to each row.
        """
        if isinstance(self.vector_env.unwrapped, SyncVectorEnv):
            result: Any = self.vector_env.unwrapped.call(method_name, *method_args, **method_kwargs)
        else:
            method = _find_attribute(self.vector_env, method_name)
            result = method(*method_args, **method_kwargs)
        per_row = isinstance(result, np.ndarray | list | tuple) and len(result) == self.num_envs
        return [result[row] if per_row else result for row in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """False: rows of a vector environment are not wrapped one by one."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """Rendered rows; text has no images."""
        frames = self.vector_env.render() or [None] * self.num_envs
        return [frame if isinstance(frame, np.ndarray) else None for frame in frames]

    def _restart(
        self, observations: VecObs, dones: BoolArray, infos: list[dict[str, Any]]
    ) -> VecObs:
        """Put the last observation of ended rows into their info, and begin them anew."""
        rows = np.flatnonzero(dones)
        if self._mode is AutoresetMode.SAME_STEP:
            for row in rows:
                infos[row]["terminal_observation"] = infos[row].pop("final_obs")
                infos[row].update(infos[row].pop("final_info", {}))
            return observations
        for row in rows:
            infos[row]["terminal_observation"] = _row_of(observations, int(row))
        observations, reset_info = self.vector_env.reset(options={"reset_mask": dones.copy()})
        for row in rows:
            self.reset_infos[row] = row_info(reset_info, int(row))
        return observations

    def _by_row(self, info: Mapping[str, Any]) -> list[dict[str, Any]]:
        if not info:
            return [{} for _ in range(self.num_envs)]
        return [row_info(info, row) for row in range(self.num_envs)]


def make_sb3_env(
    env: str | EnvSpec | VectorEnv[Any, Any, Any] | gym.Env[Any, Any],
    num_envs: int | None = None,
    *,
    gamma: float = 1.0,
    monitor: str | None = None,
    info_keywords: Iterable[str] = (),
    **kwargs: Any,
) -> VecMonitor:
    """Make what Stable-Baselines3 and sb3-contrib algorithms train on.

    Args:
        env: an id or spec for `gym.make_vec`, or an environment.
        num_envs: rows, for an id or spec; 1 by default.
        gamma: the discount of the agent that will train on it, to be compared with what the
            environment's reward needs; `GammaCallback` compares the agent's own.
        monitor: file for VecMonitor to write episodes to.
        info_keywords: what else VecMonitor shall write, keys of info at an episode's end.
        **kwargs: arguments of the environment, for an id or spec.

    Returns:
        The environment behind `GymnasiumVecEnv` and `VecMonitor`.

    Raises:
        InvalidArgument: `num_envs` or arguments for an environment that exists already; a reward
            that is shaped for another discount.
    """
    if isinstance(env, str | EnvSpec):
        vector = make_vector(env, 1 if num_envs is None else num_envs, **kwargs)
    else:
        vector = _as_vector(env)
        if kwargs or num_envs not in (None, vector.num_envs):
            raise InvalidArgument(
                "env",
                env,
                "the environment exists already, so it takes no num_envs or other arguments",
                "Give its id instead, or make it with those arguments",
            )
    adapted = GymnasiumVecEnv(vector)
    check_gamma(required_gamma(adapted), gamma, "Give make_sb3_env, the agent and the shaping one")
    if gamma < 1 and _reward_timing(adapted) == "end":
        warnings.warn(
            f"reward_timing='end' pays every token's reward with the last one, so gamma={gamma} "
            "discounts early tokens' rewards by the length of the response. Use gamma=1, or "
            "reward_timing='step'.",
            UserWarning,
            stacklevel=2,
        )
    return VecMonitor(adapted, filename=monitor, info_keywords=tuple(info_keywords))


def make_vector(env: str | EnvSpec, num_envs: int, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """Environments side by side, without a dead step between episodes: native if the task has that.

    Gymnasium's own default has one, and so have native vectors such as CartPole's; then single
    environments are stepped in turn.

    Args:
        env: an id or spec for `gym.make_vec`.
        num_envs: how many.
        **kwargs: of `gym.make_vec` and the environment.
    """
    if isinstance(env, str) and ":" in env:  # "package:Task-v0", as gym.make takes it
        package, _, env = env.partition(":")
        importlib.import_module(package)
    spec = gym.spec(env) if isinstance(env, str) else env
    if {"vectorization_mode", "vector_kwargs", "autoreset_mode"} & kwargs.keys():
        return gym.make_vec(env, num_envs=num_envs, **kwargs)
    if spec.vector_entry_point is not None:
        vector = gym.make_vec(env, num_envs=num_envs, **kwargs)
        if vector.metadata.get("autoreset_mode") is not AutoresetMode.NEXT_STEP:
            return vector
        vector.close()
    return gym.make_vec(
        env,
        num_envs=num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **kwargs,
    )


def required_gamma(env: VecEnv) -> float | None:
    """The only discount that the environment's reward is right for; None if it is for any."""
    try:
        required: float | None = env.get_attr("required_gamma")[0]
    except AttributeError:  # an environment of somebody else's
        return None
    return required


def _as_vector(env: VectorEnv[Any, Any, Any] | gym.Env[Any, Any]) -> VectorEnv[Any, Any, Any]:
    if isinstance(env, VectorEnv):
        return env
    if isinstance(env, gym.Env):
        return SyncVectorEnv([lambda: env], autoreset_mode=AutoresetMode.SAME_STEP)
    raise InvalidArgument(
        "env", env, "not an environment", "Give an id, a gymnasium.Env or a VectorEnv"
    )


def _find_attribute(env: VectorEnv[Any, Any, Any], name: str) -> Any:
    """An attribute of the outermost wrapper that has it."""
    while isinstance(env, VectorWrapper) and name not in {*dir(type(env)), *vars(env)}:
        env = env.env
    return getattr(env, name)


def _row_of(observations: VecObs, row: int) -> Any:
    if isinstance(observations, Mapping):
        return {key: value[row] for key, value in observations.items()}
    return observations[row]


def _reward_timing(env: GymnasiumVecEnv) -> str | None:
    try:
        return str(env.get_attr("reward_timing")[0])
    except AttributeError:
        return None
