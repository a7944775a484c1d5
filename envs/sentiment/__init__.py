"""`rlhf_gym/Sentiment-v0`: film reviews, a reward model that was trained on them, a gold judge.

Names are imported when they are first used, so that registration stays free of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_gym.core.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
