"""Rewards that judge a step by what it led to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import nn

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences import Encoding, RewardEnsemble

PLACE = Box(-1.0, 1.0, (2,), np.float32)
BOTH = Encoding(PLACE, Box(-1.0, 1.0, (1,), np.float32), both_ends=True)


def walk(count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips whose steps begin where the one before ended."""
    rng = np.random.default_rng(0)
    places = rng.uniform(-1, 1, (count, steps + 1, 2)).astype(np.float32)
    seen = np.concatenate([places[:, :-1], places[:, 1:]], -1)
    return seen, rng.uniform(-1, 1, (count, steps, 1)).astype(np.float32)


def test_changes_by_hand() -> None:
    ensemble = RewardEnsemble(BOTH, 1, (4,), judges_outcomes=True)
    assert ensemble.outcomes is not None
    # Changes of the first number are 0.2 and -0.2, their deviation is 0.2; the second never moves.
    seen = np.float32([[0.1, 0.5, 0.3, 0.5], [0.3, 0.5, 0.1, 0.5]])
    ensemble.cover(seen)
    torch.testing.assert_close(ensemble.outcomes.deviation, torch.tensor([0.201, 0.001]))
    before, after = torch.tensor([[0.1, 0.5]]), torch.tensor([[0.3, 0.6]])
    # 0.2 / 0.201; 0.1 / 0.001 is cut off at 5; the action stands behind.
    expected = torch.tensor([[0.2 / 0.201, 5.0, -0.5]])
    torch.testing.assert_close(
        ensemble.outcomes(before, after, torch.tensor([[-0.5]])), expected, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("bins", [0, 6])
def test_a_clip_is_worth_the_sum_of_its_steps(bins: int) -> None:
    ensemble = RewardEnsemble(BOTH, 3, (8,), bins, judges_outcomes=True, seed=1)
    seen, done = walk(5, 7)
    ensemble.cover(seen)
    steps = ensemble.judge(seen.reshape(-1, 4), done.reshape(-1, 1)).reshape(3, 5, 7)
    torch.testing.assert_close(ensemble.returns(seen, done), steps.sum(-1), atol=1e-5, rtol=1e-5)


def test_the_line_is_what_layers_without_weight_leave() -> None:
    ensemble = RewardEnsemble(BOTH, 1, (8,), judges_outcomes=True)
    assert ensemble.outcomes is not None
    for layer in ensemble.layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    ensemble.outcomes.line.weight.data = torch.tensor([[[2.0], [0.0], [10.0]]])
    nn.init.zeros_(ensemble.outcomes.line.bias)
    # Before `cover` a deviation is 1: 2 * 0.2 for the change and 10 * 0.1 for the action.
    seen, done = np.float32([[0.1, 0.5, 0.3, 0.5]]), np.float32([[0.1]])
    assert ensemble.judge(seen, done).item() == pytest.approx(1.4)


def test_rewards_of_steps_are_shifted_and_kept_in_files(tmp_path: Path) -> None:
    ensemble = RewardEnsemble(BOTH, 2, (8,), 4, judges_outcomes=True, seed=3)
    seen, done = walk(1, 40)
    ensemble.cover(seen)
    ensemble.normalise(seen[0], done[0])
    paid = ensemble.rewards(seen[0], done[0])
    assert paid.mean() == pytest.approx(0.0, abs=1e-5)  # no potential: its mean is taken away
    loaded = RewardEnsemble.load(ensemble.save(tmp_path / "reward.safetensors"), BOTH)
    np.testing.assert_array_equal(loaded.rewards(seen[0], done[0]), paid)
    ensemble.begin_anew(5)
    assert ensemble.outcomes is not None
    assert ensemble.outcomes.deviation.tolist() == [1.0, 1.0]


def test_both_ends_are_needed_and_acts_are_in_it_already() -> None:
    one_end = Encoding(PLACE, BOTH.action_space)
    for encoding, acts in ((one_end, False), (BOTH, True)):
        with pytest.raises(InvalidArgument, match="judges_outcomes"):
            RewardEnsemble(encoding, judges_acts=acts, judges_outcomes=True)
