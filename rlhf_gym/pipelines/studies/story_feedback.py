"""What the stages of the story study read and write, and how they are told to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlhf_gym.core.data import read_records, write_jsonl
from rlhf_gym.core.models import save_model
from rlhf_gym.core.supervised.reward_model import RewardModelConfig
from rlhf_gym.pipelines.collect import CollectConfig
from rlhf_gym.pipelines.environment import EnvironmentConfig
from rlhf_gym.pipelines.studies.story_task import RESPONSE_TOKENS, StoryTask, feelings

ROUNDS = 4
"""Pairs of continuations per training opening."""
HELD_OUT_ROUNDS = 2
"""The same per held-out opening."""
MISTAKES = 0.1
"""Of the teacher called `mistake`."""


@dataclass(frozen=True)
class StoryFiles:
    """Where the stages find things.

    Attributes:
        folder: of the study.
        model: the storyteller with its PAD and its end, a Hugging Face directory.
        prompts: openings to train on, JSON lines.
        held_out: openings to judge by.
        counts: how many there are of either.
    """

    folder: Path
    model: Path
    prompts: Path
    held_out: Path
    counts: tuple[int, int]


def write_files(task: StoryTask, folder: Path) -> StoryFiles:
    """Write what `collect` and `reward-model` read.

    Args:
        task: the storyteller and the openings.
        folder: where to.
    """
    files = StoryFiles(
        folder=folder,
        model=folder / "model",
        prompts=folder / "openings.jsonl",
        held_out=folder / "unseen-openings.jsonl",
        counts=(len(task.prompts), len(task.held_out)),
    )
    save_model(task.model, task.tokenizer, files.model)
    write_jsonl(files.prompts, ({"prompt": prompt} for prompt in task.prompts))
    write_jsonl(files.held_out, ({"prompt": prompt} for prompt in task.held_out))
    return files


def feedback_config(files: StoryFiles, output: Path, *, held_out: bool, seed: int) -> CollectConfig:
    """Pairs of continuations, compared by a teacher who counts feelings.

    On held-out openings the teacher makes no mistakes, for it is not he who is to be judged.
    """
    count = files.counts[1] * HELD_OUT_ROUNDS if held_out else files.counts[0] * ROUNDS
    return CollectConfig(
        environment=EnvironmentConfig(
            model=str(files.model),
            prompts=str(files.held_out if held_out else files.prompts),
            reward=f"{feelings.__module__}:{feelings.__name__}",
            max_response_tokens=RESPONSE_TOKENS,
            num_envs=256,
        ),
        output=str(output),
        prompts=count,
        completions=2,
        labeler="oracle" if held_out else "mistake",
        seed=seed,
        progress=False,
    )


def leave_out_ties(pairs: Path, decided: Path) -> int:
    """Keep the pairs in which the teacher preferred one; most pairs name no feeling at all.

    Args:
        pairs: what `collect` wrote.
        decided: file of those that are kept.

    Returns:
        How many they are.
    """
    return write_jsonl(decided, (pair for pair in read_records(pairs) if not pair.get("tie")))


def reward_model_config(
    files: StoryFiles, pairs: Path, unseen: Path, output: Path, *, seed: int
) -> RewardModelConfig:
    """A head on the storyteller, trained on the teacher's pairs."""
    return RewardModelConfig(
        data=(str(pairs),),
        held_out_data=(str(unseen),),
        model=str(files.model),
        output=str(output),
        noise=MISTAKES,
        epochs=4,
        batch_size=16,
        learning_rate=1e-3,
        context=128,
        seed=seed,
        resume=False,
        progress=False,
        device="cpu",
    )
