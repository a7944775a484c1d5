"""The loop study's cells on `rlhf_gym/Sentiment-v0`: `rlhf-gym rlhf` with its oracle.

One policy learns throughout, as the robot does: each round's training goes on from the policy of
the round before. With all labels at the start the later rounds go on by the same reward models.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlhf_gym.agents.ppo import PPOConfig
from rlhf_gym.core.calibration import Estimate
from rlhf_gym.pipelines.environment import EnvironmentConfig
from rlhf_gym.pipelines.rlhf import RLHFConfig, RLHFLoop
from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.loop_ways import ROUNDS, Way

LABELS = 400
"""Pairs labelled in each round."""
TOKENS = 24_000
"""Response tokens of each round's training."""
EPISODES = 256
"""Responses by which each policy is judged."""


def cell(way: Way, folder: Path, seed: int) -> dict[str, Any]:
    """One loop: what each round came to.

    Args:
        way: to spend the labels.
        folder: of the task's cells.
        seed: of everything.

    Returns:
        Lists of one number a round: `gold` and `kl` of the policy, `reference`, the reference's
        gold; and the processor's `seconds`.
    """
    here = folder / f"seed-{seed}"
    config = loop_config(way, here / way.slug, seed)

    def compute() -> dict[str, Any]:
        started = time.process_time()
        if way.rounds > 1:
            share_first_round(here / "first-round", config)
        rounds = list(RLHFLoop(config))
        return {
            "gold": [_value(one.gold) for one in rounds],
            "kl": [_value(one.kl) for one in rounds],
            "reference": [_value(one.reference_gold) for one in rounds],
            "labels": rounds[-1].labels,
            "seconds": time.process_time() - started,
        }

    return kept(here / f"{way.slug}.json", {"loop": asdict(config)}, compute)


def share_first_round(first: Path, config: RLHFConfig) -> None:
    """Begin a loop with a copy of the first round, in which all choose their pairs by chance.

    Args:
        first: folder of the loop that is copied; run if need be.
        config: of the loop.
    """
    loop = Path(config.output)
    if loop.exists():
        return
    RLHFLoop(replace(config, rounds=1, selection="uniform", output=str(first))).run()
    unfinished = loop.with_name(f"{loop.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(first, unfinished)
    for file in ("config.json", "summary.json"):
        (unfinished / file).unlink()  # the loop's, not the round's
    unfinished.rename(loop)


def loop_config(way: Way, output: Path, seed: int) -> RLHFConfig:
    """The same labels in all, the same reward models and the same training."""
    return RLHFConfig(
        environment=EnvironmentConfig(kl_coef=0.02),
        rounds=ROUNDS,
        asking=way.rounds,
        labels=LABELS * ROUNDS // way.rounds,
        labeler="oracle",
        selection=way.selection,
        output=str(output),
        members=3,
        reward_epochs=4.0,
        reward_token_loss=0.5,
        begin="newest",
        total_timesteps=TOKENS,
        ppo=PPOConfig(learning_rate=1e-3),
        evaluation_episodes=EPISODES,
        seed=seed,
        progress=False,
    )


def _value(estimate: Estimate | None) -> float:
    return float("nan") if estimate is None else estimate.value
