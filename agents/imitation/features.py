"""A reward that is linear in named features, such that the expert's averages are met.

Sources: Abbeel and Ng (2004), "Apprenticeship Learning via Inverse Reinforcement Learning" (feature
matching); Ziebart et al. (2008), "Maximum Entropy Inverse Reinforcement Learning", equation 6 (the
gradient).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rlhf_gym.agents.imitation.feature_encoding import FeatureEncoding, Steps
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences.reward_net import RewardEnsemble
from rlhf_gym.core.preferences.stacked_layers import StackedLinear


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
        _, shown = encoding.tensors(*expert)
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
        _, done = self.encoding.tensors(*recent)
        mean = done.mean(0)
        both = (self._expert_variance + done.var(0, correction=0)) / 2
        # What never changes in either is no feature; a unit of 1 leaves its gap as it is.
        deviation = torch.where(both > 1e-8, both, 1.0).sqrt()
        gap = (self._expert_mean - mean) / deviation
        self._weights = (1 - self.config.decay) * self._weights + self.config.step * gap
        (layer,) = self.reward.layers
        assert isinstance(layer, StackedLinear)  # the reward has no other
        layer.weight.copy_((self._weights / deviation)[None, :, None])
        layer.bias.zero_()
        self.reward.normalise(*recent)
        return {"gap": float(gap.square().mean().sqrt())}
