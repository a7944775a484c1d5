"""A real pretrained storyteller, paid for naming feelings: by a function, and by a reward model.

Part A pays what a plain Python function says. In part B nobody knows that function: a teacher who
errs in one of ten compares pairs of continuations by it, a reward model learns from the pairs, PPO
is paid by the reward model alone, and the function is only watched, as the gold score.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlhf_gym.pipelines.studies.results import Interval, StudyReport, over_seeds
from rlhf_gym.pipelines.studies.story_feedback import write_files
from rlhf_gym.pipelines.studies.story_task import StoryTask
from rlhf_gym.pipelines.studies.story_training import (
    FUNCTION_KL_COEF,
    MODEL_KL_COEF,
    NUM_ENVS,
    PPO_CONFIG,
    TOKENS,
    Learned,
    LearnedReward,
    learn,
    learn_reward,
)

if TYPE_CHECKING:
    from rlhf_gym.pipelines.studies import StudyConfig

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


def run(config: StudyConfig) -> None:
    """Both parts, once per seed, and one report."""
    folder = config.output / "stories"
    task = StoryTask.load(config.data_folder)
    files = write_files(task, folder)
    report = StudyReport("stories260k, paid for naming feelings", COLUMNS)

    by_function = [learn(task, folder, seed) for seed in range(config.seeds)]
    rewards = [learn_reward(files, seed) for seed in range(config.seeds)]
    by_model = [learn(task, folder, seed, reward) for seed, reward in enumerate(rewards)]
    for payer, runs in (("function", by_function), ("reward model", by_model)):
        for seed, learned in enumerate(runs):
            report.add(payer, seed, *_cells(learned))
    for name, runs in (("a function", by_function), ("a reward model", by_model)):
        report.notes += [_summary(name, runs), ""]
    report.notes += [*_accuracy_notes(rewards), ""]
    report.notes += [_seconds(by_function, by_model, rewards), ""]
    report.notes += _samples(by_function[0], by_model[0])
    report.raw = {
        "function": _numbers(by_function),
        "reward_model": _numbers(by_model),
        "reward_models": [_without_folder(reward) for reward in rewards],
        "settings": {
            "ppo": PPO_CONFIG,
            "tokens": TOKENS,
            "num_envs": NUM_ENVS,
            "function_kl_coef": FUNCTION_KL_COEF,
            "model_kl_coef": MODEL_KL_COEF,
        },
    }
    report.publish(folder)


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


def _accuracy_notes(rewards: list[LearnedReward]) -> list[str]:
    first = rewards[0]
    low, high = first.accuracy_interval
    return [
        "Reward models on pairs of unseen openings, labelled without mistakes, ties left out: "
        f"accuracy {over_seeds([reward.accuracy for reward in rewards])} over seeds; seed 0 "
        f"{first.accuracy:.3f} [{low:.3f}, {high:.3f}] on its {first.unseen_pairs} pairs, "
        f"after {first.train_pairs} to learn from; longer wins "
        f"{over_seeds([reward.longer_wins for reward in rewards])}."
    ]


def _seconds(
    by_function: list[Learned], by_model: list[Learned], rewards: list[LearnedReward]
) -> str:
    function, model, head = (
        over_seeds([one.seconds for one in runs]).mean for runs in (by_function, by_model, rewards)
    )
    return (
        f"Processor seconds a seed: PPO {function:.0f} for the function and {model:.0f} for the "
        f"reward model; pairs, labels and the reward model itself {head:.0f}."
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


def _without_folder(reward: LearnedReward) -> dict[str, Any]:
    numbers = asdict(reward)
    del numbers["folder"]
    return numbers
