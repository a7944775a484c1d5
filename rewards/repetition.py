"""A penalty on saying the same again."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.rewards.penalty import ScorePenalty, at_least


class RepetitionPenalty(ScorePenalty):
    """`coef` times the share of a response's n-grams that occurred in it before: subtract it.

        cost = coef * (1 - distinct n-grams / n-grams)

    N-grams are of tokens, the stop token left out; a response of fewer than n tokens costs nothing.

    Args:
        n: tokens per n-gram, 1 or more.
        coef: reward for a share of 1, 0 or more.
        name: tag of the term.

    Source: Welleck et al. (2019), "Neural Text Generation with Unlikelihood Training"
    (seq-rep-n).
    """

    def __init__(self, n: int = 3, coef: float = 1.0, name: str = "repetition") -> None:
        super().__init__(coef, name)
        self.n = at_least("n", n, 1)

    def scores(self, episodes: Episodes) -> Tensor:
        """The cost of each response, shape (batch,): subtract it."""
        return self.coef * repeated_share(episodes, self.n)


def repeated_share(episodes: Episodes, n: int) -> Tensor:
    """Share of each response's n-grams that occurred in it before, in [0, 1), shape (batch,)."""
    ids = episodes.response_ids.cpu()
    written = (episodes.lengths - episodes.stopped.long()).cpu()  # without the stop token
    if ids.shape[1] < n:
        return torch.zeros(len(ids))
    grams = ids.unfold(1, n, 1)  # (batch, places, n)
    places = torch.arange(grams.shape[1])
    real = places + n <= written.unsqueeze(-1)
    # One number per n-gram, the same wherever it occurs; what is no n-gram gets -1.
    _, number = torch.unique(grams.flatten(0, 1), dim=0, return_inverse=True)
    number = number.reshape(real.shape).masked_fill(~real, -1)
    ordered = number.sort(-1).values
    again = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    share: Tensor = again.sum(-1) / real.sum(-1).clamp_min(1)
    return share
