"""What the tasks that come with the library share: a score, minus the KL penalty."""

from __future__ import annotations

from torch import nn

from rlhf_gym.rewards.base import RewardFunction, RewardTerm, as_weighted
from rlhf_gym.rewards.controllers import AdaptiveKL, KLController
from rlhf_gym.rewards.kl import Estimator, KLPenalty, Mode, Placement


def penalised(
    reward: RewardTerm | RewardFunction,
    reference: nn.Module,
    *,
    kl_coef: float | KLController,
    kl_estimator: Estimator,
    kl_placement: Placement,
    kl_target: float | None,
    kl_mode: Mode,
) -> RewardTerm:
    """Subtract the KL penalty from a reward, unless the reward has one already.

    Args:
        reward: a term, a sum of terms, or a function `(prompts, responses) -> numbers`.
        reference: the frozen LM.
        kl_coef: reward per nat, 0 or more, or a controller that moves it.
        kl_estimator: "k1", "k2", "k3" or "exact".
        kl_placement: "token" or "sequence".
        kl_target: steer the coefficient, which begins at `kl_coef`, towards so many nats a
            response.
        kl_mode: "sampled", or "soft" for agents that bring the policy's half themselves; see
            `KLPenalty`.
    """
    terms = as_weighted(reward)
    if any(isinstance(term, KLPenalty) for _, term in terms.parts):
        return terms
    if kl_target is not None and isinstance(kl_coef, float | int):
        kl_coef = AdaptiveKL(initial=kl_coef, target=kl_target)
    penalty = KLPenalty(
        reference, kl_coef, estimator=kl_estimator, placement=kl_placement, mode=kl_mode
    )
    return terms - penalty
