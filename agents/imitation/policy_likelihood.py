"""How likely the actor of an SB3 agent holds an action to be, with gradients, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gymnasium.spaces import Box, Discrete
from sb3_contrib.ars.policies import ARSPolicy
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.crossq.policies import CrossQPolicy
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor
from torch.distributions import Categorical, Normal

from rlhf_gym.core.errors import InvalidArgument

LogLikelihood = Callable[[Any, Tensor], Tensor]
"""Observations and actions, n of each, to log-probabilities, shape (n,)."""

SPREAD = 0.1
"""Standard deviation, in actions scaled to [-1, 1], that a policy without chance is given."""
EDGE = 1e-4
"""A squashed Gaussian never quite reaches the bounds: actions there count as this far inside."""


def log_likelihood_of(agent: BaseAlgorithm) -> LogLikelihood:
    """The log-probability of actions under an agent's actor.

    - PPO, A2C, TRPO, MaskablePPO: of the policy, no action being masked.
    - SAC, TQC, CrossQ: of the squashed Gaussian.
    - TD3, DDPG and ARS on a Box: of a Gaussian of deviation `SPREAD` around the action, of which
      only the squared distance matters.
    - DQN, QR-DQN and ARS on Discrete: of the softmax of values. The best action is learned by it,
      the values' scale is not.

    Args:
        agent: of Stable-Baselines3 or sb3-contrib.

    Raises:
        InvalidArgument: a policy of another kind, such as a recurrent one.
    """
    policy: Any = agent.policy
    match policy:
        case RecurrentActorCriticPolicy():
            pass
        case ActorCriticPolicy() | MaskableActorCriticPolicy():
            return lambda seen, done: policy.evaluate_actions(seen, done)[1]
        case SACPolicy() | TQCPolicy() | CrossQPolicy():
            return _squashed(policy)
        case TD3Policy():
            return lambda seen, done: _around(policy.actor(seen), _scaled(policy, done))
        case DQNPolicy():
            return lambda seen, done: _softmax(policy.q_net(seen), done)
        case QRDQNPolicy():
            return lambda seen, done: _softmax(policy.quantile_net(seen).mean(1), done)
        case ARSPolicy():
            return _linear(policy)
    raise InvalidArgument(
        "agent",
        type(policy).__name__,
        "it cannot be asked how likely an action is",
        "Choose PPO, A2C, TRPO, MaskablePPO, SAC, TQC, CrossQ, TD3, DQN, QR-DQN or ARS",
    )


def _squashed(policy: Any) -> LogLikelihood:
    def log_likelihood(seen: Any, done: Tensor) -> Tensor:
        mean, log_std, _ = policy.actor.get_action_dist_params(seen)
        distribution = policy.actor.action_dist.proba_distribution(mean, log_std)
        inside = _scaled(policy, done).clamp(EDGE - 1, 1 - EDGE)
        log_probs: Tensor = distribution.log_prob(inside)
        return log_probs

    return log_likelihood


def _linear(policy: Any) -> LogLikelihood:
    space = policy.action_space
    if isinstance(space, Discrete):
        eyes = policy.features_extractor
        return lambda seen, done: _softmax(
            policy.action_net(policy.extract_features(seen, eyes)), done
        )
    half = torch.as_tensor((space.high - space.low) / 2)
    # ARS's actions have the task's own units.
    return lambda seen, done: _around(policy(seen) / half, done / half)


def _scaled(policy: Any, actions: Tensor) -> Tensor:
    """Actions of a Box as actors give them, from -1 to 1."""
    space = policy.action_space
    assert isinstance(space, Box)  # these actors take no other
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    return 2.0 * (actions - low) / (high - low) - 1.0


def _around(mean: Tensor, actions: Tensor) -> Tensor:
    log_probs: Tensor = Normal(mean, SPREAD).log_prob(actions).flatten(1).sum(1)  # type: ignore[no-untyped-call]
    return log_probs


def _softmax(values: Tensor, actions: Tensor) -> Tensor:
    log_probs: Tensor = Categorical(logits=values).log_prob(actions.flatten())  # type: ignore[no-untyped-call]
    return log_probs
