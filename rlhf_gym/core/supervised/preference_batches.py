"""Tokenised judgements as batches, and the log-probability of what was judged.

A batch is one flat set of sequences, whatever kinds of judgement it holds: the model runs once, and
the likelihoods pick its scores by row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlhf_gym.core.likelihoods import (
    Noise,
    bernoulli,
    bradley_terry,
    log_normal,
    plackett_luce,
    regression,
)
from rlhf_gym.core.supervised.preference_data import Example, Judgement


class Targets(NamedTuple):
    """What was judged, as rows of a flat set of scores.

    Judgements are in the order of `judgement_log_probs`: comparisons, then thumbs, then ratings.

    Attributes:
        rankings: rows of each comparison's responses, best first, -1 behind the last, shape
            (comparisons, responses).
        ties: True where a comparison's responses were judged equal, shape (comparisons,).
        thumbs: row of each thumb's response, shape (thumbs,).
        labels: 1 up, 0 down, shape (thumbs,).
        rated: row of each rating's response, shape (ratings,).
        ratings: shape (ratings,).
        raters: number of who judged, shape (judgements,).
        weights: how much each judgement counts, shape (judgements,).
    """

    rankings: Tensor
    ties: Tensor
    thumbs: Tensor
    labels: Tensor
    rated: Tensor
    ratings: Tensor
    raters: Tensor
    weights: Tensor

    @property
    def decided(self) -> Tensor:
        """False for ties, shape (judgements,)."""
        others = torch.ones(len(self.thumbs) + len(self.rated), dtype=torch.bool)
        return torch.cat([~self.ties, others.to(self.ties.device)])


@dataclass(frozen=True)
class FeedbackCollator:
    """Makes a batch of examples, as wide as its longest sequence.

    Attributes:
        pad_id: fills rows on the right.
        raters: numbers of raters by name; without, nobody is told apart.
    """

    pad_id: int
    raters: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """The flat sequences, padded, and the fields of `Targets`.

        `input_ids`, `attention_mask`, and `response_mask`, True at tokens of the responses, each of
        shape (responses, longest).
        """
        sequences = [ids for example in examples for ids in example.sequences]
        input_ids, attention_mask = pad_right(sequences, self.pad_id)
        lengths = torch.tensor([n for example in examples for n in example.response_lengths])
        ends = attention_mask.sum(-1)
        places = torch.arange(input_ids.shape[1])
        response_mask = (places >= (ends - lengths)[:, None]) & (places < ends[:, None])
        targets = make_targets([example.judgement for example in examples], self.raters)
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "response_mask": response_mask,
            **targets._asdict(),
        }


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


_ORDER = {"comparison": 0, "thumbs": 1, "rating": 2}


def make_targets(
    judgements: Sequence[Judgement], raters: Mapping[str, int] | None = None
) -> Targets:
    """What was judged, their responses being numbered in order.

    Args:
        judgements: in the order of their responses.
        raters: numbers of raters by name; None numbers everybody 0.
    """
    first = 0
    rankings: list[list[int]] = []
    rows: dict[str, list[int]] = {"thumbs": [], "rating": []}
    for judged in judgements:
        count = len(judged.responses)
        if judged.kind == "comparison":
            rankings.append(list(range(first, first + count)))
        else:
            rows[judged.kind].append(first)
        first += count
    longest = max(map(len, rankings), default=0)
    table = [[*row, *[-1] * (longest - len(row))] for row in rankings]
    ordered = sorted(judgements, key=lambda judged: _ORDER[judged.kind])
    values = {kind: [j.value for j in ordered if j.kind == kind] for kind in rows}
    numbers = [raters[judged.rater] if raters else 0 for judged in ordered]
    return Targets(
        torch.tensor(table, dtype=torch.long).reshape(len(table), longest),
        torch.tensor([j.tie for j in ordered if j.kind == "comparison"], dtype=torch.bool),
        torch.tensor(rows["thumbs"], dtype=torch.long),
        torch.tensor(values["thumbs"]),
        torch.tensor(rows["rating"], dtype=torch.long),
        torch.tensor(values["rating"]),
        torch.tensor(numbers, dtype=torch.long),
        torch.tensor([judged.weight for judged in ordered]),
    )


def targets_of(batch: Mapping[str, Any]) -> Targets:
    """The targets among a collated batch's tensors."""
    return Targets(**{name: batch[name] for name in Targets._fields})


def judgement_log_probs(scores: Tensor, targets: Targets, noise: Noise = 0.0) -> Tensor:
    """How likely the judgements are under a reward model.

    Args:
        scores: of the flat set of responses, shape (responses,).
        targets: what was judged.
        noise: probability that a rater answers at random; one for all or shape (judgements,).

    Returns:
        Nats, shape (judgements,): comparisons (Plackett-Luce; of a tie half of each order), then
        thumbs (Bernoulli), then ratings (normal, deviation 1).
    """
    sizes = [len(targets.rankings), len(targets.thumbs), len(targets.rated)]
    of_comparisons, of_thumbs, of_ratings = (
        torch.split(noise, sizes) if isinstance(noise, Tensor) and noise.ndim else [noise] * 3
    )
    parts = []
    if len(targets.rankings):
        ranked = scores[targets.rankings.clamp_min(0)]
        ordered = plackett_luce(ranked, targets.rankings >= 0, noise=of_comparisons)
        even = bradley_terry(ranked[:, 0], ranked[:, 1], 0.5, noise=of_comparisons)
        parts.append(torch.where(targets.ties, even, ordered))
    if len(targets.thumbs):
        parts.append(bernoulli(scores[targets.thumbs], targets.labels, noise=of_thumbs))
    if len(targets.rated):
        parts.append(regression(scores[targets.rated], targets.ratings, noise=of_ratings))
    return torch.cat(parts)


def random_log_probs(targets: Targets) -> Tensor:
    """How likely the same judgements are by a rater who answers at random.

    Args:
        targets: what was judged.

    Returns:
        Nats, shape (judgements,): one order of all, one thumb of two, a draw from all ratings.
    """
    count = (targets.rankings >= 0).sum(-1)
    orders = torch.lgamma(count + 1.0)  # log count!
    thumbs = torch.full_like(targets.labels, -math.log(2.0))
    return torch.cat([-orders, thumbs, log_normal(targets.ratings)])
