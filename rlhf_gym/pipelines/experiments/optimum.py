"""Where a scheme puts the optimum of Exact-v0, and how good that optimum is by the task's own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_gym.envs.exact import ExactVectorEnv
from rlhf_gym.envs.exact.schemes import optimal_responses, token_rewards
from rlhf_gym.rewards.base import WeightedReward, as_weighted
from rlhf_gym.rewards.controllers import FixedKL
from rlhf_gym.rewards.kl import KLPenalty
from rlhf_gym.rewards.scheme_terms import scheme_reward, taken_apart
from rlhf_gym.rewards.wrapping import depends_on_others


class Moved(NamedTuple):
    """What a scheme does to the optimum.

    Attributes:
        distance: total variation between the scheme's optimal responses and the task's, 0 to 1.
        share: of the way to the task's optimum that the scheme's own optimum comes.
    """

    distance: float
    share: float


def optimum_of(expression: str, env: ExactVectorEnv) -> Moved | None:
    """What a scheme does to the optimum of Exact-v0, by writing down every response.

    Args:
        expression: of the scheme.
        env: the task.

    Returns:
        None for schemes without a fixed optimum (a reward that depends on other responses or on
        the past, a coefficient that moves), and for estimators of KL whose mean is not KL.
    """
    assert env.reward is not None
    task = taken_apart(env.reward, env.reference)
    reward = as_weighted(scheme_reward(expression, task))
    penalties = [term for _, term in reward.parts if isinstance(term, KLPenalty)]
    terms = WeightedReward([part for part in reward.parts if not isinstance(part[1], KLPenalty)])
    own = penalties[0]
    is_kl = isinstance(own.controller, FixedKL) and own.estimator != "k2"
    if depends_on_others(terms) or not is_kl:
        return None
    assert env.kl_coef is not None
    best = optimal_responses(env, task.score, env.kl_coef)
    found = _optimal(env, terms, own.coef)
    start = env.judge.tree.along(env.judge.reference).exp()
    values = [_objective(env, policy, task.score) for policy in (start, found, best)]
    share = (values[1] - values[0]) / (values[2] - values[0])
    return Moved(float(0.5 * (found - best).abs().sum(-1).mean()), share)


def _optimal(env: ExactVectorEnv, reward: WeightedReward, kl_coef: float) -> Tensor:
    """Optimal distribution over responses, shape (prompts, responses); without KL the best one."""
    if kl_coef > 0:
        return optimal_responses(env, reward, kl_coef)
    returns = token_rewards(env, reward).sum(-1)
    return torch.nn.functional.one_hot(returns.argmax(-1), returns.shape[1]).double()


def _objective(env: ExactVectorEnv, policy: Tensor, reward: WeightedReward) -> float:
    """E[reward] - kl_coef * KL of a distribution over responses, the mean over prompts."""
    log_reference = env.judge.tree.along(env.judge.reference)
    returns = token_rewards(env, reward).sum(-1)
    log_ratio = policy.clamp_min(1e-300).log() - log_reference
    assert env.kl_coef is not None
    return float((policy * (returns - env.kl_coef * log_ratio)).sum(-1).mean())
