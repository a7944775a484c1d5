"""Which pairs to ask about: pure functions of what the ensemble thinks of the candidates.

Sources: Christiano et al. (2017), section 2.2.4 (disagreement); Lee et al. (2021), PEBBLE, section
4.2, and B-Pref, section 4.2 (entropy, k-center and their mixtures).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences.selection_names import MethodName, methods_named


def first_is_better(returns: Tensor) -> Tensor:
    """Each member's probability that the first of a pair is better, by Bradley-Terry.

    Args:
        returns: of each segment, shape (members, pairs, 2).

    Returns:
        Shape (members, pairs).
    """
    return torch.sigmoid(returns[..., 0] - returns[..., 1])


def disagreement(probabilities: Tensor) -> Tensor:
    """How far the members are apart: the standard deviation of their probabilities.

    Args:
        probabilities: that the first is better, shape (members, pairs).

    Returns:
        From 0 to 0.5, shape (pairs,).
    """
    return probabilities.std(0, correction=0)


def entropy(probabilities: Tensor) -> Tensor:
    """How open the ensemble holds a pair: the entropy of the members' mean probability.

    Args:
        probabilities: that the first is better, shape (members, pairs).

    Returns:
        Nats, from 0 to log 2, shape (pairs,).
    """
    first = probabilities.mean(0)
    nats: Tensor = torch.special.entr(first) + torch.special.entr(1 - first)
    return nats


def k_center(points: Tensor, count: int, centres: Tensor | None = None) -> Tensor:
    """Points that cover the others, greedily: always the one farthest from all chosen so far.

    Args:
        points: candidates, shape (candidates, features).
        count: how many to choose, at most as many as there are.
        centres: what is covered already, shape (any, features); without any, the first choice is
            the candidate nearest to the mean.

    Returns:
        Indices in the order of choice, shape (count,).

    Source: Sener and Savarese (2018), "Active Learning for Convolutional Neural Networks: A
    Core-Set Approach", algorithm 1.
    """
    chosen = torch.empty(count, dtype=torch.long)
    if centres is not None and len(centres):
        distance = torch.cdist(points, centres).amin(1)
    else:
        # The start below takes the largest: the nearest to the mean, and nothing is covered yet.
        distance = -(points - points.mean(0)).norm(dim=1)
    for place in range(count):
        index = distance.argmax()
        chosen[place] = index
        reach = (points - points[index]).norm(dim=1)
        uncovered = place == 0 and (centres is None or not len(centres))
        distance = reach if uncovered else torch.minimum(distance, reach)
        distance[chosen[: place + 1]] = -torch.inf  # copies of a point must not repeat an index
    return chosen


@dataclass(frozen=True)
class Candidates:
    """Pairs one might ask about.

    Attributes:
        probabilities: that the first is better, by member, shape (members, pairs).
        features: what a pair is about, shape (pairs, features).
        asked: the same of pairs that were asked about before, shape (any, features).
    """

    probabilities: Tensor
    features: Tensor
    asked: Tensor

    def __len__(self) -> int:
        """Pairs."""
        return self.probabilities.shape[1]

    def take(self, indices: Tensor) -> Candidates:
        """Some of the pairs, shape of `indices` (any,)."""
        return Candidates(self.probabilities[:, indices], self.features[indices], self.asked)


Method = Callable[[Candidates, int, torch.Generator], Tensor]


def _uniform(candidates: Candidates, count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(len(candidates), generator=generator)[:count]


def _most_disputed(candidates: Candidates, count: int, _: torch.Generator) -> Tensor:
    return disagreement(candidates.probabilities).topk(count).indices


def _most_open(candidates: Candidates, count: int, _: torch.Generator) -> Tensor:
    return entropy(candidates.probabilities).topk(count).indices


def _most_spread(candidates: Candidates, count: int, _: torch.Generator) -> Tensor:
    return k_center(candidates.features, count, candidates.asked)


METHODS: Mapping[MethodName, Method] = {
    "uniform": _uniform,
    "disagreement": _most_disputed,
    "entropy": _most_open,
    "kcenter": _most_spread,
}


class Selection:
    """A method by name, or several joined by `+`.

    In `disagreement+kcenter` the first halves the candidates (but leaves as many as are wanted),
    and the last chooses from what is left, as B-Pref does.

    Args:
        name: one of `METHODS`, or several joined by `+`.

    Raises:
        InvalidArgument: no such method.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._stages = [METHODS[stage] for stage in methods_named(name)]

    def choose(self, candidates: Candidates, count: int, generator: torch.Generator) -> Tensor:
        """Indices of the pairs to ask about, shape (count,).

        Raises:
            InvalidArgument: fewer candidates than are wanted.
        """
        if count > len(candidates):
            raise InvalidArgument(
                "labels",
                count,
                f"there are {len(candidates)} pairs to choose from",
                "Ask for fewer, or offer more candidates",
            )
        kept = torch.arange(len(candidates))
        for narrow in self._stages[:-1]:
            half = max(count, len(kept) // 2)
            kept = kept[narrow(candidates.take(kept), half, generator)]
        return kept[self._stages[-1](candidates.take(kept), count, generator)]
