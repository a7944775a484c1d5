"""What REBEL can be told. Light to import."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_gym.agents.config import TextAlgorithmConfig, check_above_zero, check_counts
from rlhf_gym.core.errors import InvalidArgument


@dataclass(frozen=True)
class REBELConfig(TextAlgorithmConfig):
    """REBEL's own settings."""

    responses_per_prompt: int = 4
    """n: responses to the same prompt, of which the best and the worst are compared."""

    eta: float = 3.0
    """Size of the step: nats of log-ratio that one unit of reward is worth. 1 / kl_coef would go to
    the KL-regularised optimum at once, if the regression could be solved."""

    max_prompt_tokens: int | None = None
    """Prompts longer than this are not learned from; None learns from all."""

    max_response_tokens: int | None = None
    """Nor prompts to which a response is longer than this; None learns from all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above_zero(self, "eta")
        check_counts(self, "max_prompt_tokens", "max_response_tokens")
        if self.responses_per_prompt < 2:
            raise InvalidArgument(
                "responses_per_prompt",
                self.responses_per_prompt,
                "a response alone has nothing to be compared with",
                "Give 2 or more",
            )
