"""SB3's categorical distributions, with illegal tokens, that write down what is drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from sb3_contrib.common.maskable.distributions import MaskableCategoricalDistribution
from stable_baselines3.common.distributions import CategoricalDistribution
from torch import Tensor, nn

from rlhf_gym.agents.sb3.cached_lm import CachedLM
from rlhf_gym.core.channel import LogProbChannel
from rlhf_gym.core.tokens import TokenRules, legal_logits

IMPOSSIBLE = -1e8
"""Logit of an illegal token. Its probability is 0, as with minus infinity, whose differences and
products with 0 in torch's entropy and KL would be NaN."""


@dataclass(frozen=True)
class RowChannels:
    """The channels of environments that SB3 steps one by one, written to as if they were one.

    Attributes:
        channels: one for each row.
    """

    channels: tuple[LogProbChannel, ...]

    @property
    def wants_distribution(self) -> bool:
        """Whether an environment asks for full distributions."""
        return any(channel.wants_distribution for channel in self.channels)

    def write(
        self, actions: Tensor, log_probs: Tensor, log_distribution: Tensor | None = None
    ) -> None:
        """Give every environment its row; see `LogProbChannel.write`."""
        if len(actions) != len(self.channels):
            return  # somebody predicts for other environments
        for row, channel in enumerate(self.channels):
            one = slice(row, row + 1)
            distribution = None if log_distribution is None else log_distribution[one]
            channel.write(actions[one], log_probs[one], distribution)


Channel = LogProbChannel | RowChannels


# One of SB3's categoricals stands behind it in both classes that use it.
if TYPE_CHECKING:
    _Categorical = CategoricalDistribution
else:
    _Categorical = object


class Recorded(_Categorical):
    """What is drawn from a distribution is written to the channel.

    Args:
        action_dim: tokens of the vocabulary.
        channel: where log-probabilities go, or None.
    """

    def __init__(self, action_dim: int, channel: Channel | None) -> None:
        super().__init__(action_dim)
        self.channel = channel

    def sample(self) -> Tensor:
        """Draw a token for each row, shape (batch,)."""
        return self._record(super().sample())

    def mode(self) -> Tensor:
        """The most probable token of each row, shape (batch,)."""
        return self._record(super().mode())

    def _record(self, actions: Tensor) -> Tensor:
        if self.channel is None:
            return actions
        everything = None
        if self.channel.wants_distribution:
            normalised = self.distribution.logits
            everything = normalised.masked_fill(normalised < IMPOSSIBLE / 2, -torch.inf)
        self.channel.write(actions, self.log_prob(actions), everything)
        return actions


class RecordedCategorical(Recorded, CategoricalDistribution):
    """SB3's; arguments as `Recorded`."""


class RecordedMaskableCategorical(Recorded, MaskableCategoricalDistribution):  # type: ignore[misc]
    """sb3-contrib's; log-probabilities are those under the mask. Arguments as `Recorded`."""


class TokenLogits(nn.Module):
    """The LM head in the place of SB3's action net: a hidden state to legal logits.

    Args:
        lm: the language model.
    """

    def __init__(self, lm: CachedLM) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, hidden: Tensor) -> Tensor:
        """Legal logits, float32 and finite, shape (batch, hidden) to (batch, vocab)."""
        return self.lm.legal_logits(hidden).float().clamp_min(IMPOSSIBLE)


class FreshTokenLogits(nn.Module):
    """A head that has learned nothing yet, for policies without a language model.

    Args:
        latent_size: numbers it reads.
        rules: which tokens are legal, and the temperature.
    """

    def __init__(self, latent_size: int, rules: TokenRules) -> None:
        super().__init__()
        self.rules = rules
        self.head = nn.Linear(latent_size, rules.vocab_size)

    def forward(self, latent: Tensor) -> Tensor:
        """Legal logits, finite, shape (batch, latent) to (batch, vocab)."""
        return legal_logits(self.head(latent), self.rules).clamp_min(IMPOSSIBLE)
