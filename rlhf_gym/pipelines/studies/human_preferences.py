"""A reward model of human preferences: how often it agrees with people it has not learned from.

Cross-validation: a language model is pretrained on four fifths of the dialogues, becomes a reward
model on their pairs, and judges the pairs of the last fifth. Five seeds hold every pair out once.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_gym.core.calibration import expected_calibration_error, reliability
from rlhf_gym.core.supervised.pretrain import PretrainConfig, pretrain
from rlhf_gym.core.supervised.reward_model import RewardModelConfig, train_reward_model
from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.preference_folds import (
    FOLDS,
    Fold,
    read_pairs,
    write_fold,
)
from rlhf_gym.pipelines.studies.preference_verdicts import (
    Floats,
    Verdicts,
    agreement,
    join,
    judge,
)
from rlhf_gym.pipelines.studies.results import StudyReport, over_seeds
from rlhf_gym.pipelines.studies.word_baseline import word_margins

if TYPE_CHECKING:
    from rlhf_gym.pipelines.studies import StudyConfig

CONTEXT = 192
"""Tokens; of longer dialogues the end is read."""
VOCAB_SIZE = 4096
SIZE = "tiny"


@dataclass(frozen=True)
class FoldResult:
    """One seed.

    Attributes:
        verdicts: on the fifth that was held out.
        word_margins: of the baseline that knows single words, shape (pairs,).
        perplexity: of unseen dialogues under the pretrained language model.
        seconds: processor time of both trainings.
    """

    verdicts: Verdicts
    word_margins: Floats
    perplexity: float
    seconds: float


def run(config: StudyConfig) -> None:
    """One split per seed, and one report over all that was held out."""
    folder = config.output / "human-preferences"
    pairs = read_pairs(config.data_folder)
    results = [
        learn(write_fold(pairs, folder / f"seed-{seed}", seed), seed)
        for seed in range(config.seeds)
    ]
    publish(results, folder)


def learn(fold: Fold, seed: int) -> FoldResult:
    """Pretrain on a split's dialogues, learn the reward from its pairs, judge what is held out.

    Args:
        fold: files of the split.
        seed: of weights and order.
    """
    stages = pretrain_config(fold, seed), reward_model_config(fold, seed)

    def compute() -> dict[str, Any]:
        started = time.process_time()
        base, learned = pretrain(stages[0]), train_reward_model(stages[1])
        seconds = time.process_time() - started
        verdicts = judge(learned.output, fold, learned.score_std, CONTEXT)
        return {
            "verdicts": verdicts.numbers(),
            "perplexity": base.held_out_perplexity,
            "seconds": seconds,
        }

    settings = {"stages": [asdict(stage) for stage in stages]}
    found = kept(fold.folder / "verdicts.json", settings, compute)
    verdicts = Verdicts.of(fold.held_out_records, found["verdicts"])
    words = word_margins(fold.train_records, fold.held_out_records)
    return FoldResult(verdicts, words, found["perplexity"], found["seconds"])


def pretrain_config(fold: Fold, seed: int) -> PretrainConfig:
    """A small language model of dialogues."""
    return PretrainConfig(
        corpus=(str(fold.texts),),
        output=str(fold.folder / "language-model"),
        size=SIZE,
        vocab_size=VOCAB_SIZE,
        context=CONTEXT,
        max_steps=300,  # half a pass, for time
        batch_size=16,
        learning_rate=3e-3,
        samples=8,
        seed=seed,
        resume=False,
        progress=False,
        device="cpu",
    )


def reward_model_config(fold: Fold, seed: int) -> RewardModelConfig:
    """A head on that language model, trained on pairs."""
    return RewardModelConfig(
        data=(str(fold.train),),
        held_out_data=(str(fold.held_out),),
        model=str(fold.folder / "language-model"),
        output=str(fold.folder / "reward-model"),
        context=CONTEXT,
        validation=0,  # no epoch to choose: from the second on, single pairs are memorised
        epochs=1,
        batch_size=32,
        learning_rate=1e-3,
        seed=seed,
        resume=False,
        progress=False,
        device="cpu",
    )


def publish(results: list[FoldResult], folder: Path) -> None:
    """The report: accuracy by subset, over seeds, and how far probabilities can be trusted."""
    everything = join([result.verdicts for result in results])
    report = StudyReport(
        "Reward models of human preferences (hh_rlhf), pairs that were not learned from",
        ["subset", "pairs", "reward model", "single words", "longer wins"],
    )
    by_words = agreement(np.concatenate([result.word_margins for result in results]))
    rows: dict[str, Any] = {}
    for subset in (*sorted({pair["subset"] for pair in everything.pairs}), None):
        count = sum(subset in (None, pair["subset"]) for pair in everything.pairs)
        ours = everything.accuracy(everything.right, subset)
        longer = everything.accuracy(everything.longer, subset)
        name = subset or "all"
        words = everything.accuracy(by_words, subset)
        report.add(name, count, ours, words, longer)
        columns = {"accuracy": ours, "single_words": words, "longer_wins": longer}
        rows[name] = {"pairs": count} | {key: cell._asdict() for key, cell in columns.items()}
    shares = [float(result.verdicts.right.mean()) for result in results]
    word_shares = [float(agreement(result.word_margins).mean()) for result in results]
    ones = np.ones(len(everything.margins))
    error = expected_calibration_error(everything.probabilities, ones)
    seconds = [result.seconds for result in results]
    report.notes += [
        f"Accuracy over {len(results)} seeds, each with another fifth held out: "
        f"{over_seeds(shares)} ({', '.join(f'{share:.3f}' for share in shares)}). The intervals in "
        "the table are over dialogues. Single words: logistic regression on the words of the two "
        f"answers, {over_seeds(word_shares)}. Reward models thousands of times larger are commonly "
        "reported at 65 to 72 % on such comparisons, which are noisy.",
        "",
        f"Mean distance of confidence and accuracy: {error:.3f}. Rank correlation of the "
        f"differences in score and length: {everything.length_correlation:+.2f}.",
        "",
        "| confidence | right | pairs |",
        "|---|---|---|",
    ]
    bands = reliability(everything.probabilities, ones)
    report.notes += [f"| {b.confidence:.2f} | {b.accuracy:.2f} | {b.size} |" for b in bands]
    report.notes += [
        "",
        f"Language models of {VOCAB_SIZE} tokens, size {SIZE}, perplexity on unseen dialogues "
        f"{np.mean([result.perplexity for result in results]):.1f}; of a dialogue the last "
        f"{CONTEXT} tokens are read. Both trainings: {np.mean(seconds):.0f} processor "
        "seconds a seed.",
    ]
    report.raw = {
        "subsets": rows,
        "accuracy_by_seed": shares,
        "accuracy_over_seeds": over_seeds(shares),
        "single_words_by_seed": word_shares,
        "loss": float(np.logaddexp(0, -everything.margins).mean()),
        "chance_loss": math.log(2),
        "calibration_error": error,
        "reliability": [band._asdict() for band in bands],
        "length_correlation": everything.length_correlation,
        "perplexity": [result.perplexity for result in results],
        "seconds": seconds,
        "folds": FOLDS,
    }
    report.publish(folder)
