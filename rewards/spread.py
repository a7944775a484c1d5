"""Who gets the credit: the same return per response, at other tokens.

With gamma = 1 no policy's objective changes, so the optimum stays where it is; what changes is the
variance and the bias of an agent's estimates. With gamma below 1 early credit is worth more.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.rewards.wrapping import WrappedReward


class Spread(WrappedReward):
    """A reward's sum over the response, shared out among its tokens.

    Args:
        reward: a term, a sum of terms or a function.
        name: tag of the term.
    """

    @abstractmethod
    def shares(self, episodes: Episodes) -> Tensor:
        """Each token's share, shape (batch, time): sums to 1 in each row, 0 off the mask."""

    def token_rewards(self, episodes: Episodes) -> Tensor:
        """The sum, shared out, shape (batch, time)."""
        totals = self.reward.token_rewards(episodes).cpu().sum(-1, keepdim=True)
        return totals * self.shares(episodes)


class Lump(Spread):
    """All of it with the last token, however the inner reward was placed.

    Args:
        reward: a term, a sum of terms or a function.
        name: tag of the term.

    Source: Ziegler et al. (2019), equation 2: the score is paid for the whole response.
    """

    prefix = "lump"
    terminal = True

    def shares(self, episodes: Episodes) -> Tensor:
        """1 at the last token, shape (batch, time)."""
        return episodes.at_last_token(torch.ones(len(episodes)))


class UniformSpread(Spread):
    """The same for every response token, the stop token included.

    Args:
        reward: a term, a sum of terms or a function.
        name: tag of the term.

    Source: Gangwani et al. (2020), "Learning Guidance Rewards with Trajectory-space Smoothing".
    """

    prefix = "uniform"

    def shares(self, episodes: Episodes) -> Tensor:
        """1 / length at every response token, shape (batch, time)."""
        return (episodes.mask / episodes.lengths.unsqueeze(-1)).cpu()
