"""What the author of a control task writes: a state and its rules, for any number of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.control.random import BoolArray, Draws, FloatArray, Rows

Array = NDArray[Any]
StateT = TypeVar("StateT", bound="State")


@dataclass
class State:
    """Episodes in progress; a task adds its fields, all arrays whose first axis is the row."""

    def arrays(self) -> dict[str, Array]:
        """Field name -> array."""
        return dict(vars(self))

    def take(self, rows: Rows) -> Self:
        """Some rows as a state of their own; a copy if `rows` is an array of indices."""
        return type(self)(**{name: array[rows] for name, array in self.arrays().items()})

    def put(self, rows: Rows, part: Self) -> None:
        """Write what `take(rows)` gave, or new episodes, into these rows."""
        for name, array in self.arrays().items():
            array[rows] = getattr(part, name)


@dataclass(frozen=True)
class Outcome:
    """What a step of n rows led to.

    Args:
        reward: the automated reward, what can be measured, shape (n,).
        gold_reward: what the person makes of it, shape (n,); never seen by the agent.
        terminated: the episode is over, shape (n,).
        truncated: it is cut off, shape (n,).
        info: more to report; name -> array of shape (n, ...), or (array, known) with `known`, shape
            (n,), saying which rows have it.
    """

    reward: FloatArray
    gold_reward: FloatArray
    terminated: BoolArray
    truncated: BoolArray
    info: Mapping[str, Any] = field(default_factory=dict)


class Dynamics(ABC, Generic[StateT]):
    """The rules of a task, from which `ControlVectorEnv` and `ControlEnv` are made.

    The rules know nothing of resets, seeds or modes: they see rows whose episode is running, and do
    the same to each without a Python loop. All randomness comes from the `Draws` they are given.

    One row must come out the same, to the last bit, in a batch of one and in a batch of 256. NumPy
    keeps that for elementwise functions and for reductions over the last axis of a C-ordered array;
    `@` and `einsum` do not, their order of addition depends on the batch.

    Attributes:
        observation_space: of one row.
        action_space: of one row: Discrete, MultiDiscrete or a bounded Box.
        settings: the arguments that change the rules; a saved state of others is refused.
        render_fps: frames per second at which a recording looks right.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    settings: Mapping[str, Any]
    render_fps: ClassVar[int] = 4

    @abstractmethod
    def begin(self, draws: Draws) -> StateT:
        """New episodes, one for each of the `draws.count` rows."""

    @abstractmethod
    def advance(self, state: StateT, actions: Array, draws: Draws) -> Outcome:
        """Take one step, changing `state` in place.

        Args:
            state: n rows, all of them running.
            actions: n valid actions, shape (n, *action_space.shape), of the space's type.
            draws: for the same rows.
        """

    @abstractmethod
    def observe(self, state: StateT) -> Any:
        """Observations of n rows: a new array of shape (n, ...), or a dictionary of such."""

    @abstractmethod
    def image(self, state: StateT) -> NDArray[np.uint8]:
        """A picture of a state of one row, shape (height, width, 3)."""

    @abstractmethod
    def text(self, state: StateT) -> str:
        """The same in characters, for a terminal."""

    def action_masks(self, state: StateT) -> BoolArray:
        """Which discrete actions are allowed, shape (n, actions); all of them unless overridden.

        Raises:
            InvalidArgument: actions are not discrete.
        """
        if not isinstance(self.action_space, Discrete):
            raise InvalidArgument(
                "action_space", self.action_space, "only discrete actions have masks", "Do not ask"
            )
        rows = len(next(iter(state.arrays().values())))
        return np.ones((rows, int(self.action_space.n)), dtype=np.bool_)
