"""Where KL is charged, and how it is estimated there: PPO on Exact-v0, judged by enumeration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import gymnasium as gym

from rlhf_gym.agents import PPO
from rlhf_gym.envs.exact import ExactVectorEnv
from rlhf_gym.rewards.controllers import AdaptiveKL

ENV_ID = "rlhf_gym/Exact-v0"
ROWS, TOKENS = 256, 30_000
LEARNING_RATE = 2e-3
"""As in the study of agents, which takes 50,000 tokens to come to 0.97."""
BETA = 0.1
"""Reward per nat by which every variant is judged, whatever it was trained with."""
HORIZON = 2_000
"""Of the adaptive coefficient, in episodes: a run has about 7,000."""

Place = Literal["token", "sequence", "loss", "none"]


@dataclass(frozen=True)
class Variant:
    """One way to charge KL.

    Attributes:
        place: at each token of the reward, all of it at the last, in the loss, or nowhere.
        estimator: "k1", "k2", "k3" or "exact"; the loss has its own, k3.
        coef: reward per nat; in the loss, its weight.
        adaptive: steer the coefficient, which begins at `coef`, to the optimum's KL.
        settings: of PPO, besides its learning rate.
    """

    place: Place
    estimator: Literal["k1", "k2", "k3", "exact"] = "k1"
    coef: float = BETA
    adaptive: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


VARIANTS: Mapping[str, Variant] = {
    "token, k1": Variant("token"),
    "token, k2": Variant("token", "k2"),
    "token, k3": Variant("token", "k3"),
    "token, exact": Variant("token", "exact"),
    "sequence, k1": Variant("sequence"),
    "loss, k3": Variant("loss", "k3"),
    "token, k1, 0.3 a nat": Variant("token", coef=0.3),
    "token, k1, adaptive from 0.3": Variant("token", coef=0.3, adaptive=True),
    "none": Variant("none", coef=0.0),
}


def placement_cell(variant: Variant, seed: int, tokens: int = TOKENS) -> dict[str, float]:
    """Train PPO once.

    Args:
        variant: how KL is charged.
        seed: of the agent.
        tokens: response tokens to train on.

    Returns:
        `share` of the way to the optimum at `BETA`, expected `reward` and `kl` (nats), all by
        enumeration; the coefficient at the end, `coef`; `tokens` and `seconds`.
    """
    import rlhf_gym  # noqa: F401  registers the environment

    env = gym.make_vec(ENV_ID, num_envs=ROWS, **_charged_in_the_reward(variant))
    task = cast(ExactVectorEnv, env.unwrapped)
    settings = dict(variant.settings)
    if variant.place == "loss":
        settings["kl_loss_coef"] = variant.coef
    started = time.perf_counter()
    agent = PPO("LMPolicy", env, seed=seed, device="cpu", learning_rate=LEARNING_RATE, **settings)
    agent.learn(tokens)
    performance = task.judge.performance(agent.policy.model)
    in_reward = variant.place in ("token", "sequence")
    return {
        "share": task.share_of_the_way(agent.policy.model, BETA),
        "reward": float(performance.reward.mean()),
        "kl": float(performance.kl.mean()),
        "coef": cast(float, task.kl_coef) if in_reward else variant.coef,
        "tokens": agent.num_timesteps,
        "seconds": time.perf_counter() - started,
    }


def _charged_in_the_reward(variant: Variant) -> dict[str, Any]:
    """What the environment is told."""
    if variant.place in ("loss", "none"):
        return {"kl_coef": 0.0}
    coef: float | AdaptiveKL = variant.coef
    if variant.adaptive:
        target = ExactVectorEnv().optimum(BETA).kl
        coef = AdaptiveKL(initial=variant.coef, target=target, horizon=HORIZON)
    return {
        "kl_coef": coef,
        "kl_estimator": variant.estimator,
        "kl_placement": variant.place,
    }
