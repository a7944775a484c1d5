"""Tokenised judgements as batches, and the log-probability of what was judged.

A batch is one flat set of sequences, whatever kinds of judgement it holds: the model runs once, and
the likelihoods pick its scores by row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlhf_gym.core.likelihoods import bernoulli, bradley_terry, plackett_luce, regression
from rlhf_gym.core.supervised.preference_data import Example, Judgement


class Targets(NamedTuple):
    """What was judged, as rows of a flat set of scores.

    Attributes:
        rankings: rows of each comparison's responses, best first, -1 behind the last, shape
            (comparisons, responses).
        ties: True where a comparison's responses were judged equal, shape (comparisons,).
        thumbs: row of each thumb's response, shape (thumbs,).
        labels: 1 up, 0 down, shape (thumbs,).
        rated: row of each rating's response, shape (ratings,).
        ratings: shape (ratings,).
    """

    rankings: Tensor
    ties: Tensor
    thumbs: Tensor
    labels: Tensor
    rated: Tensor
    ratings: Tensor


@dataclass(frozen=True)
class FeedbackCollator:
    """Makes a batch of examples, as wide as its longest sequence.

    Attributes:
        pad_id: fills rows on the right.
    """

    pad_id: int

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` of the flat sequences, and the fields of `Targets`."""
        sequences = [ids for example in examples for ids in example.sequences]
        input_ids, attention_mask = pad_right(sequences, self.pad_id)
        targets = make_targets([example.judgement for example in examples])
        return {"input_ids": input_ids, "attention_mask": attention_mask, **targets._asdict()}


def pad_right(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask (1 at real tokens), int64, both of shape (sequences, longest)."""
    lengths = torch.tensor([len(ids) for ids in sequences])
    width = int(lengths.max())
    ids = torch.tensor([[*ids, *[pad_id] * (width - len(ids))] for ids in sequences])
    return ids, (torch.arange(width) < lengths[:, None]).long()


def cut_responses(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Cut some responses at a random token, as a budget does, so that their scores mean something.

    All responses of a judgement are cut at the same fraction of their length; one token at least
    stays, the EOS never does.

    Args:
        examples: what to choose from.
        share: of the examples to cut, from 0 to 1.
        seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    chosen, fractions = rng.random((2, len(examples)))
    return [
        _cut(example, float(fraction)) if draw < share else example
        for example, draw, fraction in zip(examples, chosen, fractions, strict=True)
    ]


def _cut(example: Example, fraction: float) -> Example:
    kept = tuple(max(1, math.ceil(fraction * (n - 1))) for n in example.response_lengths)
    sequences = tuple(
        ids[: len(ids) - n + k]
        for ids, n, k in zip(example.sequences, example.response_lengths, kept, strict=True)
    )
    return example._replace(sequences=sequences, response_lengths=kept)


def make_targets(judgements: Sequence[Judgement]) -> Targets:
    """What was judged, their responses being numbered in order."""
    first = 0
    rankings: list[list[int]] = []
    ties: list[bool] = []
    rows: dict[str, list[int]] = {"thumbs": [], "rating": []}
    values: dict[str, list[float]] = {"thumbs": [], "rating": []}
    for judged in judgements:
        count = len(judged.responses)
        if judged.kind == "comparison":
            rankings.append(list(range(first, first + count)))
            ties.append(judged.tie)
        else:
            rows[judged.kind].append(first)
            values[judged.kind].append(judged.value)
        first += count
    longest = max(map(len, rankings), default=0)
    table = [[*row, *[-1] * (longest - len(row))] for row in rankings]
    return Targets(
        torch.tensor(table, dtype=torch.long).reshape(len(table), longest),
        torch.tensor(ties, dtype=torch.bool),
        torch.tensor(rows["thumbs"], dtype=torch.long),
        torch.tensor(values["thumbs"]),
        torch.tensor(rows["rating"], dtype=torch.long),
        torch.tensor(values["rating"]),
    )


def targets_of(batch: Mapping[str, Any]) -> Targets:
    """The targets among a collated batch's tensors."""
    return Targets(**{name: batch[name] for name in Targets._fields})


def judgement_log_probs(scores: Tensor, targets: Targets, noise: float = 0.0) -> Tensor:
    """How likely the judgements are under a reward model.

    Args:
        scores: of the flat set of responses, shape (responses,).
        targets: what was judged.
        noise: probability that a rater answers at random.

    Returns:
        Nats, shape (judgements,): comparisons (Plackett-Luce; of a tie half of each order), then
        thumbs (Bernoulli), then ratings (normal, deviation 1).
    """
    parts = []
    if len(targets.rankings):
        ranked = scores[targets.rankings.clamp_min(0)]
        ordered = plackett_luce(ranked, targets.rankings >= 0, noise=noise)
        even = bradley_terry(ranked[:, 0], ranked[:, 1], 0.5, noise=noise)
        parts.append(torch.where(targets.ties, even, ordered))
    if len(targets.thumbs):
        parts.append(bernoulli(scores[targets.thumbs], targets.labels, noise=noise))
    if len(targets.rated):
        parts.append(regression(scores[targets.rated], targets.ratings))
    return torch.cat(parts)
