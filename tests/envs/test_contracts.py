"""Every registered task passes what Gymnasium and Stable-Baselines3 ask, without a warning."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from rlhf_gym.envs.registration import ENVIRONMENTS, TEXT_ENVIRONMENTS

TASKS = [env_id for env_id in TEXT_ENVIRONMENTS if env_id != "rlhf_gym/TextGeneration-v0"]
"""TextGeneration-v0 is nothing without the user's prompts; its own tests make some."""
HEADINGS = [
    "Description",
    "Action Space",
    "Observation Space",
    "Starting State",
    "Rewards",
    "Episode End",
    "Information",
    "Arguments",
    "References",
    "Version History",
]


@pytest.mark.parametrize("env_id", TASKS)
def test_both_checkers_are_content(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id).unwrapped)
        check_env_sb3(gym.make(env_id).unwrapped)


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_the_class_docstring_is_the_page(env_id: str) -> None:
    module, name = gym.spec(env_id).vector_entry_point.split(":")
    page = getattr(__import__(module, fromlist=[name]), name).__doc__
    found = [line.strip()[3:] for line in page.splitlines() if line.strip().startswith("## ")]
    assert found == HEADINGS


@pytest.mark.filterwarnings("ignore:the policy did not write")  # random actions come from none
@pytest.mark.parametrize("env_id", TASKS)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_statistics_of_gymnasium_agree_with_info(env_id: str, mode: AutoresetMode) -> None:
    env = RecordEpisodeStatistics(gym.make_vec(env_id, num_envs=8, autoreset_mode=mode))
    rules = env.unwrapped.rules
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    finished = 0
    for _ in range(2 * env.unwrapped.max_response_tokens):
        legal = rng.integers(0, rules.vocab_size, size=8)
        actions = np.where(legal == rules.pad_id, rules.stop_ids[0], legal)
        *_, info = env.step(actions)
        for row in np.flatnonzero(info.get("_episode", np.zeros(8, dtype=bool))):
            finished += 1
            assert info["episode"]["l"][row] == info["response_length"][row]
            paid = info["token_rewards"][row].sum()
            assert info["episode"]["r"][row] == pytest.approx(paid, abs=1e-4)
        if mode is AutoresetMode.DISABLED and not env.unwrapped.live.any():
            env.reset()
    assert finished >= 8


@pytest.mark.parametrize("env_id", TASKS)
def test_a_seed_gives_the_same_episode(env_id: str) -> None:
    env = gym.make(env_id)
    first, _ = env.reset(seed=7)
    again, _ = env.reset(seed=7)
    assert all(np.array_equal(first[key], again[key]) for key in first)
