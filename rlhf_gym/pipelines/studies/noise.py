"""Wrong labels: what rater noise in the likelihood is worth.

Pairs of sentences by the writer of `rlhf_gym/Sentiment-v0` are labelled by its oracle; then labels
are spoilt, a reward model learns from them, and pairs with right labels judge it. Twice:

- turned: 30 % of the labels say the opposite, at random;
- raters: one rater in four answers at random, and it is known who gave which label.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_gym.core.data import write_jsonl
from rlhf_gym.core.models import (
    load_causal_lm,
    load_reward_model,
    load_tokenizer,
    save_model,
)
from rlhf_gym.core.supervised.preference_noise import GRADUAL
from rlhf_gym.core.supervised.reward_model import RewardModelConfig, train_reward_model
from rlhf_gym.envs.sentiment.grammar import Writer
from rlhf_gym.envs.sentiment.oracle import sentiment
from rlhf_gym.envs.sentiment.rewording import reworded_openings
from rlhf_gym.envs.sentiment.task import REFERENCE, REWARD_MODEL
from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.results import Interval, StudyReport, over_seeds

if TYPE_CHECKING:
    from rlhf_gym.pipelines.studies import StudyConfig

TRAIN, HELD_OUT = 2000, 1000
"""Pairs to learn from and to be judged by."""
REWORDED = 200
"""Openings in other words, to see if the scores mind."""
TURNED = 0.3
RATERS = ("anna", "bela", "cleo", "coin")
"""The last one answers at random."""

METRICS = ("accuracy", "loss", "calibration_error")
BETTER = {"accuracy": 1.0, "loss": -1.0, "calibration_error": -1.0}
"""Whether more is better."""


@dataclass(frozen=True)
class Condition:
    """One training.

    Attributes:
        name: of the row.
        labels: which file of labels.
        noise: the reward-model stage's `--noise`.
    """

    name: str
    labels: str
    noise: str = "0"


CONDITIONS = (
    Condition("right labels, plain", "right"),
    Condition("30 % turned, plain", "turned"),
    Condition("30 % turned, share known", "turned", f"flipped={TURNED}"),
    Condition("one of four at random, plain", "raters"),
    Condition("one of four at random, noise by rater", "raters", "raters"),
)
RIGHT, PLAIN, KNOWN, CROWD, BY_RATER = (condition.name for condition in CONDITIONS)


def run(config: StudyConfig) -> None:
    """Every condition once per seed, and one report."""
    folder = config.output / "noise"
    cells = {
        condition.name: [cell(condition, folder, seed) for seed in config.seed_numbers]
        for condition in CONDITIONS
    }
    publish(cells, folder, config.seed_numbers)


def cell(condition: Condition, folder: Path, seed: int) -> dict[str, Any]:
    """One training: the held-out metrics by pairs with right labels, and what noise was found.

    Args:
        condition: labels and likelihood.
        folder: of the study.
        seed: of reviews, spoilt labels and training; seeds share nothing.
    """
    here, base = folder / f"seed-{seed}", write_base(folder)
    name = f"{condition.labels}-{condition.noise.partition('=')[0]}"
    stage = stage_config(condition, base, here, here / name, seed)

    def compute() -> dict[str, Any]:
        write_labels(here, seed)
        started = time.process_time()
        result = train_reward_model(stage)
        return {
            **{metric: getattr(result, metric) for metric in METRICS},
            "noise": reported(result.output, "noise"),
            "wording": reported(result.output, "wording"),
            "seconds": time.process_time() - started,
        }

    settings = {"stage": asdict(stage), "pairs": (TRAIN, HELD_OUT), "turned": TURNED}
    if condition.noise.startswith("flipped"):
        settings["gradual"] = GRADUAL
    return kept(here / f"{name}.json", settings, compute)


def write_base(folder: Path) -> Path:
    """A language model with features of opinion: the trunk of the packaged reward model.

    Large language models have such features; one this small has not, and would learn them from
    right labels alone, so that the study would be one of feature learning.
    """
    base = folder / "base"
    if not (base / "config.json").exists():
        model = load_causal_lm(REFERENCE)
        model.base_model.load_state_dict(load_reward_model(REWARD_MODEL).base_model.state_dict())
        save_model(model, load_tokenizer(REFERENCE), base)
    return base


def stage_config(
    condition: Condition, base: Path, data: Path, output: Path, seed: int
) -> RewardModelConfig:
    """The reward-model stage on one file of labels."""
    return RewardModelConfig(
        data=(str(data / f"{condition.labels}.jsonl"),),
        held_out_data=(str(data / "held-out.jsonl"),),
        paraphrases=str(data / "reworded.jsonl"),
        model=str(base),
        output=str(output),
        noise=condition.noise,
        context=64,
        epochs=2,
        batch_size=32,
        learning_rate=1e-3,
        seed=seed,
        resume=False,
        progress=False,
        device="cpu",
    )


def write_labels(folder: Path, seed: int) -> None:
    """The same pairs with right labels, with some turned, and from four raters; and other pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pairs = compared(TRAIN + HELD_OUT, seed)
    train, held_out = pairs[:TRAIN], pairs[TRAIN:]
    turned = rng.random(TRAIN) < TURNED
    raters = rng.integers(len(RATERS), size=TRAIN)
    wrong = (raters == len(RATERS) - 1) & (rng.random(TRAIN) < 0.5)
    names = [{"rater": RATERS[rater]} for rater in raters]
    write_jsonl(folder / "right.jsonl", train)
    write_jsonl(folder / "held-out.jsonl", held_out)
    write_jsonl(folder / "reworded.jsonl", reworded(held_out, seed))
    write_jsonl(folder / "turned.jsonl", map(turn, train, turned))
    write_jsonl(
        folder / "raters.jsonl",
        ({**turn(pair, bool(w)), **who} for pair, w, who in zip(train, wrong, names, strict=True)),
    )


def compared(count: int, seed: int) -> list[dict[str, Any]]:
    """A sentence of praise beside one of blame, `chosen` the one that the oracle likes better."""
    writer = Writer(random.Random(seed))
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    while len(pairs) < count:
        texts = [writer.sentence(polarity) for polarity in (1, -1)]
        worse, better = sorted(texts, key=sentiment)
        scores = [sentiment(better), sentiment(worse)]
        if scores[0] > scores[1]:
            pairs[better, worse] = {"chosen": better, "rejected": worse, "scores": scores}
    return list(pairs.values())


def reworded(pairs: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Pairs behind the same opening in two or three wordings."""
    groups = zip(pairs, reworded_openings(REWORDED, seed), strict=False)
    return [
        {
            "prompt": opening,
            "chosen": f" {pair['chosen']}",
            "rejected": f" {pair['rejected']}",
            "meaning": str(number),
        }
        for number, (pair, openings) in enumerate(groups)
        for opening in openings
    ]


def turn(pair: Mapping[str, Any], wrong: bool) -> dict[str, Any]:
    """A pair with its label as it is, or turned round."""
    if not wrong:
        return dict(pair)
    return {
        "chosen": pair["rejected"],
        "rejected": pair["chosen"],
        "scores": pair["scores"][::-1],
    }


def reported(output: Path, what: str) -> dict[str, float]:
    """What the stage's report says about its raters, or about wording."""
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    return dict(summary["report"][what])


def publish(
    cells: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path, seeds: Sequence[int]
) -> None:
    """The report: each condition's metrics, gains paired by seed, and what is recovered."""
    report = StudyReport(
        f"Wrong labels: reward models judged by {HELD_OUT} pairs with right labels, "
        f"seeds {', '.join(map(str, seeds))}",
        ["labels and likelihood", "accuracy", "loss, nats a pair", "calibration error"],
    )
    for name, found in cells.items():
        report.add(name, *(over_seeds([one[metric] for one in found]) for metric in METRICS))
    gains = {
        better: {metric: gain(cells[better], cells[plain], metric) for metric in METRICS}
        for better, plain in ((KNOWN, PLAIN), (BY_RATER, CROWD))
    }
    for name, by_metric in gains.items():
        words = ", ".join(f"{metric.replace('_', ' ')} {by_metric[metric]}" for metric in METRICS)
        report.notes += [f"Gain over plain Bradley-Terry, {name}, paired by seed: {words}.", ""]
    recovered = {metric: share_recovered(cells, metric) for metric in METRICS}
    words = ", ".join(f"{metric.replace('_', ' ')} {value}" for metric, value in recovered.items())
    report.notes += [
        f"Of what plain loses by the random rater, noise by rater recovers: {words}.",
        "",
    ]
    report.notes += [_noise_words(cells), "", _wording(cells), "", _seconds(cells)]
    report.raw = {"cells": cells, "gains": gains, "recovered": recovered}
    report.publish(folder)


def gain(
    better: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]], metric: str
) -> Interval:
    """How much better, seed by seed; positive is better whatever the metric."""
    pairs = zip(better, plain, strict=True)
    return over_seeds([BETTER[metric] * (b[metric] - p[metric]) for b, p in pairs])


def share_recovered(
    cells: Mapping[str, Sequence[Mapping[str, Any]]], metric: str, resamples: int = 10_000
) -> Interval:
    """(noise by rater - plain) / (right labels - plain), ratio of means over seeds.

    Source: percentile bootstrap over seeds, as `over_seeds`.
    """
    right, plain, ours = (
        np.array([one[metric] for one in cells[name]]) for name in (RIGHT, CROWD, BY_RATER)
    )
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(plain), size=(resamples, len(plain)))
    ratios = (ours - plain)[drawn].mean(-1) / (right - plain)[drawn].mean(-1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Interval(float((ours - plain).mean() / (right - plain).mean()), float(low), float(high))


def _noise_words(cells: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    found = {name: over_seeds([one["noise"][name] for one in cells[BY_RATER]]) for name in RATERS}
    words = ", ".join(f"{name} {share}" for name, share in found.items())
    return f"Share of random answers, as learned: {words}; in truth 0, 0, 0 and 1."


def _wording(cells: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    spread, flips = (
        {name: over_seeds([one["wording"][what] for one in cells[name]]) for name in (RIGHT, PLAIN)}
        for what in ("spread", "flips")
    )
    return (
        f"{REWORDED} pairs behind openings in other words: a score moves by {spread[RIGHT]} of the "
        f"deviation of all scores, and {flips[RIGHT]} of the decisions turn round, with right "
        f"labels; {spread[PLAIN]} and {flips[PLAIN]} with turned ones, plain."
    )


def _seconds(cells: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    seconds = [one["seconds"] for found in cells.values() for one in found]
    return f"{TRAIN} pairs to learn from; {np.mean(seconds):.0f} processor seconds a training."
