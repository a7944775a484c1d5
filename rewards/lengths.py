"""Penalties on how long a response is, and on one that never ends by itself."""

from __future__ import annotations

from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.rewards.base import TokenStep
from rlhf_gym.rewards.penalty import Penalty, ScorePenalty, at_least


class LengthPenalty(Penalty):
    """`coef` for every response token, the stop token included: subtract it.

    Each token pays its own, so that credit is as dense as it can be.

    Args:
        coef: reward per token, 0 or more.
        name: tag of the term.

    Source: Singhal et al. (2023), "A Long Way to Go: Investigating Length Correlations in RLHF",
    compares such terms.
    """

    def __init__(self, coef: float = 0.01, name: str = "length") -> None:
        super().__init__(coef, name)

    def token_rewards(self, episodes: Episodes) -> Tensor:
        """The cost at each response token, shape (batch, time): subtract it."""
        return self.coef * episodes.mask.float()

    def step_rewards(self, step: TokenStep) -> Tensor:
        """The cost of one token in each row, shape (n,): subtract it."""
        return step.actions.new_ones(len(step.actions)).float() * self.coef


class TargetLengthPenalty(ScorePenalty):
    """`coef` * |length - target|, length in tokens with the stop token: subtract it.

    Args:
        target: tokens, 1 or more.
        coef: reward per token of distance, 0 or more.
        name: tag of the term.
    """

    def __init__(self, target: int, coef: float = 0.01, name: str = "target_length") -> None:
        super().__init__(coef, name)
        self.target = at_least("target", target, 1)

    def scores(self, episodes: Episodes) -> Tensor:
        """The cost of each response, shape (batch,): subtract it."""
        return self.coef * (episodes.lengths - self.target).abs().float()


class SoftOverlongPenalty(ScorePenalty):
    """Nothing for a length within `limit - buffer`, rising linearly to `coef` at `limit`: subtract.

        cost = coef * clip((length - (limit - buffer)) / buffer, 0, 1)

    Args:
        buffer: tokens below the limit over which the cost rises, 1 or more.
        limit: tokens, the stop token included, above `buffer` or equal to it; None for the
            environment's budget.
        coef: reward at the limit and behind it, 0 or more.
        name: tag of the term.

    Raises:
        InvalidArgument: a buffer larger than the limit, here or when it is the environment's.

    Source: Yu et al. (2025), "DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
    equation 13, with the sign turned.
    """

    def __init__(
        self,
        buffer: int,
        limit: int | None = None,
        coef: float = 1.0,
        name: str = "soft_overlong",
    ) -> None:
        super().__init__(coef, name)
        self.buffer = at_least("buffer", buffer, 1)
        self.limit = None if limit is None else self._check_limit(limit)

    def scores(self, episodes: Episodes) -> Tensor:
        """The cost of each response, shape (batch,): subtract it."""
        limit = self._check_limit(episodes.mask.shape[1]) if self.limit is None else self.limit
        over = (episodes.lengths - (limit - self.buffer)) / self.buffer
        return self.coef * over.clamp(0.0, 1.0)

    def _check_limit(self, limit: int) -> int:
        if limit < self.buffer:
            raise InvalidArgument(
                "buffer",
                self.buffer,
                f"longer than the limit of {limit} tokens, so that an empty response would pay",
                "Give a shorter buffer or a longer limit",
            )
        return limit


class MissingStopPenalty(ScorePenalty):
    """`coef` for a response that ran into the budget without a stop token: subtract it.

    Args:
        coef: reward per such response, 0 or more.
        name: tag of the term.

    Source: "The N+ Implementation Details of RLHF with PPO" (arXiv 2403.17031), the EOS trick: a
    reward of -1, there in place of the score.
    """

    def __init__(self, coef: float = 1.0, name: str = "missing_stop") -> None:
        super().__init__(coef, name)

    def scores(self, episodes: Episodes) -> Tensor:
        """The cost of each response, shape (batch,): subtract it."""
        return self.coef * (~episodes.stopped).float()
