"""What a reward model says about pairs that people compared and it has not learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.calibration import Estimate, accuracy_interval, spearman
from rlhf_gym.pipelines.studies.preference_folds import Fold, Record

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Verdicts:
    """A reward model's answers on pairs it has not learned from.

    Attributes:
        pairs: what was judged.
        margins: log-odds that the chosen answer is better; positive agrees with the rater.
        longer: 1 where the chosen answer has more tokens, 0.5 where both have as many.
        scores: of chosen and rejected answers, normalised, shape (pairs, 2).
        lengths: their tokens, shape (pairs, 2).
    """

    pairs: list[Record]
    margins: Floats
    longer: Floats
    scores: Floats
    lengths: Floats

    @classmethod
    def of(cls, pairs: Sequence[Record], numbers: Mapping[str, list[Any]]) -> Verdicts:
        """What `numbers` gave for these pairs."""
        return cls(list(pairs), **{name: np.array(rows) for name, rows in numbers.items()})

    def numbers(self) -> dict[str, list[Any]]:
        """All but the pairs, for a file."""
        return {
            "margins": self.margins.tolist(),
            "longer": self.longer.tolist(),
            "scores": self.scores.tolist(),
            "lengths": self.lengths.tolist(),
        }

    @property
    def right(self) -> Floats:
        """1 where the model agrees with the rater, 0.5 where it cannot decide."""
        return agreement(self.margins)

    @property
    def probabilities(self) -> Floats:
        """That the chosen answer is better."""
        probabilities: Floats = 1 / (1 + np.exp(-self.margins))
        return probabilities

    def accuracy(self, right: Floats, subset: str | None = None) -> Estimate:
        """Share of agreement with its interval over dialogues; of one subset if it is named."""
        rows = [i for i, pair in enumerate(self.pairs) if subset in (None, pair["subset"])]
        groups = [self.pairs[i]["group"] for i in rows]
        return accuracy_interval(right[rows], groups)

    @property
    def length_correlation(self) -> float:
        """Rank correlation of the differences in score and in length."""
        return spearman(np.subtract(*self.scores.T), np.subtract(*self.lengths.T))


def agreement(margins: Floats) -> Floats:
    """1 where log-odds agree with the rater, 0.5 where they are even, 0 elsewhere."""
    right: Floats = (1 + np.sign(margins)) / 2
    return right


def judge(folder: Path, fold: Fold, score_std: float, context: int) -> Verdicts:
    """Score a fold's held-out pairs.

    Args:
        folder: of the reward model.
        fold: whose pairs.
        score_std: what turns a difference of normalised scores into log-odds.
        context: tokens that the reward model was trained on at most.
    """
    from rlhf_gym.core.models import load_reward_model, load_tokenizer
    from rlhf_gym.core.supervised.preference_data import encode
    from rlhf_gym.core.supervised.preference_records import read_judgements
    from rlhf_gym.core.supervised.reward_evaluation import score_sequences

    tokenizer = load_tokenizer(folder)
    examples = encode(read_judgements(fold.held_out), tokenizer, context)
    sequences = [ids for example in examples for ids in example.sequences]
    scores = score_sequences(load_reward_model(folder), sequences, int(tokenizer.pad_token_id))
    both = scores.double().numpy().reshape(-1, 2)
    lengths = np.array([example.response_lengths for example in examples], dtype=np.float64)
    return Verdicts(
        pairs=list(fold.held_out_records),
        margins=score_std * (both[:, 0] - both[:, 1]),
        longer=(1 + np.sign(lengths[:, 0] - lengths[:, 1])) / 2,
        scores=both,
        lengths=lengths,
    )


def join(parts: Sequence[Verdicts]) -> Verdicts:
    """All verdicts as one."""
    return Verdicts(
        pairs=[pair for part in parts for pair in part.pairs],
        margins=np.concatenate([part.margins for part in parts]),
        longer=np.concatenate([part.longer for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
    )
