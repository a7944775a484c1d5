"""Reward terms: each a file; they add, subtract and scale.

Names are imported when they are first used, so that `import rlhf_gym` stays free of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_gym.core.lazy import lazy_names

if TYPE_CHECKING:
    from rlhf_gym.rewards.attention import AttentionSpread
    from rlhf_gym.rewards.base import (
        FunctionReward,
        RewardTerm,
        ScoreTerm,
        TokenStep,
        WeightedReward,
        as_reward,
        as_weighted,
    )
    from rlhf_gym.rewards.centring import Centred, Margin
    from rlhf_gym.rewards.controllers import AdaptiveKL, FixedKL, KLController
    from rlhf_gym.rewards.credit import credit_by_token
    from rlhf_gym.rewards.dense import PartialScores, TokenHeads
    from rlhf_gym.rewards.discount import check_gamma
    from rlhf_gym.rewards.ensemble import EnsembleReward
    from rlhf_gym.rewards.kl import KLPenalty, adapter_off_reference, sampled_kl
    from rlhf_gym.rewards.lengths import (
        LengthPenalty,
        MissingStopPenalty,
        SoftOverlongPenalty,
        TargetLengthPenalty,
    )
    from rlhf_gym.rewards.model import RewardModel
    from rlhf_gym.rewards.penalty import Penalty, ScorePenalty
    from rlhf_gym.rewards.potentials import (
        ModelPotential,
        Potential,
        RewardPotential,
        TextPotential,
    )
    from rlhf_gym.rewards.repetition import RepetitionPenalty
    from rlhf_gym.rewards.shaping import PotentialShaping
    from rlhf_gym.rewards.spread import Lump, Spread, UniformSpread
    from rlhf_gym.rewards.transforms import (
        Clipped,
        GroupNormalised,
        RunningNormalised,
        TransformedReward,
        Whitened,
    )
    from rlhf_gym.rewards.verifiable import VerifiableReward, exact_match, numeric_match
    from rlhf_gym.rewards.wording import KeywordReward, LexiconReward, RegexReward
    from rlhf_gym.rewards.wrapping import WrappedReward

_MODULES = {
    "AdaptiveKL": "controllers",
    "AttentionSpread": "attention",
    "Centred": "centring",
    "Clipped": "transforms",
    "EnsembleReward": "ensemble",
    "FixedKL": "controllers",
    "FunctionReward": "base",
    "GroupNormalised": "transforms",
    "KLController": "controllers",
    "KLPenalty": "kl",
    "KeywordReward": "wording",
    "LengthPenalty": "lengths",
    "LexiconReward": "wording",
    "Lump": "spread",
    "Margin": "centring",
    "MissingStopPenalty": "lengths",
    "ModelPotential": "potentials",
    "PartialScores": "dense",
    "Penalty": "penalty",
    "Potential": "potentials",
    "PotentialShaping": "shaping",
    "RegexReward": "wording",
    "RepetitionPenalty": "repetition",
    "RewardModel": "model",
    "RewardPotential": "potentials",
    "RewardTerm": "base",
    "RunningNormalised": "transforms",
    "ScorePenalty": "penalty",
    "ScoreTerm": "base",
    "SoftOverlongPenalty": "lengths",
    "Spread": "spread",
    "TargetLengthPenalty": "lengths",
    "TextPotential": "potentials",
    "TokenHeads": "dense",
    "TokenStep": "base",
    "TransformedReward": "transforms",
    "UniformSpread": "spread",
    "VerifiableReward": "verifiable",
    "WeightedReward": "base",
    "Whitened": "transforms",
    "WrappedReward": "wrapping",
    "adapter_off_reference": "kl",
    "as_reward": "base",
    "as_weighted": "base",
    "check_gamma": "discount",
    "credit_by_token": "credit",
    "exact_match": "verifiable",
    "numeric_match": "verifiable",
    "sampled_kl": "kl",
}

__all__ = [
    "AdaptiveKL",
    "AttentionSpread",
    "Centred",
    "Clipped",
    "EnsembleReward",
    "FixedKL",
    "FunctionReward",
    "GroupNormalised",
    "KLController",
    "KLPenalty",
    "KeywordReward",
    "LengthPenalty",
    "LexiconReward",
    "Lump",
    "Margin",
    "MissingStopPenalty",
    "ModelPotential",
    "PartialScores",
    "Penalty",
    "Potential",
    "PotentialShaping",
    "RegexReward",
    "RepetitionPenalty",
    "RewardModel",
    "RewardPotential",
    "RewardTerm",
    "RunningNormalised",
    "ScorePenalty",
    "ScoreTerm",
    "SoftOverlongPenalty",
    "Spread",
    "TargetLengthPenalty",
    "TextPotential",
    "TokenHeads",
    "TokenStep",
    "TransformedReward",
    "UniformSpread",
    "VerifiableReward",
    "WeightedReward",
    "Whitened",
    "WrappedReward",
    "adapter_off_reference",
    "as_reward",
    "as_weighted",
    "check_gamma",
    "credit_by_token",
    "exact_match",
    "numeric_match",
    "sampled_kl",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
