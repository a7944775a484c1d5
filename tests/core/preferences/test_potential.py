"""Rewards that judge a change: both ends of a step, a potential, soft bins."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.preferences import Encoding, RewardEnsemble, RewardLearnerConfig

BOTH = Encoding(Box(-1.0, 1.0, (2,), np.float32), Discrete(3), both_ends=True)


def walk(count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips whose steps begin where the one before ended."""
    rng = np.random.default_rng(0)
    places = rng.uniform(-1, 1, (count, steps + 1, 2)).astype(np.float32)
    seen = np.concatenate([places[:, :-1], places[:, 1:]], -1)
    return seen, rng.integers(3, size=(count, steps))


def test_both_ends_of_a_step_stand_side_by_side() -> None:
    before, after = np.float32([[0.1, 0.2]]), np.float32([[0.3, 0.4]])
    assert BOTH.observation_shape == (4,)
    np.testing.assert_array_equal(BOTH.of_steps(before, after), np.float32([[0.1, 0.2, 0.3, 0.4]]))
    one_end = Encoding(BOTH.observation_space, BOTH.action_space)
    assert one_end.of_steps(before, after) is before


@pytest.mark.parametrize("bins", [0, 6])
@pytest.mark.parametrize("judges_acts", [False, True])
def test_a_clip_is_worth_the_sum_of_its_steps(bins: int, judges_acts: bool) -> None:
    ensemble = RewardEnsemble(BOTH, 3, (8,), bins, judges_acts=judges_acts, seed=1)
    if ensemble.acts is not None:
        nn.init.normal_(ensemble.acts, generator=torch.Generator().manual_seed(0))
    seen, done = walk(5, 7)
    ensemble.cover(seen)
    steps = ensemble.judge(seen.reshape(-1, 4), done.reshape(-1)).reshape(3, 5, 7)
    torch.testing.assert_close(ensemble.returns(seen, done), steps.sum(-1), atol=1e-5, rtol=1e-5)


def test_going_round_in_circles_earns_nothing_even_normalised() -> None:
    ensemble = RewardEnsemble(BOTH, 2, (8,), seed=1)
    seen, done = walk(1, 6)
    seen[0, -1, 2:] = seen[0, 0, :2]  # it ends where it began
    ensemble.normalise(seen[0], done[0])
    paid = ensemble.rewards(seen[0], done[0])
    assert np.abs(paid).max() > 0.1
    assert paid.sum() == pytest.approx(0.0, abs=1e-5)


def test_acts_by_hand() -> None:
    encoding = Encoding(Box(0.0, 1.0, (1,), np.float32), Discrete(2), both_ends=True)
    ensemble = RewardEnsemble(encoding, 1, (4,), judges_acts=True)
    assert ensemble.acts is not None
    # Weights of (seen, act 0), (seen, act 1), (any, act 0), (any, act 1).
    ensemble.acts.data = torch.tensor([[10.0, 20.0, 1.0, 2.0]])
    # Nothing changes, so the potential says 0: act 1 at 0.5 is worth 0.5 * 20 + 2 = 12.
    seen = np.float32([[[0.5, 0.5]]])
    assert ensemble.returns(seen, np.array([[1]])).item() == pytest.approx(12.0)
    assert ensemble.judge(seen[0], np.array([1])).item() == pytest.approx(12.0)


def test_soft_bins_by_hand() -> None:
    encoding = Encoding(Box(0.0, 4.0, (1,), np.float32), Discrete(2))
    ensemble = RewardEnsemble(encoding, 1, (4,), bins=3)
    ensemble.cover(np.float32([[0.0], [4.0]]))
    # Three centres at 0, 2, 4, each bump as wide as the way between two of them; at 2 the distances
    # are -1, 0, 1 widths, and exp(-1 / 2) = 0.60653.
    shown = ensemble.numbers(torch.tensor([[2.0]]))
    torch.testing.assert_close(shown, torch.tensor([[0.60653, 1.0, 0.60653]]), atol=1e-4, rtol=0)
    # Ten widths beyond the range nothing is left: 20 is 8 widths above the last centre.
    assert float(ensemble.numbers(torch.tensor([[20.0]])).max()) < 1e-10


def test_begun_anew_is_another_untaught_network() -> None:
    ensemble, other = RewardEnsemble(BOTH, 2, (8,), 4, seed=0), RewardEnsemble(BOTH, 2, (8,), 4)
    ensemble.normalise(*(part[0] for part in walk(1, 9)))
    ensemble.begin_anew(5)
    assert ensemble.std.tolist() == [1.0, 1.0]
    assert not torch.equal(ensemble.layers[0].weight, other.layers[0].weight)


def test_saved_with_its_bins(tmp_path: Path) -> None:
    ensemble = RewardEnsemble(BOTH, 2, (8,), 4, judges_acts=True, seed=3)
    seen, done = walk(1, 9)
    ensemble.cover(seen)
    loaded = RewardEnsemble.load(ensemble.save(tmp_path / "reward.safetensors"), BOTH)
    np.testing.assert_array_equal(
        loaded.rewards(seen[0], done[0]), ensemble.rewards(seen[0], done[0])
    )


def test_mistakes_are_named() -> None:
    with pytest.raises(InvalidArgument, match="bins"):
        RewardEnsemble(BOTH, bins=1)
    with pytest.raises(InvalidArgument, match="both_ends"):
        Encoding(Box(0, 255, (48, 48, 3), np.uint8), Discrete(2), both_ends=True)
    one_end = Encoding(BOTH.observation_space, BOTH.action_space)
    with pytest.raises(InvalidArgument, match="judges_acts"):
        RewardEnsemble(one_end, judges_acts=True)
    with pytest.raises(InvalidArgument, match="judges"):
        RewardLearnerConfig(judges="wishes")  # type: ignore[arg-type]
    with pytest.raises(InvalidData, match="own encoding"):
        RewardEnsemble(BOTH).judge(np.zeros((3, 2), np.float32), np.zeros(3, np.int64))
