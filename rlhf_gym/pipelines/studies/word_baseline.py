"""What single words give away about a preference: logistic regression on the words of two answers.

It knows neither the prompt nor the order of the words, and nothing that it has not read in the
pairs: what a reward model has to beat to be worth its language model.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from rlhf_gym.pipelines.studies.preference_folds import Record

WORD = re.compile(r"\w+|[^\w\s]|\n")
MIN_PAIRS = 3
"""A word counts if it stands on one side only of so many pairs."""
DECAY = 3.0
"""Half of this times the squared weights is added to the loss, in nats over all pairs."""


class Answer(NamedTuple):
    """What is seen of an answer: which words occur, and how many in all."""

    words: frozenset[str]
    length: int


class Bags(NamedTuple):
    """Pairs as sparse vectors, chosen minus rejected; flat, as `embedding_bag` takes them.

    Attributes:
        columns: int64, shape (entries,).
        values: shape (entries,).
        starts: where each pair begins, int64, shape (pairs,).
    """

    columns: Tensor
    values: Tensor
    starts: Tensor


def word_margins(train: Sequence[Record], held_out: Sequence[Record]) -> NDArray[np.float64]:
    """Learn from some pairs, judge others.

    Args:
        train: pairs with `chosen` and `rejected`.
        held_out: the same.

    Returns:
        Log-odds that the chosen answer is the better one, shape (held out pairs,); 0 where the
        answers differ in no known word and not in length.
    """
    seen = [_answers(pair) for pair in train]
    counts = Counter(word for first, second in seen for word in first.words ^ second.words)
    kept = sorted(word for word, count in counts.items() if count >= MIN_PAIRS)
    vocabulary = {word: column for column, word in enumerate(kept)}
    weights = _fit(_bags(seen, vocabulary), len(vocabulary) + 1)
    unseen = _bags([_answers(pair) for pair in held_out], vocabulary)
    margins: NDArray[np.float64] = _margins(weights, unseen).double().numpy()
    return margins


def _answers(pair: Record) -> tuple[Answer, Answer]:
    first, second = (WORD.findall(pair[side].lower()) for side in ("chosen", "rejected"))
    return Answer(frozenset(first), len(first)), Answer(frozenset(second), len(second))


def _bags(pairs: Sequence[tuple[Answer, Answer]], vocabulary: Mapping[str, int]) -> Bags:
    """Each differing word as +1 or -1, scaled to about one length; and the log-ratio of lengths."""
    columns: list[int] = []
    values: list[float] = []
    starts: list[int] = []
    for first, second in pairs:
        starts.append(len(columns))
        # Sorted, because the order of a set, and so of a sum, is another one in each process.
        differing = sorted(vocabulary[w] for w in first.words ^ second.words if w in vocabulary)
        ours = {vocabulary[w] for w in first.words - second.words if w in vocabulary}
        scale = 1 / math.sqrt(len(differing) + 1)
        columns += [*differing, len(vocabulary)]
        values += [scale if column in ours else -scale for column in differing]
        values.append(math.log((1 + first.length) / (1 + second.length)))
    return Bags(torch.tensor(columns), torch.tensor(values), torch.tensor(starts))


def _fit(bags: Bags, columns: int) -> Tensor:
    weights = torch.zeros(columns, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        nats = nn.functional.softplus(-_margins(weights, bags)).sum()
        mean = (nats + DECAY / 2 * weights.square().sum()) / len(bags.starts)
        mean.backward()  # type: ignore[no-untyped-call]
        return mean

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def _margins(weights: Tensor, bags: Bags) -> Tensor:
    table = weights[:, None]
    return embedding_bag(
        bags.columns, table, bags.starts, mode="sum", per_sample_weights=bags.values
    )[:, 0]
