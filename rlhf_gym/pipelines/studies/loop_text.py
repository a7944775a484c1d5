"""The loop study's cells on `rlhf_gym/Sentiment-v0`: `rlhf-gym rlhf` with its oracle.

Chance in training a policy is large against what a round of labels is worth, so each round's reward
models pay several policies, which differ by seed alone, and a round's gold is their mean.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlhf_gym.agents.ppo import PPOConfig
from rlhf_gym.core.calibration import Estimate
from rlhf_gym.pipelines.environment import EnvironmentConfig
from rlhf_gym.pipelines.evaluate import EvaluateConfig, evaluate
from rlhf_gym.pipelines.rlhf import RLHFConfig, RLHFLoop
from rlhf_gym.pipelines.rlhf_round import Round
from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.loop_ways import ROUNDS, Way
from rlhf_gym.pipelines.train import TrainConfig, train

LABELS = 80
"""Pairs labelled in each round."""
TOKENS = 24_000
"""Response tokens of each policy's training."""
POLICIES = 2
"""Trained on each round's reward models; new pairs come from the first of them."""
EPISODES = 256
"""Responses by which each policy is judged."""


class Judged(NamedTuple):
    """A policy's gold and KL to the reference, means over responses."""

    gold: float
    kl: float


def cell(way: Way, folder: Path, seed: int) -> dict[str, Any]:
    """One loop: what each round came to.

    Args:
        way: to spend the labels.
        folder: of the task's cells.
        seed: of everything.

    Returns:
        Lists of one number a round: `gold` and `kl` of the policies, `reference`, the reference's
        gold; and the processor's `seconds`.
    """
    here = folder / f"seed-{seed}"
    config = loop_config(way, here / way.slug, seed)

    def compute() -> dict[str, Any]:
        started = time.process_time()
        rounds = [
            (one, [Judged(_value(one.gold), _value(one.kl)), *_others(Round(config, one.number))])
            for one in RLHFLoop(config)
        ]
        return {
            "gold": [float(np.mean([one.gold for one in policies])) for _, policies in rounds],
            "kl": [float(np.mean([one.kl for one in policies])) for _, policies in rounds],
            "reference": [_value(one.reference_gold) for one, _ in rounds],
            "by_policy": [[one.gold for one in policies] for _, policies in rounds],
            "labels": rounds[-1][0].labels,
            "seconds": time.process_time() - started,
        }

    settings = {"loop": asdict(config), "policies": POLICIES}
    return kept(here / f"{way.slug}.json", settings, compute)


def loop_config(way: Way, output: Path, seed: int) -> RLHFConfig:
    """The same labels in all, the same reward models and the same training of each policy."""
    return RLHFConfig(
        environment=EnvironmentConfig(kl_coef=0.05),
        rounds=way.rounds,
        labels=LABELS * ROUNDS // way.rounds,
        labeler="oracle",
        selection=way.selection,
        output=str(output),
        members=2,
        reward_epochs=6.0,
        total_timesteps=TOKENS,
        ppo=PPOConfig(learning_rate=1e-3),
        evaluation_episodes=EPISODES,
        seed=seed,
        progress=False,
    )


def _others(of: Round) -> Iterator[Judged]:
    """Policies besides the loop's own, trained and judged as it was; each is kept."""
    loop = of.config
    for number in range(1, POLICIES):
        folder = of.folder / f"policy-{number}"
        training = TrainConfig(
            environment=of.rewarded(),
            agent=loop.agent,
            total_timesteps=loop.total_timesteps,
            output=str(folder),
            seed=of.seed + 500 * number,  # no round of this loop has it
            progress=False,
            ppo=loop.ppo,
        )
        judging = EvaluateConfig(
            environment=of.rewarded(),
            policy=str(folder / "policy"),
            output=str(folder / "evaluation"),
            episodes=loop.evaluation_episodes,
            judge=loop.judge,
            seed=of.seed,
        )

        def compute(training: TrainConfig = training, judging: EvaluateConfig = judging) -> Any:
            train(training)
            policy = evaluate(judging).policy
            return Judged(_value(policy.gold), _value(policy.kl))._asdict()

        yield Judged(**kept(folder / "judged.json", {"training": asdict(training)}, compute))


def _value(estimate: Estimate | None) -> float:
    return float("nan") if estimate is None else estimate.value
