"""Actions that are refused before anything is changed."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidAction, InvalidArgument


def check_action_space(space: gym.Space[Any]) -> None:
    """Refuse a space whose actions `check_actions` could not check.

    Raises:
        InvalidArgument: neither Discrete nor MultiDiscrete nor a bounded Box.
    """
    bounded = isinstance(space, Box) and space.is_bounded()
    if not bounded and not isinstance(space, Discrete | MultiDiscrete):
        raise InvalidArgument(
            "action_space",
            space,
            "actions of this space cannot be checked",
            "Use Discrete, MultiDiscrete or a bounded Box",
        )


def check_actions(actions: Any, space: gym.Space[Any], num_envs: int) -> NDArray[Any]:
    """Actions of all rows as an array of the space's type, shape (num_envs, *space.shape).

    Args:
        actions: anything that NumPy makes an array of.
        space: of one row.
        num_envs: how many rows there are.

    Raises:
        InvalidAction: another type or shape, out of range, or not a number.
    """
    given = np.asarray(actions)
    shape = (num_envs, *(space.shape or ()))
    kinds = "iuf" if isinstance(space, Box) else "iu"
    if given.dtype.kind not in kinds or given.shape != shape:
        what = "numbers" if isinstance(space, Box) else "integers"
        raise InvalidAction(
            "actions",
            actions,
            f"{given.dtype} of shape {given.shape}, not {what} of shape {shape}",
            f"Give {what} of shape {shape}, such as action_space.sample() returns",
        )
    low, high = _limits(space)
    checked = given.astype(space.dtype, copy=False)
    # Compared as it was given: a number too large for the space's type would come back wrapped
    # around. A NaN is neither above nor below, hence "not within".
    within = (given >= low) & (given <= high)
    if not within.all():
        where = tuple(int(i) for i in np.argwhere(~within)[0])
        raise InvalidAction(
            f"actions[{', '.join(map(str, where))}]",
            given[where].item(),
            f"not a number from {np.broadcast_to(low, shape)[where]} "
            f"to {np.broadcast_to(high, shape)[where]}",
            "Clip it to the action space",
        )
    return checked


def _limits(space: gym.Space[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Smallest and largest action, both included; shape as the space's."""
    if isinstance(space, Box):
        return space.low, space.high
    if isinstance(space, MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    assert isinstance(space, Discrete)  # `check_action_space` has seen to it
    return np.asarray(space.start), np.asarray(space.start + space.n - 1)
