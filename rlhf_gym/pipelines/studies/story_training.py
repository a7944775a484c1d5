"""The two things that are trained in the story study, each kept when it is done."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf_gym.agents import PPO
from rlhf_gym.agents.ppo import PPOConfig
from rlhf_gym.core.supervised.reward_model import train_reward_model
from rlhf_gym.pipelines.collect import collect
from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.story_feedback import (
    StoryFiles,
    feedback_config,
    leave_out_ties,
    reward_model_config,
)
from rlhf_gym.pipelines.studies.story_task import StoryMeasurement, StoryTask, feelings
from rlhf_gym.rewards.base import as_reward
from rlhf_gym.rewards.model import RewardModel

NUM_ENVS = 128
TOKENS = 80_000
"""Response tokens per seed; 14 updates."""
PPO_CONFIG = PPOConfig(learning_rate=6e-4, epochs=2, minibatches=4)
FUNCTION_KL_COEF = 0.1
"""Reward per nat where a feeling brings 1."""
MODEL_KL_COEF = 0.15
"""Reward per nat where a deviation of the reward model's scores brings 1."""


@dataclass(frozen=True)
class LearnedReward:
    """A reward model and what it is worth on pairs of unseen openings.

    Attributes:
        folder: a Hugging Face directory.
        train_pairs: how many it learned from.
        unseen_pairs: how many it was judged by, labelled without mistakes, without ties.
        accuracy: share of them that it orders as the teacher does.
        accuracy_interval: its 95 % interval, low and high.
        longer_wins: share in which the better continuation is the longer one.
        seconds: processor time of sampling, labelling and training.
    """

    folder: str
    train_pairs: int
    unseen_pairs: int
    accuracy: float
    accuracy_interval: list[float]
    longer_wins: float
    seconds: float


@dataclass(frozen=True)
class Learned:
    """One run of PPO.

    Attributes:
        before: the storyteller as it came.
        after: the policy, on the same openings.
        seconds: processor time of the training.
    """

    before: StoryMeasurement
    after: StoryMeasurement
    seconds: float


def learn_reward(files: StoryFiles, seed: int) -> LearnedReward:
    """Let the storyteller write pairs, a teacher compare them and a reward model learn from it.

    Args:
        files: model and prompts.
        seed: of all three.
    """
    folder = files.folder / f"seed-{seed}"
    pairs, decided = folder / "pairs.jsonl", folder / "decided.jsonl"
    unseen, unseen_decided = folder / "unseen-pairs.jsonl", folder / "unseen-decided.jsonl"
    asked = [
        feedback_config(files, pairs, held_out=False, seed=seed),
        feedback_config(files, unseen, held_out=True, seed=seed),
    ]
    head = reward_model_config(files, decided, unseen_decided, folder / "reward-model", seed=seed)

    def compute() -> dict[str, Any]:
        started = time.process_time()
        for config in asked:
            collect(config)
        leave_out_ties(pairs, decided)
        leave_out_ties(unseen, unseen_decided)
        result = train_reward_model(head)
        return {
            "folder": head.output,
            "train_pairs": result.train_judgements,
            "unseen_pairs": result.held_out_judgements,
            "accuracy": result.accuracy,
            "accuracy_interval": result.accuracy_interval,
            "longer_wins": result.longer_wins,
            "seconds": time.process_time() - started,
        }

    settings = {"collect": [asdict(config) for config in asked], "reward_model": asdict(head)}
    return LearnedReward(**kept(folder / "reward-model.json", settings, compute))


def learn(task: StoryTask, folder: Path, seed: int, reward: LearnedReward | None = None) -> Learned:
    """Train the storyteller with PPO, and look at it before and after.

    Args:
        task: model, prompts and held-out prompts.
        folder: of the study.
        seed: of policy, sampling and prompts.
        reward: what pays; None is the function itself.
    """
    kl_coef = FUNCTION_KL_COEF if reward is None else MODEL_KL_COEF

    def compute() -> dict[str, Any]:
        paid = as_reward(feelings) if reward is None else RewardModel(reward.folder)
        env = task.env(task.prompts, paid, kl_coef=kl_coef, num_envs=NUM_ENVS)
        unseen = task.env(
            task.held_out, paid, kl_coef=kl_coef, num_envs=len(task.held_out), gold=feelings
        )
        agent = PPO("LMPolicy", env, PPO_CONFIG, seed=seed, device="cpu")
        started = time.process_time()
        agent.learn(TOKENS)
        seconds = time.process_time() - started
        before = task.measure(task.model, unseen, seed=seed)
        after = task.measure(agent.policy.model, unseen, seed=seed)
        return asdict(Learned(before, after, seconds))

    settings = {
        "ppo": PPO_CONFIG,
        "num_envs": NUM_ENVS,
        "tokens": TOKENS,
        "kl_coef": kl_coef,
        "reward": reward,
    }
    name = "function" if reward is None else "model"
    found = kept(folder / f"seed-{seed}" / f"paid-by-{name}.json", settings, compute)
    return Learned(
        StoryMeasurement(**found["before"]), StoryMeasurement(**found["after"]), found["seconds"]
    )
