"""A reward that is linear in named features, such that the expert's averages are met.

Sources: Abbeel and Ng (2004), "Apprenticeship Learning via Inverse Reinforcement Learning" (feature
matching); Ziebart et al. (2008), "Maximum Entropy Inverse Reinforcement Learning", equation 6 (the
gradient).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.agents.imitation.discriminator import Steps
from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.preferences.reward_net import RewardEnsemble

Features = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.floating]]
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
        self._plain = encoding
        self._features = features or self._numbers_and_squares
        self.names = tuple(names) if names is not None else self._plain_names()
        # From here on a network reads the features alone.
        self.observation_features, self.action_features = len(self.names), 0

    def tensors(self, observations: NDArray[Any], actions: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Features of kept transitions, shape (n, k), and no more, shape (n, 0).

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
        return torch.from_numpy(shown), torch.zeros(len(actions), 0)

    def _numbers_and_squares(
        self, observations: NDArray[Any], actions: NDArray[Any]
    ) -> NDArray[np.floating]:
        numbers = torch.cat(self._plain.tensors(observations, actions), -1).numpy()
        return np.concatenate([numbers, np.square(numbers)], -1)

    def _plain_names(self) -> tuple[str, ...]:
        plain = [f"observation[{i}]" for i in range(self.observation_features)]
        plain += [f"action[{i}]" for i in range(self.action_features)]
        return (*plain, *(f"{name}^2" for name in plain))


@dataclass(frozen=True)
class FeatureConfig:
    """How the weights of features follow the gap between expert and agent."""

    step: float = 0.1
    """How far the weights go towards the gap, in deviations of each feature, at each update."""
    decay: float = 0.02
    """Share of the weights that is forgotten at each update, so that old gaps do not rule."""

    def __post_init__(self) -> None:
        for field, fits, expected in (
            ("step", 0 < self.step < math.inf, "a number above 0"),
            ("decay", 0 <= self.decay < 1, "a share below 1"),
        ):
            if not fits:
                raise InvalidArgument(
                    field, getattr(self, field), f"not {expected}", f"Give {expected}"
                )


class FeatureMatching:
    """Pays for what the expert does more of than the agent, feature by feature.

        weight <- (1 - decay) weight + step (mean of the expert - mean of the agent) / deviation

    This is a step up the gradient of the maximum-entropy likelihood of the demonstrations, with the
    agent's own steps for the model's expectation. At its end no gap is left: whatever the true
    reward is, if it is linear in these features, the agent earns what the expert earns (Abbeel and
    Ng 2004, section 3).

    Args:
        encoding: names the features.
        expert: steps of the expert.
        config: how.

    Attributes:
        reward: the learned reward: a `RewardEnsemble` of one member without a hidden layer.
    """

    def __init__(
        self, encoding: FeatureEncoding, expert: Steps, config: FeatureConfig | None = None
    ) -> None:
        self.config = config or FeatureConfig()
        self.encoding = encoding
        self.reward = RewardEnsemble(encoding, 1, ())
        shown, _ = encoding.tensors(*expert)
        self._expert_mean, self._expert_variance = shown.mean(0), shown.var(0, correction=0)
        self._weights = torch.zeros(len(encoding.names))

    @property
    def weights(self) -> dict[str, float]:
        """Of each feature, in units of its deviation, by name."""
        return dict(zip(self.encoding.names, self._weights.tolist(), strict=True))

    @torch.no_grad()
    def update(self, recent: Steps) -> dict[str, float]:
        """Compare with what the agent has done of late, and normalise the reward on it.

        Args:
            recent: steps of the agent.

        Returns:
            For the log: `gap`, the root mean square over features of how many deviations expert and
            agent are apart.
        """
        done, _ = self.encoding.tensors(*recent)
        mean = done.mean(0)
        both = (self._expert_variance + done.var(0, correction=0)) / 2
        # What never changes in either is no feature; a unit of 1 leaves its gap as it is.
        deviation = torch.where(both > 1e-8, both, 1.0).sqrt()
        gap = (self._expert_mean - mean) / deviation
        self._weights = (1 - self.config.decay) * self._weights + self.config.step * gap
        (layer,) = self.reward.layers
        layer.weight.copy_((self._weights / deviation)[None, :, None])
        layer.bias.zero_()
        self.reward.normalise(*recent)
        return {"gap": float(gap.square().mean().sqrt())}
