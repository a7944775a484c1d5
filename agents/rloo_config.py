"""What RLOO can be told. Light to import."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_gym.agents.config import TextAlgorithmConfig, check_above_zero
from rlhf_gym.core.errors import InvalidArgument


@dataclass(frozen=True)
class RLOOConfig(TextAlgorithmConfig):
    """RLOO's own settings."""

    responses_per_prompt: int = 4
    """k: responses to the same prompt, each one's baseline being the mean of the others."""

    clip_range: float = 0.2
    """How far the ratio of a whole response may move from 1 and still gain."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above_zero(self, "clip_range")
        if self.responses_per_prompt < 2:
            raise InvalidArgument(
                "responses_per_prompt",
                self.responses_per_prompt,
                "a response alone has no others to be compared with",
                "Give 2 or more",
            )
