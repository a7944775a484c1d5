"""Observations and actions of any Gymnasium space as the numbers a reward network reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.core.errors import InvalidArgument


class Encoding:
    """What is kept of a transition, and what a network is shown of it.

    Kept: images as they are (uint8), every other observation as a float32 vector (discrete ones
    one-hot, dictionaries joined in the order of the space), actions in the space's own type.

    Args:
        observation_space: Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of these.
        action_space: Box, Discrete, MultiDiscrete or MultiBinary.
        both_ends: keep of a step what was seen before it and, behind that, what was seen after it.

    Attributes:
        is_image: observations are pixels: uint8 with three axes.
        observation_shape: of what is kept of a step's observations.
        action_shape: of one action as kept.
        observation_features: numbers a network reads of an observation that is no image.
        channels: of an image.
        action_features: numbers a network reads of an action.

    Raises:
        InvalidArgument: a space of another kind, or both ends of steps of pixels.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        both_ends: bool = False,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.both_ends = both_ends
        self.is_image = _is_image(observation_space)
        self.observation_features = 0 if self.is_image else _width("observation", observation_space)
        self.observation_shape: tuple[int, ...] = (
            observation_space.shape or () if self.is_image else (self.observation_features,)
        )
        if both_ends:
            if self.is_image:
                raise InvalidArgument(
                    "both_ends", True, "pixels are kept once a step", "Judge steps, not changes"
                )
            self.observation_shape = (2 * self.observation_features,)
        self.action_features = _width("action", action_space)
        if isinstance(action_space, Dict):
            raise _unsupported("action", action_space)
        self.action_shape: tuple[int, ...] = action_space.shape or ()
        # Channels come last in Gymnasium and first after SB3's VecTransposeImage.
        self._channels_last = self.is_image and self.observation_shape[-1] in (1, 3, 4)
        self.channels = 0
        if self.is_image:
            self.channels = self.observation_shape[-1 if self._channels_last else 0]

    def observations(self, batch: Any) -> NDArray[Any]:
        """Observations as numbers, each for itself: shape (n, features), images as they are.

        Args:
            batch: n observations as a vector environment gives them, dictionaries of arrays for a
                Dict.
        """
        return np.asarray(batch) if self.is_image else _vectors(self.observation_space, batch)

    def of_steps(self, before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
        """What is kept of the observations of n steps, shape (n, *observation_shape).

        Args:
            before: from `observations`, what the agent acted on.
            after: from `observations`, what came of it: where the episode ended, its last
                observation, not the first of the next.
        """
        return np.concatenate([before, after], -1) if self.both_ends else before

    def actions(self, batch: Any) -> NDArray[Any]:
        """Actions as they are kept, shape (n, *action_shape)."""
        actions = np.asarray(batch)
        return actions.reshape(-1, *self.action_shape).astype(self.action_space.dtype, copy=False)

    def tensors(self, observations: NDArray[Any], actions: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """What a network reads of kept transitions.

        Args:
            observations: shape (n, *observation_shape).
            actions: shape (n, *action_shape).

        Returns:
            Observations, shape (n, *observation_shape), images (n, channels, height, width) in 0-1,
            and actions, shape (n, action_features), both float32.
        """
        seen = torch.from_numpy(np.ascontiguousarray(observations))
        seen = self.pixels(seen) if self.is_image else seen.float()
        return seen, torch.from_numpy(_vectors(self.action_space, actions))

    def pixels(self, images: Tensor) -> Tensor:
        """Kept images, shape (n, ...), as a network reads them: (n, channels, ...) in 0-1."""
        seen = images.float() / 255.0
        return seen.movedim(-1, -3) if self._channels_last else seen


def _is_image(space: gym.Space[Any]) -> bool:
    return isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) == 3


def _width(role: str, space: gym.Space[Any]) -> int:
    """Numbers that `_vectors` makes of one element."""
    if isinstance(space, Dict) and not any(_is_image(part) for part in space.values()):
        return sum(_width(role, part) for part in space.values())
    if isinstance(space, Discrete):
        return int(space.n)
    if isinstance(space, MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, Box | MultiBinary):
        return int(np.prod(space.shape))
    raise _unsupported(role, space)


def _vectors(space: gym.Space[Any], batch: Any) -> NDArray[np.float32]:
    """One float32 vector for each of n elements, shape (n, width)."""
    if isinstance(space, Dict):
        assert isinstance(batch, Mapping)
        return np.concatenate([_vectors(part, batch[key]) for key, part in space.items()], -1)
    elements = np.asarray(batch)
    if isinstance(space, Discrete):
        hot: NDArray[np.float32] = np.eye(int(space.n), dtype=np.float32)[
            elements.reshape(-1) - space.start
        ]
        return hot
    if isinstance(space, MultiDiscrete):
        sizes = space.nvec.reshape(-1)
        columns = (elements - space.start).reshape(len(elements), -1)
        columns = columns + np.concatenate([[0], np.cumsum(sizes)[:-1]])
        vectors = np.zeros((len(elements), int(sizes.sum())), dtype=np.float32)
        np.put_along_axis(vectors, columns, 1.0, axis=1)
        return vectors
    return elements.reshape(len(elements), -1).astype(np.float32, copy=False)


def _unsupported(role: str, space: gym.Space[Any]) -> InvalidArgument:
    return InvalidArgument(
        f"{role}_space",
        space,
        "a reward network cannot read it",
        "Flatten it with gymnasium.wrappers, or leave images out of dictionaries",
    )
