from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

import rlhf_gym  # noqa: F401
from rlhf_gym.agents.imitation import Demonstrations, record_demonstrations
from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.envs.sb3 import make_sb3_env


class Counter(gym.Env):
    """Row i's episodes last i + 1 steps; it sees the step's number and is paid it."""

    observation_space = gym.spaces.Box(0.0, 9.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(10)

    def __init__(self, length: int) -> None:
        self.length = length

    def reset(self, *, seed=None, options=None):
        self.step_number = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.step_number += 1
        ended = self.step_number >= self.length
        seen = np.full(1, self.step_number, np.float32)
        return seen, float(self.step_number), ended, False, {}


def counters() -> SyncVectorEnv:
    return SyncVectorEnv(
        [lambda length=length: Counter(length) for length in (1, 2, 3)],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )


def mirror(observations: np.ndarray) -> np.ndarray:
    return observations[:, 0].astype(np.int64)


def test_every_row_plays_as_many_episodes() -> None:
    """Rows of 1, 2 and 3 steps, two episodes each: 2 + 4 + 6 = 12 steps."""
    shown = record_demonstrations(counters(), mirror, 6)
    assert shown.lengths.tolist() == [1, 2, 3, 1, 2, 3]
    # Paid 1, 1 + 2, 1 + 2 + 3.
    assert shown.returns.tolist() == [1, 3, 6, 1, 3, 6]
    assert shown.observations[:, 0].tolist() == [0, 0, 1, 0, 1, 2] * 2
    assert (shown.actions == shown.observations[:, 0]).all()


def test_as_many_episodes_as_asked_for() -> None:
    shown = record_demonstrations(counters(), mirror, 4)
    assert shown.lengths.tolist() == [1, 2, 3, 1]
    last = shown.take(np.array([2]))
    assert last.actions.tolist() == [0, 1, 2]
    assert last.returns.tolist() == [6]


def test_an_agent_is_an_expert_too() -> None:
    env = make_sb3_env("rlhf_gym/Pizza-v0", 2)
    shown = record_demonstrations(env, PPO("MlpPolicy", env, n_steps=8, device="cpu"), 3, seed=1)
    assert len(shown) == 3
    assert shown.lengths.tolist() == [28] * 3


def test_a_masked_agent_is_asked_with_masks() -> None:
    env = make_sb3_env("rlhf_gym/Go-v0", 2)
    shown = record_demonstrations(env, MaskablePPO("MlpPolicy", env, device="cpu"), 2, seed=1)
    assert len(shown) == 2  # an action that is not allowed would have raised


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    shown = record_demonstrations(counters(), mirror, 3)
    read = Demonstrations.load(shown.save(tmp_path / "expert"))
    for name in ("observations", "actions", "lengths", "returns"):
        np.testing.assert_array_equal(getattr(read, name), getattr(shown, name))


def test_dictionaries_are_kept_entry_by_entry(tmp_path: Path) -> None:
    seen = {"place": np.arange(6.0).reshape(3, 2), "alarm": np.array([0, 1, 0])}
    shown = Demonstrations(seen, np.array([1, 0, 1]), np.array([2, 1]), np.zeros(2))
    read = Demonstrations.load(shown.save(tmp_path / "expert.npz"))
    assert isinstance(read.observations, dict)
    np.testing.assert_array_equal(read.observations["place"], seen["place"])
    taken = read.take(np.array([1]))
    assert isinstance(taken.observations, dict)
    np.testing.assert_array_equal(taken.observations["place"], [[4.0, 5.0]])


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    steps = np.zeros((3, 1))
    with pytest.raises(InvalidData, match="3 steps in all"):
        Demonstrations(steps, np.zeros(2), np.array([3]), np.zeros(1))
    with pytest.raises(InvalidData, match="no steps"):
        Demonstrations(steps[:0], np.zeros(0), np.array([0]), np.zeros(1))
    with pytest.raises(InvalidData, match="not finite"):
        Demonstrations(steps * np.nan, np.zeros(3), np.array([3]), np.zeros(1))
    with pytest.raises(InvalidArgument, match="episodes=0"):
        record_demonstrations(counters(), mirror, 0)
    (tmp_path / "other.npz").write_bytes(b"no archive")
    for name in ("other.npz", "missing.npz"):
        with pytest.raises(InvalidData, match="not readable"):
            Demonstrations.load(tmp_path / name)


def test_another_tasks_are_refused() -> None:
    shown = record_demonstrations(counters(), mirror, 3)
    other = Encoding(gym.spaces.Box(0.0, 9.0, (2,), np.float32), Counter.action_space)
    with pytest.raises(InvalidData, match=r"observations=.*not of Box"):
        shown.encoded(other)
    beyond = Demonstrations(shown.observations, shown.actions + 10, shown.lengths, shown.returns)
    with pytest.raises(InvalidData, match=r"actions=.*not of Discrete"):
        beyond.check(Counter.observation_space, Counter.action_space)
