"""`rlhf_gym/Sentiment-v0`: film reviews, a reward model that was trained on them, a gold judge.

Names are imported when they are first used, so that registration stays free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_gym.envs.sentiment.oracle import gold_sentiment, sentiment
    from rlhf_gym.envs.sentiment.task import SentimentEnv, SentimentVectorEnv

_MODULES = {
    "SentimentEnv": "task",
    "SentimentVectorEnv": "task",
    "gold_sentiment": "oracle",
    "sentiment": "oracle",
}

__all__ = ["SentimentEnv", "SentimentVectorEnv", "gold_sentiment", "sentiment"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"rlhf_gym.envs.sentiment.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
