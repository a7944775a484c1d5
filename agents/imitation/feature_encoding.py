"""Named features of a step, in place of what is seen and done, for a reward network to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.preferences.encoding import Encoding

Steps = tuple[NDArray[Any], NDArray[Any]]
"""Observations and actions as `Encoding` keeps them, n of each."""

Numbers = NDArray[np.floating]

Features = Callable[[NDArray[Any], NDArray[Any]], Numbers]
"""Observations and actions as `Encoding` keeps them, n of each, to features, shape (n, k)."""


class FeatureEncoding(Encoding):
    """Shows a reward network named features of a step in place of what is seen and done.

    Without any of the user's, they are every number of observation and action and its square: to
    match their means is to match mean and spread of each.

    Args:
        encoding: of the environment's spaces; its spaces are taken over.
        names: of the features.
        features: what they are.

    Attributes:
        names: of the features.

    Raises:
        InvalidArgument: images, names without features or the other way round.
    """

    def __init__(
        self,
        encoding: Encoding,
        names: Sequence[str] | None = None,
        features: Features | None = None,
    ) -> None:
        super().__init__(encoding.observation_space, encoding.action_space)
        if self.is_image:
            raise InvalidArgument(
                "observation_space", self.observation_shape, "pixels are no features", "Name some"
            )
        if (names is None) != (features is None):
            raise InvalidArgument("names", names, "names and features go together", "Give both")
        if names is None or features is None:
            plain = numbers_of(encoding)
            names = [*numbers_names(encoding), *(f"{name}^2" for name in numbers_names(encoding))]

            def features(observations: NDArray[Any], actions: NDArray[Any]) -> Numbers:
                numbers = plain(observations, actions)
                return np.concatenate([numbers, np.square(numbers)], -1)

        self._features = features
        self.names = tuple(names)
        # A network reads the features alone, in the place of the action: what a reward network may
        # do to the numbers of an observation is not done to them.
        self.observation_features, self.action_features = 0, len(self.names)

    def tensors(self, observations: NDArray[Any], actions: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Nothing, shape (n, 0), and the features of kept transitions, shape (n, k).

        Raises:
            InvalidData: not one finite number for each name.
        """
        shown = np.asarray(self._features(observations, actions), dtype=np.float32)
        if shown.shape != (len(actions), len(self.names)) or not np.isfinite(shown).all():
            raise InvalidData(
                "features",
                shown,
                f"not finite numbers of shape {(len(actions), len(self.names))}",
                "Return one column for each name",
            )
        return torch.zeros(len(actions), 0), torch.from_numpy(shown)

    @classmethod
    def standardised(cls, encoding: Encoding, steps: Steps) -> FeatureEncoding:
        """Every number of observation and action, at mean 0 and deviation 1 over some steps.

        Raises:
            InvalidArgument: images.
        """
        plain = numbers_of(encoding)
        shown = plain(*steps)
        mean, deviation = shown.mean(0), shown.std(0)
        # What never changes there is left at its scale: a change of it elsewhere says a lot.
        deviation = np.where(deviation > 1e-4, deviation, 1.0)
        return cls(
            encoding,
            numbers_names(encoding),
            lambda observations, actions: (plain(observations, actions) - mean) / deviation,
        )


def numbers_of(encoding: Encoding) -> Features:
    """Every number of observation and action, as an encoding shows them, shape (n, k)."""

    def numbers(observations: NDArray[Any], actions: NDArray[Any]) -> Numbers:
        shown: Numbers = torch.cat(encoding.tensors(observations, actions), -1).numpy()
        return shown

    return numbers


def numbers_names(encoding: Encoding) -> list[str]:
    """Of the columns of `numbers_of`."""
    seen = [f"observation[{i}]" for i in range(encoding.observation_features)]
    return [*seen, *(f"action[{i}]" for i in range(encoding.action_features))]
