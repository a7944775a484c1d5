"""Episodes of an expert: recorded from an agent or a function, kept in one .npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.taught import TaughtVecEnv
from rlhf_gym.rewards.learned import AutomatedReward

Expert = Callable[[Any], NDArray[Any]]
"""Observations of n rows to actions of n rows, as the spaces have them."""

Observations = NDArray[Any] | dict[str, NDArray[Any]]


def rows_of(observations: Any, rows: Any) -> Observations:
    """Some of a batch of observations, dictionaries entry by entry."""
    if isinstance(observations, Mapping):
        return {key: np.asarray(value)[rows] for key, value in observations.items()}
    some: NDArray[Any] = np.asarray(observations)[rows]
    return some


@dataclass(frozen=True)
class Demonstrations:
    """Episodes, one behind the other.

    Attributes:
        observations: what was seen before each step, shape (steps, ...); one array per entry of a
            dictionary.
        actions: what was done, in the action space's own units, shape (steps, ...).
        lengths: steps of each episode, shape (episodes,).
        returns: gold return of each episode, shape (episodes,); nothing is learned from it.

    Raises:
        InvalidData: no episodes, arrays of different lengths, or numbers that are not finite.
    """

    observations: Observations
    actions: NDArray[Any]
    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]

    def __post_init__(self) -> None:
        steps = int(self.lengths.sum())
        parts = self._parts()
        found = {name: len(array) for name, array in parts.items()}
        if not len(self.lengths) or (self.lengths < 1).any():
            raise InvalidData("lengths", self.lengths, "an episode has no steps", "Record again")
        if set(found.values()) != {steps} or len(self.returns) != len(self.lengths):
            raise InvalidData(
                "demonstrations", found, f"the episodes have {steps} steps in all", "Record again"
            )
        for name, array in parts.items():
            if not np.isfinite(array).all():
                raise InvalidData(name, array, "not finite numbers", "Leave the episode out")

    def __len__(self) -> int:
        """Episodes."""
        return len(self.lengths)

    def take(self, episodes: NDArray[np.int64]) -> Demonstrations:
        """Some of the episodes, by number."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in episodes])
        return Demonstrations(
            rows_of(self.observations, rows),
            self.actions[rows],
            self.lengths[episodes],
            self.returns[episodes],
        )

    def encoded(self, encoding: Encoding) -> tuple[NDArray[Any], NDArray[Any]]:
        """Observations and actions as a reward reads them.

        Raises:
            InvalidData: steps of other spaces.
        """
        self.check(encoding.observation_space, encoding.action_space)
        return encoding.observations(self.observations), encoding.actions(self.actions)

    def check(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Refuse demonstrations of another task.

        Raises:
            InvalidData: what was seen or done at first does not belong to these spaces.
        """
        seen = rows_of(self.observations, 0)
        kind = observation_space.dtype
        seen = seen if isinstance(seen, dict) else np.asarray(seen, dtype=kind)
        done = np.asarray(self.actions[0], dtype=action_space.dtype)
        for name, element, space in (
            ("observations", seen, observation_space),
            ("actions", done, action_space),
        ):
            if not space.contains(element):
                raise InvalidData(name, element, f"not of {space}", "Record them on this task")

    def save(self, path: str | Path) -> Path:
        """Write one .npz file.

        Returns:
            The path, with the ending .npz.
        """
        path = Path(path).with_suffix(".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, lengths=self.lengths, returns=self.returns, **self._parts())  # type: ignore[arg-type]
        return path

    @classmethod
    def load(cls, path: str | Path) -> Demonstrations:
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            InvalidData: no such file, or not of this form.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            parts = {
                name.removeprefix("observations."): arrays[name]
                for name in arrays
                if name.startswith("observations.")
            }
            seen = parts or arrays["observations"]
            return cls(seen, arrays["actions"], arrays["lengths"], arrays["returns"])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            if isinstance(error, InvalidData):
                raise
            raise InvalidData(
                "demonstrations",
                str(path),
                f"not readable ({error})",
                "Give a file that record_demonstrations(...).save wrote",
            ) from error

    def _parts(self) -> dict[str, NDArray[Any]]:
        """The arrays of steps, by the names they have in the file."""
        seen = self.observations
        if isinstance(seen, dict):
            named = {f"observations.{key}": array for key, array in seen.items()}
        else:
            named = {"observations": seen}
        return {**named, "actions": self.actions}


def record_demonstrations(
    env: VecEnv | VectorEnv[Any, Any, Any],
    expert: BaseAlgorithm | Expert,
    episodes: int,
    *,
    seed: int = 0,
    deterministic: bool = True,
) -> Demonstrations:
    """Let an expert act, and keep what it saw and did.

    Every row plays the same number of episodes: taking those that end first would favour short
    ones.

    Args:
        env: the task, Gymnasium's in SAME_STEP or DISABLED mode.
        expert: an agent, or a function of the observations of all rows.
        episodes: how many.
        seed: of the episodes.
        deterministic: whether an agent acts without chance.

    Raises:
        InvalidArgument: no episodes.
    """
    if episodes < 1:
        raise InvalidArgument("episodes", episodes, "nothing to show", "Give 1 or more")
    venv = TaughtVecEnv(env if isinstance(env, VecEnv) else GymnasiumVecEnv(env), AutomatedReward())
    act = _acting(expert, venv, deterministic)
    wanted = -(-episodes // venv.num_envs)
    seen: list[Any] = []
    done: list[NDArray[Any]] = []
    gold: list[list[float]] = []
    ended: list[NDArray[np.bool_]] = []
    finished = np.zeros(venv.num_envs, np.int64)
    venv.seed(seed)
    observations = venv.reset()
    while finished.min() < wanted:
        actions = act(observations)
        # A copy: environments may write the next observation into the same array.
        seen.append(rows_of(observations, slice(None)))
        observations, _, ends, infos = venv.step(actions)
        done.append(np.array(actions))
        gold.append([info["gold_reward"] for info in infos])
        ended.append(ends)
        finished += ends
    return _by_episode(seen, np.stack(done), np.array(gold), np.stack(ended), episodes)


def _acting(expert: BaseAlgorithm | Expert, venv: VecEnv, deterministic: bool) -> Expert:
    if not isinstance(expert, BaseAlgorithm):
        return expert
    predict: Any = expert.predict
    masked = isinstance(expert, MaskablePPO)

    def act(observations: Any) -> NDArray[Any]:
        masks = {"action_masks": np.stack(venv.env_method("action_masks"))} if masked else {}
        actions: NDArray[Any] = predict(observations, deterministic=deterministic, **masks)[0]
        return actions

    return act


def _by_episode(
    seen: list[Any],
    done: NDArray[Any],
    gold: NDArray[np.float64],
    ended: NDArray[np.bool_],
    episodes: int,
) -> Demonstrations:
    """Whole episodes out of steps of all rows; arrays of shape (steps, rows, ...)."""
    number: NDArray[np.int64] = (
        np.cumsum(ended, 0) - ended
    )  # of the episode that a step belongs to, in its row
    wanted = -(-episodes // ended.shape[1])
    # Round by round, so that a last round that is not needed whole leaves out rows, not lengths.
    places = [
        (np.flatnonzero(number[:, row] == turn), row)
        for turn in range(wanted)
        for row in range(ended.shape[1])
    ][:episodes]
    steps = np.concatenate([step for step, _ in places])
    rows = np.concatenate([np.full(len(step), row) for step, row in places])
    if isinstance(seen[0], dict):
        stacked: Any = {key: np.stack([one[key] for one in seen]) for key in seen[0]}
    else:
        stacked = np.stack(seen)
    return Demonstrations(
        rows_of(stacked, (steps, rows)),
        done[steps, rows],
        np.array([len(step) for step, _ in places]),
        np.array([gold[step, row].sum() for step, row in places]),
    )
