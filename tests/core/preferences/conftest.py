"""A task whose gold reward is one of its two observed numbers."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from rlhf_gym.core.preferences import Encoding, SegmentReplay


@pytest.fixture
def encoding() -> Encoding:
    return Encoding(Box(-1.0, 1.0, (2,), np.float32), Discrete(3))


@pytest.fixture
def replay(encoding: Encoding) -> SegmentReplay:
    """Four rows of 100 steps; episodes of row i take 5 + i steps; gold is the first number."""
    replay = SegmentReplay(encoding, num_envs=4, capacity=400)
    rng = np.random.default_rng(0)
    for step in range(100):
        seen = rng.uniform(-1, 1, (4, 2)).astype(np.float32)
        ended = (step + 1) % np.arange(5, 9) == 0
        replay.add(seen, rng.integers(3, size=4), seen[:, 0].astype(float), ended)
    return replay
