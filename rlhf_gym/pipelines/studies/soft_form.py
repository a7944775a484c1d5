"""What the soft form of KL with an entropy bonus makes of Exact-v0, by enumeration.

In the soft form a token earns score + kl_coef * log pi_ref, and the agent's entropy bonus is to be
the other half of KL. Agents whose values hold no future entropy (Stable-Baselines3's, all of them)
then optimise something else than the KL-regularised objective. Here is what, and what it is worth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_gym.envs.exact.judge import ExactJudge
from rlhf_gym.envs.exact.solver import NodeTable

STOP = 1
"""Token of Exact-v0 that ends a response."""


def stationary_policy(judge: ExactJudge, kl_coef: float, entropy_coef: float) -> NodeTable:
    """The policy that soft rewards and an entropy bonus leave as it is, wherever they begin.

    A policy gradient with an entropy bonus is 0 at a prefix where

        pi(a|s) = exp(Q(s, a) / entropy_coef) / Z(s),   Q without the entropy that is still to come

    and a response is finite, so it is found from the last token backwards.

    Args:
        judge: of Exact-v0.
        kl_coef: weight of log pi_ref in the rewards.
        entropy_coef: of the bonus, above 0.
    """
    log_probs: list[Tensor] = []
    later: Tensor | None = None
    for q in _backwards(judge, kl_coef):
        total = q if later is None else _with_future(judge, q, later)
        policy = (total / entropy_coef).log_softmax(-1)
        later = (policy.exp() * total.clamp_min(_IMPOSSIBLE)).sum(-1)
        log_probs.insert(0, policy)
    return tuple(log_probs)


def stop_or_go_on(judge: ExactJudge, kl_coef: float) -> tuple[float, float]:
    """What the first token earns in the end if the reference writes on, the mean over prompts.

    Args:
        judge: of Exact-v0.
        kl_coef: weight of log pi_ref in the rewards; 0 for the sampled form, which charges the
            reference nothing.

    Returns:
        For stopping at once, and for all other tokens in the reference's proportions.
    """
    later: Tensor | None = None
    total = torch.empty(0)
    for q, log_reference in zip(_backwards(judge, kl_coef), reversed(judge.reference), strict=True):
        total = q if later is None else _with_future(judge, q, later)
        later = (log_reference.exp() * total.clamp_min(_IMPOSSIBLE)).sum(-1)
    first, probs = total[:, 0].clamp_min(_IMPOSSIBLE), judge.reference[0][:, 0].exp()
    others = probs.clone()
    others[:, STOP] = 0
    going_on = (others * first).sum(-1) / others.sum(-1)
    return float(first[:, STOP].mean()), float(going_on.mean())


_IMPOSSIBLE = -1e30
"""In the place of minus infinity, whose product with a probability of 0 is NaN."""


def _backwards(judge: ExactJudge, kl_coef: float) -> list[Tensor]:
    """What every token earns itself, the last ones first; minus infinity where it is illegal."""
    tables = zip(judge.rewards, judge.reference, strict=True)
    soft = [
        (reward + kl_coef * reference).masked_fill(reference == -torch.inf, -torch.inf)
        for reward, reference in tables
    ]
    return soft[::-1]


def _with_future(judge: ExactJudge, now: Tensor, later: Tensor) -> Tensor:
    """Add to each letter what the prefix that it makes is worth, shape as `now`."""
    letters = list(judge.tree.letters)
    total = now.clone()
    total[..., letters] += later.reshape(*now.shape[:2], len(letters))
    return total
