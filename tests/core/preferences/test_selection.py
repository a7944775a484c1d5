import math

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences.selection import (
    Candidates,
    Selection,
    disagreement,
    entropy,
    first_is_better,
    k_center,
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_first_is_better_by_bradley_terry() -> None:
    # sigmoid(log 3) = 3 / 4
    returns = torch.tensor([[[math.log(3.0), 0.0], [1.0, 1.0]]])
    assert first_is_better(returns).tolist() == [pytest.approx([0.75, 0.5])]


def test_disagreement_is_the_deviation_of_the_members() -> None:
    # (0, 1): deviation 0.5; (0.2, 0.6): 0.2; alike: 0
    probabilities = torch.tensor([[0.0, 0.2, 0.7], [1.0, 0.6, 0.7]])
    assert disagreement(probabilities).tolist() == pytest.approx([0.5, 0.2, 0.0])


def test_entropy_of_the_mean() -> None:
    # Means 0.5 (log 2), 1 (0) and 0.25: -(0.25 log 0.25 + 0.75 log 0.75) = 0.562335
    probabilities = torch.tensor([[0.0, 1.0, 0.1], [1.0, 1.0, 0.4]])
    assert entropy(probabilities).tolist() == pytest.approx([math.log(2), 0.0, 0.562335])


def test_k_center_takes_what_is_farthest_from_all_chosen() -> None:
    # Mean 4: start at 3 (index 2). Then 10 is 7 away. Then 0 is 3 away from 3, 1 only 2.
    points = torch.tensor([[0.0], [1.0], [3.0], [10.0], [6.0]])
    assert k_center(points, 4).tolist() == [2, 3, 0, 4]


def test_k_center_keeps_away_from_what_was_asked() -> None:
    points = torch.tensor([[0.0], [5.0], [9.0]])
    # Asked at 10: the distances are 10, 5, 1. Then 5 is 5 from both, 9 is 1 from 10.
    assert k_center(points, 2, torch.tensor([[10.0]])).tolist() == [0, 1]


def test_k_center_never_repeats_itself() -> None:
    assert sorted(k_center(torch.zeros(4, 2), 4).tolist()) == [0, 1, 2, 3]


def candidates(asked: torch.Tensor | None = None) -> Candidates:
    probabilities = torch.tensor([[0.1, 0.9, 0.4, 0.5, 0.5], [0.9, 0.9, 0.6, 0.5, 0.1]])
    features = torch.tensor([[0.0], [50.0], [1.0], [100.0], [10.0]])
    return Candidates(probabilities, features, torch.empty(0) if asked is None else asked)


def test_methods_by_name() -> None:
    # Deviations 0.4, 0, 0.1, 0, 0.2; mean 0.3 of the last has less entropy than 0.5 of the first.
    assert Selection("disagreement").choose(candidates(), 2, generator()).tolist() == [0, 4]
    assert set(Selection("entropy").choose(candidates(), 3, generator()).tolist()) == {0, 2, 3}
    # Asked before at 0: the farthest is 100, then 50 (50 from both).
    known = candidates(asked=torch.zeros(1, 1))
    assert Selection("kcenter").choose(known, 2, generator()).tolist() == [3, 1]


def test_mixture_narrows_then_spreads() -> None:
    # Disagreement keeps 0 and 4 and 2 (3 of 5 at least: as many as wanted, or half); of those the
    # point nearest to their mean 3.67 is 1 (index 2), then 10 (index 4), then 0.
    chosen = Selection("disagreement+kcenter").choose(candidates(), 3, generator())
    assert chosen.tolist() == [2, 4, 0]


def test_uniform_is_its_generators() -> None:
    draws = [Selection("uniform").choose(candidates(), 4, generator()).tolist() for _ in range(2)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 4


def test_mistakes_are_named() -> None:
    with pytest.raises(InvalidArgument, match="no such method: best"):
        Selection("disagreement+best")
    with pytest.raises(InvalidArgument, match="labels=6: there are 5 pairs"):
        Selection("uniform").choose(candidates(), 6, generator())
