"""Sentiment on real film reviews, from pretraining to PPO, judged by a classifier of other data.

pretrain   imdb reviews (unlabelled, and half A of the labelled films): openings
sft        openings and how their writers went on to the end of a sentence
reward     labels of sst2 sentences and of half A
PPO        on openings of unlabelled reviews, once per seed
judge      an n-gram classifier of half B; the reward model never saw those films
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf_gym.agents import PPO, PPOConfig
from rlhf_gym.core.data import read_records
from rlhf_gym.core.models import load_causal_lm, load_reward_model, load_tokenizer
from rlhf_gym.core.supervised.common import SUMMARY_FILE
from rlhf_gym.core.supervised.preference_data import encode, read_judgements
from rlhf_gym.core.supervised.pretrain import PretrainConfig, pretrain
from rlhf_gym.core.supervised.reward_evaluation import score_sequences
from rlhf_gym.core.supervised.reward_model import RewardModelConfig, train_reward_model
from rlhf_gym.core.supervised.sft import SFTConfig, sft
from rlhf_gym.envs.text import TextGenerationVectorEnv
from rlhf_gym.pipelines.studies.judge import NgramJudge
from rlhf_gym.pipelines.studies.results import Interval, StudyReport, over_seeds
from rlhf_gym.pipelines.studies.review_data import ReviewFiles, prepare
from rlhf_gym.pipelines.studies.writing import Writing, write
from rlhf_gym.rewards import KLPenalty, RewardModel

if TYPE_CHECKING:
    from rlhf_gym.pipelines.studies import StudyConfig

BUDGET = 32
"""Tokens of a response."""
CONTEXT = 160
KL_COEF = 0.1
TIMESTEPS = 150_000
SETTINGS = PPOConfig(learning_rate=1e-4, episodes_per_update=128)
HELD_OUT_PROMPTS = 1000


def run(config: StudyConfig) -> None:
    """Run what is missing, measure, publish."""
    folder = config.output / "reviews"
    files = prepare(config.data_folder, folder / "data")
    _supervised(files, folder)
    judge, judge_accuracy = _judge(files)
    report = StudyReport(
        "Sentiment on real film reviews",
        ["", "reference", f"PPO, {config.seeds} seeds"],
    )
    accuracy = {
        "unseen reviews": _accuracy(folder / "reward", files.unseen_reviews),
        "unseen sentences": _accuracy(folder / "reward", files.unseen_sentences),
    }
    before = _measure(folder / "sft", files, judge)
    after = [_measure(_train(folder, files, seed), files, judge) for seed in range(config.seeds)]
    for name in before.numbers():
        report.add(
            name,
            f"{before.numbers()[name]:.3f}",
            over_seeds([each.numbers()[name] for each in after]),
        )
    for name, right in accuracy.items():
        report.notes.append(f"Reward model, accuracy on {name}: {right}.")
    report.notes.append(
        f"The judge itself, accuracy on unseen reviews: {judge_accuracy:.3f}. "
        f"Prompts: {HELD_OUT_PROMPTS} openings of reviews that no stage has seen."
    )
    report.notes += ["", "Samples (seed 0), reference first:", ""]
    for old, new in list(zip(before.writing.texts, after[0].writing.texts, strict=True))[:8]:
        report.notes += [f"- before: {old}", f"- after: {new}"]
    report.raw = {
        "before": before.numbers(),
        "after": [each.numbers() for each in after],
        "reward_model_accuracy": accuracy,
        "judge_accuracy": judge_accuracy,
    }
    report.publish(folder)


@dataclass(frozen=True)
class _Measured:
    """One policy's responses to unseen openings, and what is thought of them."""

    writing: Writing
    positive: float
    score: float

    def numbers(self) -> dict[str, float]:
        """Name -> value, in the order of the table."""
        return {
            "positive continuations, by the judge": self.positive,
            "reward model's score": self.score,
            "KL to the reference, nats": self.writing.kl,
            "perplexity under the reference": self.writing.perplexity,
            "distinct 2-grams": self.writing.distinct_2,
            "response length, tokens": self.writing.length,
            "ended by themselves": self.writing.stopped,
        }


def _supervised(files: ReviewFiles, folder: Path) -> None:
    if not (folder / "lm" / SUMMARY_FILE).exists():
        pretrain(
            PretrainConfig(
                corpus=(str(files.corpus),),
                output=str(folder / "lm"),
                size="small",
                vocab_size=4096,
                context=CONTEXT,
                epochs=2,
                batch_size=16,
                learning_rate=2e-3,
            )
        )
    if not (folder / "sft" / SUMMARY_FILE).exists():
        sft(
            SFTConfig(
                model=str(folder / "lm"),
                data=(str(files.demonstrations),),
                output=str(folder / "sft"),
                epochs=3,
                learning_rate=5e-4,
            )
        )
    if not (folder / "reward" / SUMMARY_FILE).exists():
        train_reward_model(
            RewardModelConfig(
                model=str(folder / "lm"),
                data=(str(files.labelled),),
                output=str(folder / "reward"),
                normalise_on=str(files.demonstrations),
                context=CONTEXT,
                epochs=2,
                learning_rate=5e-4,
            )
        )


def _judge(files: ReviewFiles) -> tuple[NgramJudge, float]:
    judge = NgramJudge().fit(*_texts_and_labels(files.judge))
    return judge, judge.accuracy(*_texts_and_labels(files.unseen_reviews))


def _texts_and_labels(path: Path) -> tuple[list[str], list[int]]:
    records = list(read_records(path))
    return [record["text"] for record in records], [int(record["label"]) for record in records]


def _accuracy(folder: Path, path: Path) -> Interval:
    """Share of labelled texts that the reward model, read as a classifier, gets right.

    It was trained to say sigmoid(score) = P(positive) and normalised afterwards; the summary of its
    training knows the scale, so the decision is at the score that was 0 before.
    """
    result = json.loads((folder / SUMMARY_FILE).read_text())["result"]
    tokenizer = load_tokenizer(folder)
    judgements = read_judgements(path)
    examples = encode(judgements, tokenizer, max_tokens=CONTEXT)
    sequences = [example.sequences[0] for example in examples]
    scores = score_sequences(load_reward_model(folder), sequences, tokenizer.pad_token_id)
    positive = scores * result["score_std"] + result["score_mean"] > 0
    right = positive == torch.tensor([judgement.value > 0.5 for judgement in judgements])
    return over_seeds(right.double().tolist(), resamples=2000)


def _train(folder: Path, files: ReviewFiles, seed: int) -> Path:
    """PPO against the reward model, once per seed; a finished seed is not run again."""
    output = folder / "ppo" / f"seed-{seed}"
    if (output / "policy").exists():
        return output / "policy"
    reference, tokenizer = load_causal_lm(folder / "sft"), load_tokenizer(folder / "sft")
    env = TextGenerationVectorEnv(
        str(files.prompts),
        tokenizer,
        reward=RewardModel(folder / "reward") - KLPenalty(reference, KL_COEF),
        num_envs=64,
        max_response_tokens=BUDGET,
    )
    agent = PPO("LMPolicy", env, SETTINGS, seed=seed, tensorboard_log=str(output))
    agent.learn(TIMESTEPS, progress_bar=True)
    return Path(agent.policy.save_pretrained(output / "policy", tokenizer))


def _measure(policy: Path, files: ReviewFiles, judge: NgramJudge) -> _Measured:
    folder = files.corpus.parents[1]
    prompts = _prompts(files.held_out_prompts)
    writing = write(
        load_causal_lm(policy),
        load_causal_lm(folder / "sft"),
        load_tokenizer(folder / "sft"),
        prompts,
        max_new_tokens=BUDGET,
    )
    positive = float((judge.probability(writing.responses) > 0.5).double().mean())
    score = float(RewardModel(folder / "reward").scores(writing.episodes).mean())
    return _Measured(writing, positive, score)


def _prompts(path: Path) -> Sequence[str]:
    records: list[dict[str, Any]] = list(read_records(path))
    return [record["prompt"] for record in records[:HELD_OUT_PROMPTS]]
