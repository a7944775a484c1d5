"""What PPO can be told. Light to import."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_gym.agents.config import TextAlgorithmConfig, check_above_zero, check_not_negative
from rlhf_gym.core.errors import InvalidArgument


@dataclass(frozen=True)
class PPOConfig(TextAlgorithmConfig):
    """PPO's own settings; the defaults are those of the RLHF papers."""

    gamma: float = 1.0
    """Discount per token."""

    gae_lambda: float = 0.95
    """1 trusts the sampled return, 0 the value of the next token."""

    clip_range: float = 0.2
    """How far the ratio of a token may move from 1 and still gain."""

    value_clip_range: float | None = 0.2
    """How far a value may move from its old one and still gain; None lets it move freely."""

    value_coef: float = 0.1
    """Weight of the value loss."""

    entropy_coef: float = 0.0
    """Weight of the entropy bonus; the softmax explores by itself."""

    whiten_advantages: bool = True
    """Shift and scale advantages to mean 0, deviation 1 over the tokens of an update."""

    whiten_rewards: bool = False
    """Scale rewards to deviation 1 over the tokens of an update, their mean left where it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above_zero(self, "clip_range", "value_clip_range")
        check_not_negative(self, "value_coef", "entropy_coef")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidArgument(
                    name, getattr(self, name), "not between 0 and 1", "Give 0 to 1"
                )
