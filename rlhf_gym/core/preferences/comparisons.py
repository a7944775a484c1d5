"""Answers about segments as the data a reward ensemble is fitted on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.core.errors import InvalidData
from rlhf_gym.core.feedback import ControlSegment, Query, check_label
from rlhf_gym.core.labels import Best, Label, Ranking, Skip
from rlhf_gym.core.preferences.encoding import Encoding

Row = tuple[tuple[int, ...], float]
"""Segments from best to worst, and for two of them how far the first is preferred."""


class Comparisons:
    """Rankings of segments, each with the weight that every member of an ensemble gives it.

    A weight is drawn once, from a Poisson distribution of mean 1: the bootstrap for data that keep
    coming. A member has never seen the comparisons it gave a weight of 0, 1 / e of them, however
    often it was fitted: they are held out for it (Christiano et al. 2017, section 2.2.3, hold out
    as many).

    A ranking of two is a pair, a longer one stays whole, the best of several is a pair with each of
    the others, a tie of several one with half a preference for every two, and a skip is nothing.

    The weights depend on the seed and the order of the answers alone, so reading all answers again
    gives the same data.

    Args:
        encoding: of the environment's spaces.
        members: of the ensemble.
        seed: of the weights.

    Attributes:
        skipped: answers that said nothing.

    Source: Oza and Russell (2001), "Online Bagging and Boosting".
    """

    def __init__(self, encoding: Encoding, members: int, *, seed: int = 0) -> None:
        self.encoding = encoding
        self.members = members
        self.skipped = 0
        self._rng = np.random.default_rng(seed)
        self._observations: list[NDArray[Any]] = []
        self._actions: list[NDArray[Any]] = []
        self._rows: list[Row] = []
        self._weights: list[NDArray[np.int64]] = []

    def __len__(self) -> int:
        """Rankings."""
        return len(self._rows)

    def add(self, answers: Iterable[tuple[Query, Label]]) -> None:
        """Take answers in.

        Raises:
            InvalidData: a label that does not answer its query or compares nothing, a query about
                text, segments of other spaces or of another length than those before, numbers that
                are not finite. What came before the bad answer is kept.
        """
        for query, label in answers:
            check_label(query, label)
            segments = self._checked(query)
            rows = list(_rows_of(label, len(segments)))
            weights = self._rng.poisson(1.0, self.members)
            if not rows:
                self.skipped += 1
                continue
            start = len(self._actions)
            self._observations += [segment.observations for segment in segments]
            self._actions += [segment.actions for segment in segments]
            self._rows += [(tuple(start + i for i in items), liking) for items, liking in rows]
            self._weights += [weights] * len(rows)

    @property
    def observations(self) -> NDArray[Any]:
        """Of all segments, shape (segments, k, ...)."""
        return np.stack(self._observations)

    @property
    def actions(self) -> NDArray[Any]:
        """Of all segments, shape (segments, k, ...)."""
        return np.stack(self._actions)

    @property
    def items(self) -> Tensor:
        """Numbers of the segments from best to worst, -1 behind the last, shape (rows, longest)."""
        longest = max(len(items) for items, _ in self._rows)
        return torch.tensor([[*items, *[-1] * (longest - len(items))] for items, _ in self._rows])

    @property
    def preference(self) -> Tensor:
        """How far the first of a pair is preferred: 1, or 0.5 for a tie; shape (rows,)."""
        return torch.tensor([liking for _, liking in self._rows])

    @property
    def weights(self) -> Tensor:
        """How often each member sees each row, shape (members, rows)."""
        return torch.from_numpy(np.stack(self._weights, 1)).float()

    def _checked(self, query: Query) -> Sequence[ControlSegment]:
        segments = [segment for segment in query.segments if isinstance(segment, ControlSegment)]
        if len(segments) < len(query.segments):
            raise InvalidData("segments", "text", "no transitions", "Train a text reward model")
        length = len(self._actions[0]) if self._actions else len(segments[0])
        for segment in segments:
            for name, array, shape in (
                ("observations", segment.observations, self.encoding.observation_shape),
                ("actions", segment.actions, self.encoding.action_shape),
            ):
                if array.shape != (length, *shape):
                    raise InvalidData(
                        name,
                        array.shape,
                        f"not of shape {(length, *shape)}",
                        "Compare segments of one length and one environment",
                    )
                if not np.isfinite(array).all():
                    raise InvalidData(name, array, "not finite numbers", "Leave the query out")
        return segments


def _rows_of(label: Label, count: int) -> Iterable[Row]:
    match label:
        case Skip():
            return []
        case Ranking(_, tie=True):
            return [(pair, 0.5) for pair in combinations(range(count), 2)]
        case Ranking(order):
            return [(order, 1.0)]
        case Best(index):
            return [((index, other), 1.0) for other in range(count) if other != index]
    raise InvalidData("label", label, "it compares nothing", "Ask for a ranking or the best")
