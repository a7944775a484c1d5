"""`--labeler model`: which language model is asked, and how. Light to import."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from rlhf_gym.core.errors import InvalidArgument

if TYPE_CHECKING:
    from rlhf_gym.core.ai_labeler import AILabeler

Disagreement = Literal["tie", "skip"]


@dataclass(frozen=True)
class AIConfig:
    """A language model that labels: of a directory, or behind an endpoint."""

    directory: str | None = None
    """A model on this machine: a directory or hub name."""
    endpoint: str | None = None
    """Or one behind an OpenAI-compatible endpoint: http://127.0.0.1:8000/v1, for example."""
    name: str = ""
    """What the endpoint calls the model."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the endpoint's key; sent only if it is set."""
    criterion: str = "the one that is more helpful, honest and harmless"
    """What is better: completes "Choose ..."."""
    disagreement: Disagreement = "tie"
    """What it means if the model's choice changes with the order of the two: tie or skip."""
    timeout: float = 60.0
    """Seconds to wait for an answer."""
    retries: int = 4
    """Tries after a failure that may pass, each after twice as long a pause."""
    parallel: int = 4
    """Requests to the endpoint at a time."""
    max_tokens: int = 16
    """Of an answer."""

    def __post_init__(self) -> None:
        for name, least in (("retries", 0), ("parallel", 1), ("max_tokens", 1)):
            if getattr(self, name) < least:
                raise InvalidArgument(name, getattr(self, name), "too few", f"Give {least} or more")
        if not 0 < self.timeout < math.inf:
            raise InvalidArgument("timeout", self.timeout, "no time", "Give seconds, 60 is usual")
        if self.disagreement not in get_args(Disagreement):
            raise InvalidArgument(
                "disagreement", self.disagreement, "no such label", "Choose tie or skip"
            )

    def labeler(self) -> AILabeler:
        """The labeler.

        Raises:
            InvalidArgument: neither directory nor endpoint, or both.
            InvalidCheckpoint: the directory holds no language model.
        """
        from rlhf_gym.core.ai_labeler import AILabeler
        from rlhf_gym.core.ai_models import Endpoint, LocalModel, Writer

        if (self.directory is None) == (self.endpoint is None):
            raise InvalidArgument(
                "ai",
                self.directory,
                "one model has to be named, and only one",
                "Give a directory, or an endpoint",
            )
        writer: Writer
        if self.directory is not None:
            writer = LocalModel(self.directory, max_tokens=self.max_tokens)
        else:
            writer = Endpoint(
                self.endpoint or "",
                self.name,
                key=os.environ.get(self.key_variable),
                timeout=self.timeout,
                retries=self.retries,
                parallel=self.parallel,
                max_tokens=self.max_tokens,
            )
        return AILabeler(writer, criterion=self.criterion, disagreement=self.disagreement)
