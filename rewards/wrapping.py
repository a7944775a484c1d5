"""What terms that contain another reward share: its state, its name, and what they may not hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.rewards.base import RewardFunction, RewardTerm, WeightedReward, as_weighted
from rlhf_gym.rewards.kl import KLPenalty


class WrappedReward(RewardTerm):
    """A term made of another reward.

    It holds neither a KL penalty, which environments must find to report KL and move its
    coefficient, nor potential-based shaping, which would no longer telescope: both are added
    outside.

    Args:
        reward: a term, a sum of terms or a function.
        name: tag of the term; by default the inner one's behind the subclass's `prefix`.

    Attributes:
        reward: the inner sum of terms.

    Raises:
        InvalidArgument: the inner reward has a KL penalty or shaping.
    """

    prefix: str = "wrapped"
    """What stands before the inner reward's name."""

    def __init__(self, reward: RewardTerm | RewardFunction, name: str | None = None) -> None:
        self.reward = as_inner(reward, type(self).__name__)
        inner = self.reward.parts[0][1].name if len(self.reward.parts) == 1 else "reward"
        self.name = name or f"{self.prefix}_{inner}"
        self.batchwise = type(self).batchwise or self.reward.batchwise

    def state_dict(self) -> dict[str, Any]:
        """The inner reward's state."""
        return {"reward": self.reward.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.reward.load_state_dict(state["reward"])


def depends_on_others(reward: RewardTerm) -> bool:
    """Whether what a reward says of a response changes with other responses, or with the past."""
    return reward.batchwise or _has_leaf(reward.state_dict())


def _has_leaf(state: Any) -> bool:
    """Whether there is anything in a nested state but empty dictionaries."""
    return any(map(_has_leaf, state.values())) if isinstance(state, Mapping) else True


def as_inner(reward: RewardTerm | RewardFunction, holder: str) -> WeightedReward:
    """The sum of terms that another term holds.

    Args:
        reward: a term, a sum of terms or a function.
        holder: the class that wants to hold it, for the message.

    Returns:
        The `WeightedReward`.

    Raises:
        InvalidArgument: it has a KL penalty or shaping; see `WrappedReward`.
    """
    weighted = as_weighted(reward)
    for _, term in weighted.parts:
        if isinstance(term, KLPenalty) or term.gamma is not None:
            raise InvalidArgument(
                term.name,
                type(term).__name__,
                f"inside a {holder} it would no longer be what it is",
                f"Add it outside: {holder}(score) - KLPenalty(...) + PotentialShaping(...)",
            )
    return weighted
