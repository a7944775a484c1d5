"""Cutting a rollout into minibatches, and minibatches into forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_gym.agents.lm_models import length_parts
from rlhf_gym.agents.rollout import RolloutBatch


@dataclass(frozen=True)
class Minibatch:
    """Episodes that go through the policy in one forward, and what their means are taken over.

    A minibatch too large for one forward comes in parts. Every part divides by the tokens (or
    episodes) of the whole minibatch, so the parts' losses add up to the loss of the whole, and
    their gradients exactly to its gradient.

    Attributes:
        batch: the episodes of this part.
        tokens: response tokens in the whole minibatch.
        episodes: episodes in the whole minibatch.
    """

    batch: RolloutBatch
    tokens: int
    episodes: int

    @property
    def mask(self) -> Tensor:
        """True at response tokens, shape (batch, time)."""
        return self.batch.mask

    def mean(self, values: Tensor) -> Tensor:
        """This part's share of the mean over all response tokens, shape ().

        Args:
            values: one number per token, shape (batch, time); what is off the mask is ignored.
        """
        return values.masked_fill(~self.batch.mask, 0.0).sum() / self.tokens

    def episode_mean(self, values: Tensor) -> Tensor:
        """This part's share of the mean over all episodes, shape ().

        Args:
            values: one number per episode, shape (batch,).
        """
        return values.sum() / self.episodes


def minibatches(
    batch: RolloutBatch,
    *,
    count: int,
    tokens_per_forward: int,
    generator: torch.Generator,
    together: int = 1,
) -> Iterator[list[Minibatch]]:
    """Draw one epoch's minibatches, each as a list of parts.

    Which episodes meet in a minibatch is pure chance; sorting the batch by length first would give
    minibatches of short responses only, whose gradients are biased. Inside a minibatch, where order
    does not matter, episodes are sorted by length and cut into parts, each trimmed to its longest.

    Args:
        batch: the whole rollout.
        count: minibatches per epoch.
        tokens_per_forward: most tokens in one part, padding included.
        generator: source of the permutation.
        together: so many consecutive episodes stay side by side, in one part.
    """
    groups = len(batch.mask) // together
    # The permutation is drawn on the CPU, so it is the same whatever device the batch is on.
    order = torch.randperm(groups, generator=generator)
    longest = batch.attention_mask.sum(-1).cpu().view(groups, together).amax(-1)
    for drawn in torch.tensor_split(order, min(count, groups)) if groups else ():
        rows = drawn.unsqueeze(-1) * together + torch.arange(together)
        tokens = int(batch.mask[rows].sum())
        yield [
            Minibatch(batch.select(rows[part].flatten()).trimmed(), tokens, rows.numel())
            for part in length_parts(longest[drawn], tokens_per_forward // together)
        ]
