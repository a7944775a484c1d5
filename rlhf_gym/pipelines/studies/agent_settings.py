"""How each agent is set up on each task: one line each, found by trying a few rates and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf_gym.agents.sb3.q_networks import Epsilon


@dataclass(frozen=True)
class Setup:
    """One agent on one task.

    Attributes:
        rows: responses written side by side.
        tokens: response tokens to train on.
        settings: what the agent is told besides its defaults.
        kl_mode: "soft" for agents that have no log pi to charge: those whose policy is argmax.
        env: what the environment is told besides its defaults.
    """

    rows: int
    tokens: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    kl_mode: Literal["sampled", "soft"] = "sampled"
    env: Mapping[str, Any] = field(default_factory=dict)


SAMPLES = 50_000
"""Tokens on Exact-v0: what our PPO needs for 0.95, the mean over five seeds, in steps of 10,000.
With 40,000 it comes to 0.90."""

MONTE_CARLO = {"gae_lambda": 1.0}
"""Values begin at 0 and an episode is five tokens: until they have learned, they only mislead."""

QUANTILES = {"n_quantiles": 20}
"""sb3-contrib's 200 are for returns of many kinds; an update costs in proportion."""

TRIES = {"n_steps": 1, "tau": 0.02, "batch_size": 512}
"""Values of the best way on, not of the way that was tried: bootstrapped token by token."""

WHOLE = {
    "support": 0.0,
    "freeze_lm": False,
    "epsilon": Epsilon(initial=1.0, final=0.3, tokens=SAMPLES),
}
"""Five letters, of which the reference would hardly try the right ones: chance finds them, and a
model of which every weight learns holds what they are worth."""

EXACT: dict[str, Setup] = {
    "ppo": Setup(256, SAMPLES, {"learning_rate": 2e-3}),
    "rloo": Setup(512, SAMPLES, {"learning_rate": 1e-3}),
    "rebel": Setup(512, SAMPLES, {"learning_rate": 1e-3}),
    "sb3.ppo": Setup(256, SAMPLES, {"learning_rate": 3e-3, "vf_coef": 0.5, **MONTE_CARLO}),
    "sb3.a2c": Setup(16, SAMPLES, {"learning_rate": 3e-3, **MONTE_CARLO}),
    "sb3.dqn": Setup(8, SAMPLES, {**TRIES, "policy_choices": WHOLE}, kl_mode="soft"),
    "contrib.trpo": Setup(
        256,
        SAMPLES,
        {"target_kl": 0.05, "cg_max_steps": 5, "n_critic_updates": 8, **MONTE_CARLO},
    ),
    "contrib.maskable_ppo": Setup(
        256, SAMPLES, {"learning_rate": 3e-3, "vf_coef": 0.5, **MONTE_CARLO}
    ),
    "contrib.recurrent_ppo": Setup(256, SAMPLES, {"learning_rate": 2e-3, **MONTE_CARLO}),
    "contrib.qrdqn": Setup(
        8, SAMPLES, {**TRIES, "policy_choices": {**WHOLE, **QUANTILES}}, kl_mode="soft"
    ),
    "contrib.ars": Setup(8, SAMPLES, kl_mode="soft"),
}

GENTLE = {"kl_coef": 0.01}
"""A policy that is certain of its tokens pays -log pi_ref for each: at 0.1 per nat the best it can
do is to stop soon."""

SENTIMENT: dict[str, Setup] = {
    "ppo": Setup(64, 20_000),
    "rloo": Setup(64, 20_000),
    "rebel": Setup(64, 20_000),
    "sb3.ppo": Setup(64, 20_000),
    "sb3.a2c": Setup(16, 20_000, {"learning_rate": 1e-3}),
    "sb3.dqn": Setup(16, 20_000, kl_mode="soft", env=GENTLE),
    "contrib.trpo": Setup(64, 6_000, {"cg_max_steps": 5}),
    "contrib.maskable_ppo": Setup(64, 20_000),
    "contrib.recurrent_ppo": Setup(64, 20_000),
    "contrib.qrdqn": Setup(16, 20_000, {"policy_choices": QUANTILES}, kl_mode="soft", env=GENTLE),
    "contrib.ars": Setup(
        16, 200_000, {"delta_std": 0.1, "learning_rate": 0.05}, kl_mode="soft", env=GENTLE
    ),
}

_SOFT_PPO = {"learning_rate": 3e-3, "vf_coef": 0.5, **MONTE_CARLO}
SOFT = {
    "entropy bonus 0 (SB3's default)": Setup(
        256, SAMPLES, {**_SOFT_PPO, "ent_coef": 0.0}, kl_mode="soft"
    ),
    "entropy bonus kl_coef": Setup(256, SAMPLES, {**_SOFT_PPO, "ent_coef": 0.1}, kl_mode="soft"),
    "entropy bonus kl_coef and advantages in the rewards' unit": Setup(
        256,
        SAMPLES,
        {**_SOFT_PPO, "ent_coef": 0.1, "normalize_advantage": False},
        kl_mode="soft",
    ),
}
"""SB3's PPO with the KL penalty in the soft form, reward + kl_coef log pi_ref, on Exact-v0."""
