"""A task's rules as a vector environment, and as a single one that is a batch of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlhf_gym.core.errors import EpisodeEnded, InvalidArgument
from rlhf_gym.envs.control.actions import check_action_space, check_actions
from rlhf_gym.envs.control.dynamics import Dynamics, Outcome, StateT
from rlhf_gym.envs.control.random import BoolArray, FloatArray, IntArray, RowStreams
from rlhf_gym.envs.text import calls, checks
from rlhf_gym.envs.text.infos import row_info, spread

Info = dict[str, Any]
Observations = Any
StepReturn = tuple[Observations, FloatArray, BoolArray, BoolArray, Info]

METADATA: dict[str, Any] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}


class ControlVectorEnv(VectorEnv[Any, Any, NDArray[Any]], Generic[StateT]):
    """N episodes of one task in NumPy arrays.

    Row i of an environment reset with seed s lives through the same episodes as a single one reset
    with seed s + i, autoresets included.

    `info["gold_reward"]`, shape (N,), is in every step's info, under SAME_STEP also in `final_info`
    where an episode ended: what the person makes of the step, in neither reward nor observation.

    In DISABLED mode rows whose episode has ended must be reset, by `options["reset_mask"]`, before
    the next step, as with Gymnasium's own vector environments.

    Args:
        dynamics: the rules.
        num_envs: N, rows.
        autoreset_mode: see Gymnasium.
        render_mode: "rgb_array", "ansi" or None.

    Attributes:
        dynamics: the rules.

    Raises:
        InvalidArgument: a number of rows, a mode or an action space that is none.
    """

    metadata: dict[str, Any] = METADATA

    def __init__(
        self,
        dynamics: Dynamics[StateT],
        *,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        self.num_envs = checks.positive("num_envs", num_envs)
        self.render_mode = checks.check_render_mode(render_mode, self.metadata["render_modes"])
        self.autoreset_mode = checks.autoreset_mode_of(autoreset_mode)
        self.metadata = self.metadata | {
            "autoreset_mode": self.autoreset_mode,
            "render_fps": dynamics.render_fps,
        }
        check_action_space(dynamics.action_space)
        self.dynamics = dynamics
        self.single_observation_space = dynamics.observation_space
        self.observation_space = batch_space(dynamics.observation_space, self.num_envs)
        self.single_action_space = dynamics.action_space
        self.action_space = batch_space(dynamics.action_space, self.num_envs)
        self._streams: RowStreams | None = None
        self._state: StateT | None = None
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)

    @property
    def state(self) -> StateT:
        """The episodes in progress, N rows; the environment's own, not a copy.

        Raises:
            EpisodeEnded: before the first reset.
        """
        if self._state is None:
            raise EpisodeEnded("there is no episode before the first reset()")
        return self._state

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observations, Info]:
        """Begin new episodes.

        Args:
            seed: row i gets seed + i, or the i-th of a sequence. Without one each row goes on to
                its own next episode.
            options: `reset_mask`, bools of shape (N,), says which rows; all of them without it.

        Raises:
            InvalidArgument: not one seed per row, or a mask that is none.
            EpisodeEnded: a mask leaves out rows that were never reset.
        """
        rows = calls.reset_rows(options or {}, self.num_envs)
        seeds = _row_seeds(seed, self.num_envs)
        if self._state is None and len(rows) < self.num_envs:
            raise EpisodeEnded("reset all rows once before resetting some with reset_mask")
        super().reset(seed=None if seeds is None else seeds[0])
        if self._streams is None:
            drawn = self.np_random.integers(2**63, size=self.num_envs).tolist()
            self._streams = RowStreams(drawn)
        if seeds is not None:
            self._streams.reseed(rows, [seeds[row] for row in rows.tolist()])
        self._begin(rows)
        return self.dynamics.observe(self.state), {}

    def step(self, actions: Any) -> StepReturn:
        """Take one step in every row.

        Args:
            actions: shape (N, *single_action_space.shape).

        Returns:
            Observations, rewards (N,) float64, terminated (N,), truncated (N,), info.

        Raises:
            InvalidAction: another type or shape, out of range or NaN; nothing has changed then.
            EpisodeEnded: before the first reset, or in DISABLED mode after an episode's end.
        """
        checked = check_actions(actions, self.single_action_space, self.num_envs)
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            raise EpisodeEnded(
                f"the episode has ended in rows {np.flatnonzero(self._ended).tolist()}; call "
                "reset(), or reset(options={'reset_mask': terminated | truncated}) for them alone"
            )
        live, ended = np.flatnonzero(~self._ended), np.flatnonzero(self._ended)
        outcome = self._advance(live, checked)
        if len(ended):  # NEXT_STEP: their action is ignored
            self._begin(ended)
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=np.bool_)
        rewards[live] = outcome.reward
        terminated[live], truncated[live] = outcome.terminated, outcome.truncated
        info = spread({"gold_reward": outcome.gold_reward, **outcome.info}, live, self.num_envs)
        observations = self.dynamics.observe(self.state)
        over = terminated | truncated
        self._ended = over.copy()
        if self.autoreset_mode is AutoresetMode.SAME_STEP and over.any():
            self._restart(np.flatnonzero(over), observations, info)
        return observations, rewards, terminated, truncated, info

    def action_masks(self) -> BoolArray:
        """Which discrete actions are allowed now, shape (N, actions).

        Raises:
            InvalidArgument: actions are not discrete.
        """
        return self.dynamics.action_masks(self.state)

    def render(self) -> tuple[Any, ...] | None:
        """A picture or a text of each row; None without a render mode."""
        if self.render_mode is None:
            return None
        draw = self.dynamics.image if self.render_mode == "rgb_array" else self.dynamics.text
        return tuple(draw(self.state.take(np.array([row]))) for row in range(self.num_envs))

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, in the middle of episodes too.

        Returns:
            Nested dictionaries of NumPy arrays, numbers, strings and None.
        """
        streams, state = self._streams, self._state
        return {
            "fingerprint": self._fingerprint(),
            "seed": self.np_random_seed,
            "generator": self.np_random.bit_generator.state,
            "ended": self._ended.copy(),
            "streams": None if streams is None else streams.state_dict(),
            "state": None if state is None else _copies(state.arrays()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; the next step is then the one that would have followed.

        Raises:
            InvalidCheckpoint: the state of another environment, or no such state.
        """
        with calls.loading(state, self._fingerprint()):
            streams, episodes = None, None
            if state["streams"] is not None:
                streams = RowStreams([0] * self.num_envs)
                streams.load_state_dict(state["streams"])
                # New episodes have the fields; their content is replaced by what was saved.
                scratch = RowStreams([0] * self.num_envs)
                episodes = self.dynamics.begin(scratch.begin(np.arange(self.num_envs)))
                episodes = type(episodes)(**_copies(state["state"]))
            self.np_random.bit_generator.state = state["generator"]
            self._np_random_seed = state["seed"]
            self._ended = state["ended"].copy()
            self._streams, self._state = streams, episodes

    def _fingerprint(self) -> dict[str, Any]:
        """What must be equal for a saved state to fit."""
        return {
            "task": type(self.dynamics).__name__,
            "num_envs": self.num_envs,
            "autoreset_mode": self.autoreset_mode.value,
            **self.dynamics.settings,
        }

    def _advance(self, live: IntArray, actions: NDArray[Any]) -> Outcome:
        state, streams = self.state, self._streams
        assert streams is not None  # made with the state
        if len(live) == self.num_envs:
            return self.dynamics.advance(state, actions, streams.rows(slice(None)))
        part = state.take(live)
        outcome = self.dynamics.advance(part, actions[live], streams.rows(live))
        state.put(live, part)
        return outcome

    def _begin(self, rows: IntArray) -> None:
        assert self._streams is not None  # made by the first reset
        new = self.dynamics.begin(self._streams.begin(rows))
        if self._state is None or len(rows) == self.num_envs:
            self._state = new
        else:
            self._state.put(rows, new)
        self._ended[rows] = False

    def _restart(self, rows: IntArray, observations: Observations, info: Info) -> None:
        """Begin the next episodes of some rows, shape (k,), as SAME_STEP asks.

        What they ended with goes into `info`, and into `observations` what they begin with.
        """
        over = np.zeros(self.num_envs, dtype=np.bool_)
        over[rows] = True
        final_obs = np.full(self.num_envs, None, dtype=object)
        for row in rows.tolist():  # Gymnasium asks for one object per ended row
            final_obs[row] = _row_of(observations, row)
        final = {name: v & over if name.startswith("_") else v for name, v in info.items()}
        info |= {"final_obs": final_obs, "_final_obs": over}
        info |= {"final_info": final, "_final_info": over.copy()}
        self._begin(rows)
        _write_rows(observations, rows, self.dynamics.observe(self.state.take(rows)))


class ControlEnv(gym.Env[Any, Any]):
    """One episode at a time: a batch of one of `vector_class`, whose page describes the task.

    Args:
        **kwargs: as `vector_class`, without `num_envs` and `autoreset_mode`.

    Attributes:
        vector_env: the batch of one that does the work.
        vector_class: what it is; each task sets its own.
    """

    metadata: dict[str, Any] = METADATA
    vector_class: ClassVar[Any]  # callable(num_envs, autoreset_mode, **kwargs) -> ControlVectorEnv

    def __init__(self, **kwargs: Any) -> None:
        vector_env: ControlVectorEnv[Any] = self.vector_class(
            num_envs=1, autoreset_mode=AutoresetMode.DISABLED, **kwargs
        )
        self.vector_env = vector_env
        self.metadata = self.metadata | {"render_fps": vector_env.dynamics.render_fps}
        self.observation_space = vector_env.single_observation_space
        self.action_space = vector_env.single_action_space
        self.render_mode = vector_env.render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Info]:
        """Begin a new episode."""
        if self._np_random is not None and self._np_random is not self.vector_env.np_random:
            self.vector_env.np_random = self._np_random
        observations, info = self.vector_env.reset(seed=seed, options=options)
        # One generator: whoever reads or sets env.np_random has the one that seeds are drawn from.
        self._np_random = self.vector_env.np_random
        self._np_random_seed = self.vector_env.np_random_seed
        return _row_of(observations, 0), row_info(info, 0)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        """Take one step.

        Raises:
            InvalidAction: not an action of the space; nothing has changed then.
            EpisodeEnded: before `reset`, or after the end.
        """
        observations, rewards, terminated, truncated, info = self.vector_env.step(
            np.asarray(action)[None]
        )
        return (
            _row_of(observations, 0),
            float(rewards[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            row_info(info, 0),
        )

    def action_masks(self) -> BoolArray:
        """Which discrete actions are allowed now, shape (actions,)."""
        masks: BoolArray = self.vector_env.action_masks()[0]
        return masks

    def render(self) -> Any:
        """A picture, shape (height, width, 3), or a text; None without a render mode."""
        frames = self.vector_env.render()
        return None if frames is None else frames[0]

    def state_dict(self) -> dict[str, Any]:
        """See `ControlVectorEnv.state_dict`."""
        return self.vector_env.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `ControlVectorEnv.load_state_dict`."""
        self.vector_env.load_state_dict(state)
        self._np_random = self.vector_env.np_random
        self._np_random_seed = self.vector_env.np_random_seed


def _row_seeds(seed: int | Sequence[int] | None, num_envs: int) -> list[int] | None:
    """One seed per row."""
    if seed is None:
        return None
    if isinstance(seed, int | np.integer):
        seeds = [int(seed) + row for row in range(num_envs)]
    else:
        seeds = [int(one) for one in seed]
    if len(seeds) != num_envs or min(seeds) < 0:
        raise InvalidArgument(
            "seed",
            seed,
            f"not one non-negative integer for each of {num_envs} rows",
            "Give one integer, and row i gets seed + i, or as many as there are rows",
        )
    return seeds


def _row_of(observations: Observations, row: int) -> Any:
    if isinstance(observations, Mapping):
        return {key: value[row].copy() for key, value in observations.items()}
    return observations[row].copy()


def _write_rows(observations: Observations, rows: IntArray, fresh: Observations) -> None:
    if isinstance(observations, Mapping):
        for key, value in observations.items():
            value[rows] = fresh[key]
    else:
        observations[rows] = fresh


def _copies(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: array.copy() for name, array in arrays.items()}
