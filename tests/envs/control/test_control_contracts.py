"""What every registered control task keeps to, found by the registry."""

import copy
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from rlhf_gym.core.errors import EpisodeEnded, InvalidAction
from rlhf_gym.envs.registration import CONTROL_ENVIRONMENTS

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED
VARIANTS = [(env_id, {}) for env_id in CONTROL_ENVIRONMENTS] + [
    ("rlhf_gym/Pizza-v0", {"continuous": True, "taste": "spicy"}),
]
STEPS = 450
"""Enough for some episodes of each task, acting at random."""
ROWS = 5

every_variant = pytest.mark.parametrize(("env_id", "kwargs"), VARIANTS)
every_task = pytest.mark.parametrize("env_id", CONTROL_ENVIRONMENTS)


def some_actions(space: gym.Space, count: int) -> np.ndarray:
    """The same actions for every environment, shape (count, *space.shape)."""
    space.seed(11)
    return np.stack([np.asarray(space.sample()) for _ in range(count)])


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(np.array_equal(one[key], other[key]) for key in one)
    return bool(np.array_equal(one, other))


def row_of(observations: Any, row: int) -> Any:
    if isinstance(observations, dict):
        return {key: value[row] for key, value in observations.items()}
    return observations[row]


@every_variant
def test_both_checkers_are_content(env_id: str, kwargs: dict) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mode in (None, "rgb_array", "ansi"):
            env = gym.make(env_id, render_mode=mode, **kwargs).unwrapped
            check_env(env, skip_render_check=True)
            check_env_sb3(env)


@every_variant
@pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
def test_a_row_is_the_single_environment_with_its_seed(
    env_id: str, kwargs: dict, mode: AutoresetMode
) -> None:
    """Bit for bit: observations, rewards, gold, over autoresets, alone or in company."""
    env = gym.make_vec(env_id, num_envs=ROWS, autoreset_mode=mode, **kwargs)
    singles = [gym.make(env_id, **kwargs).unwrapped for _ in range(ROWS)]
    actions = some_actions(env.single_action_space, STEPS)
    observations, _ = env.reset(seed=70)
    for row, single in enumerate(singles):
        assert same(single.reset(seed=70 + row)[0], row_of(observations, row))
    begins = np.zeros(ROWS, dtype=bool)
    for step in range(STEPS // ROWS):
        chosen = actions[step * ROWS : (step + 1) * ROWS]
        observations, rewards, terminated, truncated, info = env.step(chosen)
        over = terminated | truncated
        for row, single in enumerate(singles):
            if begins[row]:
                assert same(single.reset()[0], row_of(observations, row))
                assert rewards[row] == 0
                continue
            seen, reward, ended, cut, single_info = single.step(chosen[row])
            assert (reward, ended, cut) == (rewards[row], terminated[row], truncated[row])
            assert single_info["gold_reward"] == info["gold_reward"][row]
            if over[row] and mode is SAME:
                assert same(seen, info["final_obs"][row])
                seen, _ = single.reset()
            assert same(seen, row_of(observations, row))
        begins = over if mode is NEXT else begins
        if mode is DISABLED and over.any():
            with pytest.raises(EpisodeEnded, match="reset"):
                env.step(chosen)
            observations, _ = env.reset(options={"reset_mask": over})
            for row in np.flatnonzero(over):
                assert same(singles[row].reset()[0], row_of(observations, row))


@every_variant
def test_the_single_environment_in_gymnasiums_own_vector_environment(
    env_id: str, kwargs: dict
) -> None:
    native = gym.make_vec(env_id, num_envs=3, **kwargs)
    looped = gym.make_vec(
        env_id, num_envs=3, vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": SAME}, **kwargs,
    )  # fmt: skip
    assert same(native.reset(seed=4)[0], looped.reset(seed=4)[0])
    for chosen in some_actions(native.single_action_space, 180).reshape(
        60, 3, *native.single_action_space.shape
    ):
        ours, theirs = native.step(chosen), looped.step(chosen)
        assert all(same(one, other) for one, other in zip(ours[:4], theirs[:4], strict=True))
    looped.close()


@every_variant
@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_statistics_of_gymnasium(env_id: str, kwargs: dict, mode: AutoresetMode) -> None:
    env = RecordEpisodeStatistics(
        gym.make_vec(env_id, num_envs=ROWS, autoreset_mode=mode, **kwargs)
    )
    env.reset(seed=0)
    returns, lengths, finished = np.zeros(ROWS), np.zeros(ROWS), 0
    begins = np.zeros(ROWS, dtype=bool)
    for chosen in some_actions(env.single_action_space, STEPS * ROWS).reshape(
        STEPS, ROWS, *env.single_action_space.shape
    ):
        _, rewards, terminated, truncated, info = env.step(chosen)
        returns += rewards
        lengths += ~begins
        over = terminated | truncated
        for row in np.flatnonzero(over):
            finished += 1
            assert info["episode"]["r"][row] == pytest.approx(returns[row], abs=1e-3)
            assert info["episode"]["l"][row] == lengths[row]
        returns[over], lengths[over] = 0, 0
        begins = over if mode is NEXT else begins
    assert finished >= ROWS


@every_variant
def test_gold_is_reported_in_every_step_and_is_not_the_reward(env_id: str, kwargs: dict) -> None:
    env = gym.make_vec(env_id, num_envs=64, **kwargs)
    env.reset(seed=0)
    rewards, golds = np.zeros(64), np.zeros(64)
    for chosen in some_actions(env.single_action_space, 64 * 40).reshape(
        40, 64, *env.single_action_space.shape
    ):
        _, reward, _, _, info = env.step(chosen)
        assert info["_gold_reward"].all()
        assert info["gold_reward"].dtype == np.float64
        assert np.isfinite(info["gold_reward"]).all()
        rewards, golds = rewards + reward, golds + info["gold_reward"]
    assert not np.allclose(rewards, golds)


@every_variant
def test_bad_actions_are_refused_before_anything_changes(env_id: str, kwargs: dict) -> None:
    env = gym.make_vec(env_id, num_envs=2, **kwargs)
    env.reset(seed=0)
    good = np.zeros((2, *env.single_action_space.shape), env.single_action_space.dtype)
    bad = [good[:1], np.stack([good, good]), good.astype(object), good + 100, good - 100]
    if good.dtype.kind == "f":
        bad += [good * np.nan, good + np.inf]
    else:
        bad += [good.astype(np.float32), good * 1.0 + np.nan]
    before = pickle.dumps(env.unwrapped.state_dict())
    for actions in bad:
        with pytest.raises(InvalidAction, match="actions"):
            env.step(actions)
    assert pickle.dumps(env.unwrapped.state_dict()) == before
    env.step(good)


@every_variant
def test_pictures_and_texts(env_id: str, kwargs: dict) -> None:
    pictures = gym.make(env_id, render_mode="rgb_array", **kwargs)
    texts = gym.make(env_id, render_mode="ansi", **kwargs)
    for env in (pictures, texts):
        env.reset(seed=0)
    first = pictures.render(), texts.render()
    for action in some_actions(pictures.action_space, 4):
        _, _, terminated, truncated, _ = pictures.step(action)
        texts.step(action)
        if terminated or truncated:  # Go, by an illegal move
            break
    last = pictures.render(), texts.render()
    for picture in (first[0], last[0]):
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert min(picture.shape[:2]) >= 200
        assert picture.std() > 5  # not blank
    assert first[0].shape == last[0].shape
    assert (first[0] != last[0]).any()
    assert isinstance(last[1], str)
    assert first[1] != last[1]
    assert np.array_equal(pictures.render(), last[0])  # the same state, the same picture


@every_variant
def test_copies_and_pickles_go_on_alike(env_id: str, kwargs: dict) -> None:
    env: VectorEnv = gym.make_vec(env_id, num_envs=3, **kwargs)
    env.reset(seed=1)
    actions = some_actions(env.single_action_space, 90).reshape(
        30, 3, *env.single_action_space.shape
    )
    for chosen in actions[:10]:
        env.step(chosen)
    fresh = gym.make_vec(env_id, num_envs=3, **kwargs)
    fresh.unwrapped.load_state_dict(pickle.loads(pickle.dumps(env.unwrapped.state_dict())))
    twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env)), fresh]
    for chosen in actions[10:]:
        expected = env.step(chosen)
        for twin in twins:
            found = twin.step(chosen)
            assert all(same(one, other) for one, other in zip(expected[:4], found[:4], strict=True))


@every_task
def test_observations_are_within_their_space(env_id: str) -> None:
    env = gym.make_vec(env_id, num_envs=ROWS)
    observations, _ = env.reset(seed=2)
    for chosen in some_actions(env.single_action_space, STEPS * ROWS).reshape(
        STEPS, ROWS, *env.single_action_space.shape
    ):
        assert env.observation_space.contains(observations)
        observations, *_ = env.step(chosen)
