from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn
from torch.nn import functional

from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
from rlhf_gym.core.preferences import Encoding, RewardEnsemble
from rlhf_gym.core.preferences.stacked_layers import StackedEyes

IMAGES = Encoding(Box(0, 255, (48, 43, 3), np.uint8), Box(-1, 1, (2,)))


def transitions(encoding: Encoding, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    if encoding.is_image:
        seen = rng.integers(256, size=(count, *encoding.observation_shape)).astype(np.uint8)
        return seen, rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    return rng.uniform(-1, 1, (count, 2)).astype(np.float32), rng.integers(3, size=count)


def test_a_member_is_the_network_one_would_write_alone(encoding: Encoding) -> None:
    ensemble = RewardEnsemble(encoding, 3, (5, 4), seed=1)
    seen, done = encoding.tensors(*transitions(encoding, 7))
    rewards = ensemble(seen, done)
    assert rewards.shape == (3, 7)
    for member in range(3):
        layers: list[nn.Module] = []
        for stacked in ensemble.layers:
            linear = nn.Linear(stacked.weight.shape[1], stacked.weight.shape[2])
            linear.weight.data = stacked.weight[member].T.detach()
            linear.bias.data = stacked.bias[member, 0].detach()
            layers += [linear, nn.LeakyReLU()]
        alone = nn.Sequential(*layers[:-1])(torch.cat([seen, done], -1)).squeeze(-1)
        torch.testing.assert_close(rewards[member], alone)


def test_eyes_of_a_member_are_the_convolutions_one_would_write_alone() -> None:
    eyes = StackedEyes(2, 3, torch.Generator().manual_seed(0))
    images = torch.rand(4, 3, 48, 43)
    seen = eyes(images)
    assert seen.shape == (2, 4, StackedEyes.FEATURES)
    for member in range(2):
        alone = images
        for place, (_, stride) in enumerate(StackedEyes.SHAPES):
            alone = functional.leaky_relu(
                functional.conv2d(
                    alone, eyes.weights[place][member], eyes.biases[place][member], stride=stride
                )
            )
        alone = functional.adaptive_avg_pool2d(alone, 4).flatten(1)
        torch.testing.assert_close(seen[member], alone)


@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_paid_is_the_mean_of_normalised_members(kind: str, encoding: Encoding) -> None:
    used = IMAGES if kind == "images" else encoding
    ensemble = RewardEnsemble(used, 3, seed=0)
    recent = transitions(used, 50)
    ensemble.normalise(*recent)
    rewards = ensemble.judge(*recent)
    normalised = (rewards - ensemble.mean[:, None]) / ensemble.std[:, None]
    torch.testing.assert_close(normalised.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(1, correction=0), torch.ones(3))
    np.testing.assert_allclose(
        ensemble.rewards(*recent), normalised.mean(0).numpy(), rtol=1e-5, atol=1e-6
    )


def test_members_that_pay_the_same_for_all_are_not_blown_up(encoding: Encoding) -> None:
    ensemble = RewardEnsemble(encoding, 2)
    seen, done = transitions(encoding, 1)
    ensemble.normalise(np.repeat(seen, 9, 0), np.repeat(done, 9, 0))
    assert ensemble.std.tolist() == [1.0, 1.0]


def test_returns_are_sums_over_steps(encoding: Encoding) -> None:
    ensemble = RewardEnsemble(encoding, 2)
    seen, done = transitions(encoding, 6)
    returns = ensemble.returns(seen.reshape(2, 3, 2), done.reshape(2, 3))
    torch.testing.assert_close(returns, ensemble.judge(seen, done).reshape(2, 2, 3).sum(-1))
    assert returns.requires_grad


def test_beginnings_are_the_seeds_and_touch_no_global_generator(encoding: Encoding) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (RewardEnsemble(encoding, 2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    steps = transitions(encoding, 3)
    assert torch.equal(first.judge(*steps), again.judge(*steps))
    assert not torch.equal(first.judge(*steps), other.judge(*steps))
    assert not torch.equal(first.judge(*steps)[0], first.judge(*steps)[1])  # members differ


@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_saved_and_loaded(kind: str, encoding: Encoding, tmp_path: Path) -> None:
    used = IMAGES if kind == "images" else encoding
    ensemble = RewardEnsemble(used, 2, (6,), seed=3)
    steps = transitions(used, 8)
    ensemble.normalise(*steps)
    loaded = RewardEnsemble.load(ensemble.save(tmp_path / "folder" / "reward.safetensors"), used)
    assert np.array_equal(loaded.rewards(*steps), ensemble.rewards(*steps))


def test_files_that_are_none(encoding: Encoding, tmp_path: Path) -> None:
    path = RewardEnsemble(encoding, 2).save(tmp_path / "reward.safetensors")
    with pytest.raises(InvalidCheckpoint, match="not a reward ensemble of this task"):
        RewardEnsemble.load(path, Encoding(Box(0, 1, (9,)), Discrete(2)))
    path.write_bytes(path.read_bytes()[:100])
    for wrong in (path, tmp_path / "missing"):
        with pytest.raises(InvalidCheckpoint, match="path"):
            RewardEnsemble.load(wrong, encoding)


def test_no_network(encoding: Encoding) -> None:
    with pytest.raises(InvalidArgument, match="members=0"):
        RewardEnsemble(encoding, 0)
    with pytest.raises(InvalidArgument, match="hidden"):
        RewardEnsemble(encoding, 2, (4, 0))
    with pytest.raises(InvalidArgument, match="too small"):
        RewardEnsemble(Encoding(Box(0, 255, (48, 42, 3), np.uint8), Discrete(2)), 2)
