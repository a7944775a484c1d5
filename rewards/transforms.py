"""Transformations of a reward: clipping and normalising (to scale one, write `0.5 * term`).

Each works on scores, the sums of a reward over each response, and keeps credit where it is: what a
transformation multiplies by, it multiplies every token by; what it adds, it adds at the last token.

What each sees: a term is asked once about the episodes that end in one step. `Clipped` and
`RunningNormalised` are right for any number of them. `Whitened` and `GroupNormalised` compare
responses with each other, so they are `batchwise`: environments take them with `ends="together"`
only, where those episodes are all `num_envs` responses of a batch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint, InvalidReward
from rlhf_gym.rewards.base import RewardFunction, RewardTerm
from rlhf_gym.rewards.wrapping import WrappedReward


class Affine(NamedTuple):
    """What becomes of each response's score: `scale * score + shift`.

    Attributes:
        scale: shape (batch,).
        shift: reward, shape (batch,).
    """

    scale: Tensor
    shift: Tensor


class TransformedReward(WrappedReward):
    """A reward whose scores are transformed; a subclass says how.

    Args:
        reward: a term, a sum of terms or a function.
        name: tag of the term.
    """

    def __init__(self, reward: RewardTerm | RewardFunction, name: str | None = None) -> None:
        super().__init__(reward, name)
        self.terminal = self.reward.terminal

    @abstractmethod
    def transform(self, scores: Tensor, episodes: Episodes) -> Affine:
        """What becomes of the scores, float64, shape (batch,)."""

    def token_rewards(self, episodes: Episodes) -> Tensor:
        """The inner reward, transformed, shape (batch, time)."""
        tokens = self.reward.token_rewards(episodes).cpu().double()
        scale, shift = self.transform(tokens.sum(-1), episodes)
        scaled = (scale.unsqueeze(-1) * tokens).float()
        return scaled + episodes.at_last_token(shift)


class Clipped(TransformedReward):
    """Scores outside a range are moved to its nearer end, by a correction at the last token.

    Args:
        reward: a term, a sum of terms or a function.
        low: least score, in the reward's unit.
        high: largest score.
        name: tag of the term.

    Raises:
        InvalidArgument: an empty range, or NaN.
    """

    prefix = "clipped"

    def __init__(
        self,
        reward: RewardTerm | RewardFunction,
        low: float = -5.0,
        high: float = 5.0,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name)
        if not low < high:
            raise InvalidArgument("low", low, f"not below high={high}", "Give a range")
        self.low, self.high = float(low), float(high)

    def transform(self, scores: Tensor, episodes: Episodes) -> Affine:
        """score + (clip(score) - score)."""
        return Affine(torch.ones_like(scores), scores.clamp(self.low, self.high) - scores)


class RunningNormalised(TransformedReward):
    """(score - mean) / deviation, both over all episodes so far, these ones included.

    Mean and variance are updated by each batch before they are used, and are part of
    `env.state_dict()`. While all scores were equal the scale is 1.

    Args:
        reward: a term, a sum of terms or a function.
        keep_mean: divide only, so that the sign and the zero of the reward stay.
        clip: largest absolute value of the result, in deviations; None for any.
        name: tag of the term.

    Attributes:
        updates: False freezes mean and deviation, for an evaluation.

    Raises:
        InvalidArgument: a clip that is not above 0.

    Source: Welford (1962), for batches Chan et al. (1979), "Updating Formulae and a Pairwise
    Algorithm for Computing Sample Variances"; Zheng et al. (2023), "Secrets of RLHF in Large
    Language Models Part I", for scores.
    """

    prefix = "normalised"

    def __init__(
        self,
        reward: RewardTerm | RewardFunction,
        *,
        keep_mean: bool = False,
        clip: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name)
        if clip is not None and not clip > 0:
            raise InvalidArgument("clip", clip, "not above 0", "Give a number of deviations")
        self.keep_mean = keep_mean
        self.clip = clip
        self.updates = True
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    @property
    def mean(self) -> float:
        """Mean of all scores so far, 0 before the first."""
        return self._mean

    @property
    def std(self) -> float:
        """Their (population) standard deviation, 1 while there is none."""
        return math.sqrt(self._squares / self._count) if self._squares > 0 else 1.0

    def transform(self, scores: Tensor, episodes: Episodes) -> Affine:
        """scores / std - mean / std, clipped by a correction at the last token."""
        if self.updates:
            self._update(scores)
        scale = torch.full_like(scores, 1.0 / self.std)
        shift = torch.zeros_like(scores) if self.keep_mean else -self.mean * scale
        if self.clip is not None:
            result = scale * scores + shift
            shift = shift + result.clamp(-self.clip, self.clip) - result
        return Affine(scale, shift)

    def state_dict(self) -> dict[str, Any]:
        """Count, mean and sum of squared deviations, and the inner reward's state."""
        moments = {"count": self._count, "mean": self._mean, "squares": self._squares}
        return {**super().state_dict(), **moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            InvalidCheckpoint: the state of another term.
        """
        missing = {"reward", "count", "mean", "squares"} - set(state)
        if missing:
            raise InvalidCheckpoint(
                self.name,
                sorted(state),
                f"the saved state has no {', '.join(sorted(missing))}",
                "Resume with the reward that the run was started with",
            )
        super().load_state_dict(state)
        self._count = int(state["count"])
        self._mean, self._squares = float(state["mean"]), float(state["squares"])

    def _update(self, scores: Tensor) -> None:
        # M2 <- M2_a + M2_b + (mean_b - mean_a)^2 n_a n_b / n
        count, mean = len(scores), float(scores.mean())
        total, delta = self._count + count, mean - self._mean
        self._squares += float((scores - mean).square().sum())
        self._squares += delta**2 * self._count * count / total
        self._mean += delta * count / total
        self._count = total


class Whitened(TransformedReward):
    """(score - mean) / deviation over the batch of episodes that end together.

    Equal scores become 0 (or keep their value, with `keep_mean`). No reward of the episode alone:
    the same response earns more in worse company.

    Args:
        reward: a term, a sum of terms or a function.
        keep_mean: divide only.
        name: tag of the term.

    Source: Huang et al. (2024), "The N+ Implementation Details of RLHF with PPO"
    (whitening, there of token rewards).
    """

    prefix = "whitened"
    batchwise = True

    def __init__(
        self,
        reward: RewardTerm | RewardFunction,
        *,
        keep_mean: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name)
        self.keep_mean = keep_mean

    def transform(self, scores: Tensor, episodes: Episodes) -> Affine:
        """scores / std - mean / std."""
        everyone = torch.zeros(len(scores), dtype=torch.long)
        return _normalise(scores, everyone, self.name, centre=not self.keep_mean)


class GroupNormalised(TransformedReward):
    """(score - mean) / deviation over the responses to one prompt among those that end together.

    A group of equal scores, and a response without another to its prompt, become 0. Collect several
    responses per prompt: `responses_per_prompt` of an agent of ours.

    Args:
        reward: a term, a sum of terms or a function.
        divide: False subtracts the mean only.
        name: tag of the term.

    Source: Shao et al. (2024), "DeepSeekMath", section 4.1 (GRPO); without the division Liu et al.
    (2025), "Understanding R1-Zero-Like Training" (Dr. GRPO).
    """

    prefix = "group"
    batchwise = True

    def __init__(
        self,
        reward: RewardTerm | RewardFunction,
        *,
        divide: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name)
        self.divide = divide

    def transform(self, scores: Tensor, episodes: Episodes) -> Affine:
        """scores / std - mean / std of each group."""
        width = episodes.prompt_width
        prompts = episodes.input_ids[:, :width].cpu()
        _, group = torch.unique(prompts, dim=0, return_inverse=True)
        return _normalise(scores, group, self.name, divide=self.divide)


def _normalise(
    scores: Tensor, group: Tensor, name: str, *, centre: bool = True, divide: bool = True
) -> Affine:
    """Shift and scale scores to mean 0 and (population) deviation 1 within groups.

    Args:
        scores: float64, shape (batch,).
        group: the number of each one's group, shape (batch,).
        name: of the term, for the message.
        centre: take the mean off.
        divide: by the deviation; by 1 where it is 0.

    Raises:
        InvalidReward: nobody has anybody to be compared with.
    """
    counts = group.bincount()
    if counts.max() < 2:
        raise InvalidReward(
            name,
            len(scores),
            "no response has another one that it could be compared with",
            'Use ends="together", more rows, and for groups several responses to each prompt',
        )

    def mean_of(values: Tensor) -> Tensor:
        sums = torch.zeros(len(counts), dtype=values.dtype).scatter_add_(0, group, values)
        return (sums / counts)[group]

    mean = mean_of(scores)
    std = mean_of((scores - mean).square()).sqrt()
    # What rounding leaves of equal scores is no deviation.
    equal = std <= 1e-7 * scores.abs().max()
    scale = torch.where(equal, 1.0, 1.0 / std) if divide else torch.ones_like(scores)
    return Affine(scale, -mean * scale if centre else torch.zeros_like(scores))
