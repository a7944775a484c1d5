"""Reward terms: each a file; they add, subtract and scale.

Names are imported when they are first used, so that `import rlhf_gym` stays free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_gym.rewards.base import (
        FunctionReward,
        RewardTerm,
        ScoreTerm,
        TokenStep,
        WeightedReward,
        as_reward,
        as_weighted,
    )
    from rlhf_gym.rewards.controllers import AdaptiveKL, FixedKL, KLController
    from rlhf_gym.rewards.credit import credit_by_token
    from rlhf_gym.rewards.kl import KLPenalty, adapter_off_reference, sampled_kl
    from rlhf_gym.rewards.lengths import (
        LengthPenalty,
        MissingStopPenalty,
        SoftOverlongPenalty,
        TargetLengthPenalty,
    )
    from rlhf_gym.rewards.model import RewardModel
    from rlhf_gym.rewards.penalty import Penalty, ScorePenalty
    from rlhf_gym.rewards.repetition import RepetitionPenalty
    from rlhf_gym.rewards.verifiable import VerifiableReward, exact_match, numeric_match
    from rlhf_gym.rewards.wording import KeywordReward, LexiconReward, RegexReward

_MODULES = {
    "AdaptiveKL": "controllers",
    "FixedKL": "controllers",
    "FunctionReward": "base",
    "KLController": "controllers",
    "KLPenalty": "kl",
    "KeywordReward": "wording",
    "LengthPenalty": "lengths",
    "LexiconReward": "wording",
    "MissingStopPenalty": "lengths",
    "Penalty": "penalty",
    "RegexReward": "wording",
    "RepetitionPenalty": "repetition",
    "RewardModel": "model",
    "RewardTerm": "base",
    "ScorePenalty": "penalty",
    "ScoreTerm": "base",
    "SoftOverlongPenalty": "lengths",
    "TargetLengthPenalty": "lengths",
    "TokenStep": "base",
    "VerifiableReward": "verifiable",
    "WeightedReward": "base",
    "adapter_off_reference": "kl",
    "as_reward": "base",
    "as_weighted": "base",
    "credit_by_token": "credit",
    "exact_match": "verifiable",
    "numeric_match": "verifiable",
    "sampled_kl": "kl",
}

__all__ = [
    "AdaptiveKL",
    "FixedKL",
    "FunctionReward",
    "KLController",
    "KLPenalty",
    "KeywordReward",
    "LengthPenalty",
    "LexiconReward",
    "MissingStopPenalty",
    "Penalty",
    "RegexReward",
    "RepetitionPenalty",
    "RewardModel",
    "RewardTerm",
    "ScorePenalty",
    "ScoreTerm",
    "SoftOverlongPenalty",
    "TargetLengthPenalty",
    "TokenStep",
    "VerifiableReward",
    "WeightedReward",
    "adapter_off_reference",
    "as_reward",
    "as_weighted",
    "credit_by_token",
    "exact_match",
    "numeric_match",
    "sampled_kl",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"rlhf_gym.rewards.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
