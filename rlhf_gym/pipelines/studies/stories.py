"""A real pretrained storyteller, paid for naming feelings: by a function, and by a reward model.

Part A pays what a plain Python function says. In part B nobody knows that function: a teacher who
errs in one of ten compares pairs of continuations by it, a reward model learns from the pairs, PPO
is paid by the reward model alone, and the function is only watched, as the gold score.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_gym.agents import PPO
from rlhf_gym.agents.ppo import PPOConfig
from rlhf_gym.core.supervised.reward_model import RewardModelResult, train_reward_model
from rlhf_gym.pipelines.collect import collect
from rlhf_gym.pipelines.studies.results import Interval, StudyReport, over_seeds
from rlhf_gym.pipelines.studies.story_feedback import (
    StoryFiles,
    feedback_config,
    leave_out_ties,
    reward_model_config,
    write_files,
)
from rlhf_gym.pipelines.studies.story_task import StoryMeasurement, StoryTask, feelings
from rlhf_gym.rewards.base import RewardTerm, as_reward
from rlhf_gym.rewards.model import RewardModel

if TYPE_CHECKING:
    from rlhf_gym.pipelines.studies import StudyConfig

NUM_ENVS = 128
TOKENS = 80_000
"""Response tokens per seed; 14 updates."""
SETTINGS = PPOConfig(learning_rate=6e-4, epochs=2, minibatches=4)
FUNCTION_KL_COEF = 0.1
"""Reward per nat where a feeling brings 1."""
MODEL_KL_COEF = 0.15
"""Reward per nat where a deviation of the reward model's scores brings 1."""
SHOWN = 4
"""Openings whose continuations stand in the report."""

COLUMNS = (
    "paid by",
    "seed",
    "reward",
    "feelings",
    "KL, nats",
    "perplexity",
    "known words",
    "distinct-2",
)
"""Two numbers in a cell are before and after."""


@dataclass(frozen=True)
class Learned:
    """One training run.

    Attributes:
        before: the storyteller as it came.
        after: the policy, on the same openings.
        seconds: processor time of the training.
    """

    before: StoryMeasurement
    after: StoryMeasurement
    seconds: float


def run(config: StudyConfig) -> None:
    """Both parts, once per seed, and one report."""
    folder = config.output / "stories"
    task = StoryTask.load(config.data_folder)
    files = write_files(task, folder)
    report = StudyReport("stories260k, paid for naming feelings", COLUMNS)

    by_function, by_model, reward_models = [], [], []
    for seed in range(config.seeds):
        learned = learn(task, as_reward(feelings), FUNCTION_KL_COEF, seed, TOKENS)
        by_function.append(learned)
        report.add("function", seed, *_cells(learned))
    for seed in range(config.seeds):
        reward_models.append(learn_reward(files, seed))
        reward = RewardModel(reward_models[-1].output)
        learned = learn(task, reward, MODEL_KL_COEF, seed, TOKENS)
        by_model.append(learned)
        report.add("reward model", seed, *_cells(learned))

    for name, runs in (("a function", by_function), ("a reward model", by_model)):
        report.notes += [_summary(name, runs), ""]
    report.notes += [*_accuracy_notes(reward_models), ""]
    report.notes += [_seconds(by_function, by_model, reward_models), ""]
    report.notes += _samples(by_function[0], by_model[0])
    report.raw = {
        "function": _numbers(by_function),
        "reward_model": _numbers(by_model),
        "reward_models": [_without_folder(result) for result in reward_models],
        "settings": {
            "ppo": SETTINGS,
            "tokens": TOKENS,
            "num_envs": NUM_ENVS,
            "function_kl_coef": FUNCTION_KL_COEF,
            "model_kl_coef": MODEL_KL_COEF,
        },
    }
    report.publish(folder)


def learn(task: StoryTask, reward: RewardTerm, kl_coef: float, seed: int, tokens: int) -> Learned:
    """Train the storyteller on a reward, and look at it before and after.

    Args:
        task: model, prompts and held-out prompts.
        reward: what it is paid, without the KL penalty.
        kl_coef: reward per nat of KL.
        seed: of policy, sampling and prompts.
        tokens: response tokens to sample.
    """
    env = task.env(task.prompts, reward, kl_coef=kl_coef, num_envs=NUM_ENVS)
    unseen = task.env(
        task.held_out, reward, kl_coef=kl_coef, num_envs=len(task.held_out), gold=feelings
    )
    agent = PPO("LMPolicy", env, SETTINGS, seed=seed, device="cpu")
    started = time.process_time()
    agent.learn(tokens)
    seconds = time.process_time() - started
    before = task.measure(task.model, unseen, seed=seed)
    return Learned(before, task.measure(agent.policy.model, unseen, seed=seed), seconds)


def learn_reward(files: StoryFiles, seed: int) -> RewardModelResult:
    """Let the storyteller write pairs, a teacher compare them and a reward model learn from it.

    Args:
        files: model and prompts.
        seed: of all three.
    """
    folder = files.folder / f"seed-{seed}"
    pairs, unseen = folder / "pairs.jsonl", folder / "unseen-pairs.jsonl"
    decided, unseen_decided = folder / "decided.jsonl", folder / "unseen-decided.jsonl"
    collect(feedback_config(files, pairs, held_out=False, seed=seed))
    collect(feedback_config(files, unseen, held_out=True, seed=seed))
    leave_out_ties(pairs, decided)
    leave_out_ties(unseen, unseen_decided)
    return train_reward_model(
        reward_model_config(files, decided, unseen_decided, folder / "reward-model", seed=seed)
    )


def _cells(learned: Learned) -> list[str]:
    before, after = learned.before, learned.after
    return [
        f"{before.score:.2f} > {after.score:.2f}",
        f"{before.gold:.2f} > {after.gold:.2f}",
        f"{after.kl:.1f}",
        f"{before.perplexity:.2f} > {after.perplexity:.2f}",
        f"{before.known_words:.3f} > {after.known_words:.3f}",
        f"{before.distinct_2:.2f} > {after.distinct_2:.2f}",
    ]


def _summary(name: str, runs: list[Learned]) -> str:
    def mean(part: str, field: str) -> Interval:
        return over_seeds([getattr(getattr(learned, part), field) for learned in runs])

    return (
        f"Paid by {name}, mean over seeds with 95 % interval: feelings in a continuation "
        f"{mean('before', 'gold')} before and {mean('after', 'gold')} after, "
        f"KL {mean('after', 'kl')} nats a continuation, "
        f"perplexity under the storyteller as it came {mean('before', 'perplexity')} before and "
        f"{mean('after', 'perplexity')} after."
    )


def _accuracy_notes(results: list[RewardModelResult]) -> list[str]:
    first = results[0]
    low, high = first.accuracy_interval
    return [
        "Reward models on pairs of unseen openings, labelled without mistakes, ties left out: "
        f"accuracy {over_seeds([result.accuracy for result in results])} over seeds; seed 0 "
        f"{first.accuracy:.3f} [{low:.3f}, {high:.3f}] on its {first.held_out_judgements} pairs, "
        f"after {first.train_judgements} to learn from; longer wins "
        f"{over_seeds([result.longer_wins for result in results])}."
    ]


def _seconds(
    by_function: list[Learned], by_model: list[Learned], rewards: list[RewardModelResult]
) -> str:
    function, model = (over_seeds([r.seconds for r in runs]) for runs in (by_function, by_model))
    head = over_seeds([result.seconds for result in rewards])
    return (
        f"One thread, a seed: PPO {function.mean:.0f} processor seconds for the function and "
        f"{model.mean:.0f} for the reward model, whose training took {head.mean:.0f} seconds."
    )


def _samples(by_function: Learned, by_model: Learned) -> list[str]:
    lines = ["First openings that nothing was trained on, seed 0:", ""]
    for i in range(min(SHOWN, len(by_function.before.texts))):
        prompt = by_function.before.texts[i][0]
        lines += [
            f"- **{prompt}**",
            f"  - before: {_one_line(by_function.before.texts[i][1])}",
            f"  - paid by the function: {_one_line(by_function.after.texts[i][1])}",
            f"  - paid by the reward model: {_one_line(by_model.after.texts[i][1])}",
        ]
    return lines


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _numbers(runs: list[Learned]) -> list[dict[str, Any]]:
    plain = [asdict(learned) for learned in runs]
    for numbers in plain:
        del numbers["before"]["texts"], numbers["after"]["texts"]
    return plain


def _without_folder(result: RewardModelResult) -> dict[str, Any]:
    return {name: value for name, value in asdict(result).items() if not isinstance(value, Path)}
