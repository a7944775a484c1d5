"""What a reward model is worth on judgements it has never seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.core.calibration import (
    Estimate,
    ReliabilityBin,
    accuracy_interval,
    concordance,
    expected_calibration_error,
    length_correlation,
    reliability,
    spearman,
)
from rlhf_gym.core.likelihoods import Noise
from rlhf_gym.core.reward_head import score_ids
from rlhf_gym.core.supervised.preference_batches import (
    Targets,
    judgement_log_probs,
    make_targets,
    pad_right,
)
from rlhf_gym.core.supervised.preference_data import Example
from rlhf_gym.core.supervised.preference_noise import NO_NOISE, AnswerNoise

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Floats = NDArray[np.float64]

MAX_TOKENS = 1 << 12
"""Most tokens, padding included, of one forward pass; with more, a CPU waits for its memory."""


@dataclass(frozen=True)
class RewardMetrics:
    """Held-out quality of a reward model; NaN where the data does not say.

    Attributes:
        judgements: how many were judged.
        loss: mean negative log-probability of a judgement, in nats (0.693 a pair is chance).
        accuracy: share of right decisions: each ordered pair of a comparison, each thumb. Ties in
            the scores count half, judgements "equally good" not at all.
        accuracy_low: lower end of its 95 % interval, which counts prompts, not pairs.
        accuracy_high: upper end.
        decisions: how many decisions there were.
        calibration_error: mean distance between the confidence of a decision and its accuracy.
        length_correlation: rank correlation of score and response length in tokens.
        longer_wins: accuracy on the same pairs of "the longer response is better".
        rating_concordance: share of differently rated pairs that the scores order alike.
        rating_correlation: rank correlation of scores and ratings.
    """

    judgements: int
    loss: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    decisions: int
    calibration_error: float
    length_correlation: float
    longer_wins: float
    rating_concordance: float
    rating_correlation: float


@dataclass(frozen=True)
class Decisions:
    """The yes-or-no questions in a set of judgements, and how a reward model answers them.

    Attributes:
        margins: score of the better response over the worse, or of a thumb towards its label;
            positive is right, shape (decisions,).
        longer: 1 where the better response is the longer one, 0.5 equally long, NaN for a thumb.
        groups: prompt of each decision.
        judgements: number of the judgement that each belongs to, shape (decisions,).
        noise: probability that it was answered at random; one for all or shape (decisions,).
    """

    margins: Floats
    longer: Floats
    groups: list[str]
    judgements: NDArray[np.int64]
    noise: Floats | float = 0.0

    @property
    def accuracy(self) -> Estimate:
        """Share of right decisions with its interval over prompts."""
        return accuracy_interval((1 + np.sign(self.margins)) / 2, self.groups)

    @property
    def reliability(self) -> list[ReliabilityBin]:
        """Accuracy against confidence."""
        return reliability(self._probabilities, np.ones(len(self.margins)))

    @property
    def calibration_error(self) -> float:
        """Mean distance of the two."""
        return expected_calibration_error(self._probabilities, np.ones(len(self.margins)))

    @property
    def _probabilities(self) -> Floats:
        with np.errstate(over="ignore"):
            by_score: Floats = 1 / (1 + np.exp(-self.margins))
        return (1 - self.noise) * by_score + 0.5 * self.noise


@torch.no_grad()
def score_sequences(model: PreTrainedModel, sequences: Sequence[list[int]], pad_id: int) -> Tensor:
    """Score token sequences, those of like length together.

    Args:
        model: a sequence classifier with one output, in eval mode.
        sequences: ids without padding, at least one each.
        pad_id: fills rows.

    Returns:
        Float32 on the CPU, shape (sequences,), in the given order.
    """
    scores = torch.empty(len(sequences))
    lengths = np.array([len(ids) for ids in sequences])
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = order[start : start + max(1, MAX_TOKENS // int(lengths[order[start]]))]
        ids, mask = pad_right([sequences[row] for row in rows], pad_id)
        batch = score_ids(model, ids.to(model.device), mask.to(model.device))
        scores[torch.from_numpy(rows)] = batch.cpu()
        start += len(rows)
    return scores


def evaluate_reward_model(
    model: PreTrainedModel,
    examples: Sequence[Example],
    pad_id: int,
    noise: AnswerNoise = NO_NOISE,
) -> tuple[RewardMetrics, list[ReliabilityBin]]:
    """Judge a reward model by judgements that it was not trained on.

    Args:
        model: a sequence classifier with one output, in eval mode, its scores not yet normalised
            (probabilities are sigmoids of what it was trained to give).
        examples: the judgements.
        pad_id: fills rows.
        noise: of those who gave the judgements; loss and calibration reckon with it.

    Returns:
        The metrics, and accuracy against confidence in bands.
    """
    scores = score_sequences(model, [ids for e in examples for ids in e.sequences], pad_id)
    lengths = np.array([n for e in examples for n in e.response_lengths])
    targets = make_targets([example.judgement for example in examples], noise.numbers)
    shares = noise.of(targets.raters)
    found = decisions(scores.double().numpy(), lengths, examples, targets, shares)
    known = ~np.isnan(found.longer)
    rated = scores[targets.rated]
    metrics = RewardMetrics(
        judgements=len(examples),
        loss=float(-judgement_log_probs(scores, targets, shares).mean()) if examples else math.nan,
        accuracy=found.accuracy.value,
        accuracy_low=found.accuracy.low,
        accuracy_high=found.accuracy.high,
        decisions=len(found.margins),
        calibration_error=found.calibration_error,
        length_correlation=length_correlation(scores, lengths),
        longer_wins=float(found.longer[known].mean()) if known.any() else math.nan,
        rating_concordance=concordance(rated, targets.ratings),
        rating_correlation=spearman(rated, targets.ratings),
    )
    return metrics, found.reliability


def decisions(
    scores: Floats,
    lengths: NDArray[np.int64],
    examples: Sequence[Example],
    targets: Targets,
    noise: Noise = 0.0,
) -> Decisions:
    """Take comparisons apart into ordered pairs, and put thumbs beside them.

    Args:
        scores: of the flat set of responses, shape (responses,).
        lengths: their tokens, shape (responses,).
        examples: the judgements, whose responses are numbered in order.
        targets: of the same judgements.
        noise: of each judgement, in the order of the targets; one for all or shape (judgements,).
    """
    prompts = [e.judgement.group for e in examples for _ in e.sequences]
    owners = np.array([i for i, e in enumerate(examples) for _ in e.sequences], dtype=np.int64)
    rankings = targets.rankings[~targets.ties].numpy()
    places = np.arange(rankings.shape[1])
    above, below = np.nonzero(places[:, None] < places)
    better, worse = rankings[:, above].ravel(), rankings[:, below].ravel()
    # A short ranking has -1 behind its last: no response to compare with.
    better, worse = better[worse >= 0], worse[worse >= 0]
    thumbs = targets.thumbs.numpy()
    towards = 2 * targets.labels.double().numpy() - 1
    longer = (1 + np.sign(lengths[better] - lengths[worse])) / 2
    rows = np.concatenate([better, thumbs])
    shares: Floats | float = (
        noise if isinstance(noise, float | int) else _by_row(noise, targets)[rows]
    )
    return Decisions(
        np.concatenate([scores[better] - scores[worse], scores[thumbs] * towards]),
        np.concatenate([longer, np.full(len(thumbs), math.nan)]),
        [prompts[row] for row in rows],
        owners[rows],
        shares,
    )


def _by_row(values: Tensor, targets: Targets) -> Floats:
    """Values of comparisons and thumbs, at each of their responses' rows."""
    comparisons = len(targets.rankings)
    size = int(max([-1, *targets.rankings.flatten().tolist(), *targets.thumbs.tolist()])) + 1
    rows = torch.zeros(size, dtype=torch.float64)
    real = targets.rankings >= 0
    rows[targets.rankings[real]] = (
        values[:comparisons, None].double().expand_as(targets.rankings)[real]
    )
    rows[targets.thumbs] = values[comparisons : comparisons + len(targets.thumbs)].double()
    return np.asarray(rows.numpy(), dtype=np.float64)
