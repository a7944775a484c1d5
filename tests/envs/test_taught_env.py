import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

import rlhf_gym  # noqa: F401
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences import Encoding, RewardEnsemble, SegmentReplay
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.taught import TaughtEnv, TaughtVecEnv, TaughtVectorEnv
from rlhf_gym.rewards.learned import GoldReward, LearnedReward

PIZZA = "rlhf_gym/Pizza-v0"
STEPS = 28
"""Of an episode."""


def vector(rows: int = 3, **kwargs: object) -> gym.vector.VectorEnv:
    return gym.make_vec(PIZZA, num_envs=rows, **kwargs)


def ensemble(env: gym.vector.VectorEnv) -> RewardEnsemble:
    return RewardEnsemble(Encoding(env.single_observation_space, env.single_action_space), 2)


def test_every_wrapper_pays_the_same() -> None:
    plain = vector()
    rule = LearnedReward(ensemble(plain), automated_weight=0.5)
    native = TaughtVectorEnv(vector(), rule)
    sb3 = TaughtVecEnv(GymnasiumVecEnv(vector()), rule)
    single = TaughtEnv(gym.make(PIZZA), rule)
    seen, _ = plain.reset(seed=0)
    native.reset(seed=0)
    sb3.seed(0)
    sb3.reset()
    single.reset(seed=0)
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        actions = rng.integers(13, size=3)
        following, automated, terminated, _, info = plain.step(actions)
        learned = rule.ensemble.rewards(seen, actions)  # of what was seen before the step
        expected = learned + 0.5 * automated
        _, paid, _, _, native_info = native.step(actions)
        np.testing.assert_allclose(paid, expected, rtol=1e-6)
        np.testing.assert_allclose(native_info["learned_reward"], learned, rtol=1e-6)
        np.testing.assert_array_equal(native_info["gold_reward"], info["gold_reward"])
        _, paid, dones, infos = sb3.step(actions)
        np.testing.assert_allclose(paid, expected, rtol=1e-5)
        assert infos[1]["fixed_reward"] == pytest.approx(0.5 * automated[1])
        assert infos[1]["gold_reward"] == pytest.approx(info["gold_reward"][1])
        _, alone, _, _, single_info = single.step(actions[0])
        assert alone == pytest.approx(expected[0], rel=1e-5)
        assert single_info["automated_reward"] == pytest.approx(automated[0])
        assert (dones == (step == STEPS - 1)).all()
        assert (dones == terminated).all()
        seen = following
    np.testing.assert_allclose(native_info["final_info"]["learned_reward"], learned, rtol=1e-6)
    assert native_info["final_info"]["_learned_reward"].all()


def test_every_wrapper_shows_both_ends_of_a_step() -> None:
    plain = vector()
    both = Encoding(plain.single_observation_space, plain.single_action_space, both_ends=True)
    rule = LearnedReward(RewardEnsemble(both, 2))
    native = TaughtVectorEnv(vector(), rule, encoding=both)
    sb3 = TaughtVecEnv(GymnasiumVecEnv(vector()), rule, encoding=both)
    single = TaughtEnv(gym.make(PIZZA), rule, encoding=both)
    seen, _ = plain.reset(seed=0)
    native.reset(seed=0)
    sb3.seed(0)
    sb3.reset()
    single.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(STEPS + 2):  # into the next episode
        actions = rng.integers(13, size=3)
        following, _, terminated, _, info = plain.step(actions)
        after = following.copy()
        if terminated.any():  # what the episode ended with, not what the next begins with
            after = np.stack(info["final_obs"])
        expected = rule.ensemble.rewards(np.concatenate([seen, after], -1), actions)
        np.testing.assert_allclose(native.step(actions)[1], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(sb3.step(actions)[1], expected, rtol=1e-4, atol=1e-6)
        if single is not None:
            assert single.step(actions[0])[1] == pytest.approx(expected[0], rel=1e-4, abs=1e-6)
            single = None if terminated[0] else single
        seen = following


def test_episodes_are_summed_and_kept() -> None:
    venv = vector(2)
    encoding = Encoding(venv.single_observation_space, venv.single_action_space)
    replay = SegmentReplay(encoding, 2, 1000)
    taught = TaughtVecEnv(
        GymnasiumVecEnv(venv), LearnedReward(ensemble(venv), automated_weight=1.0), replay=replay
    )
    taught.seed(3)
    taught.reset()
    rng = np.random.default_rng(0)
    totals = np.zeros((4, 2))
    for _ in range(STEPS):
        _, paid, _, infos = taught.step(rng.integers(13, size=2))
        names = ("learned_reward", "automated_reward", "gold_reward")
        totals += np.stack([paid, *([info[name] for info in infos] for name in names)])
    assert len(taught.episodes) == 2
    for row, episode in enumerate(taught.episodes):
        assert tuple(episode) == pytest.approx((*totals[:, row], STEPS), rel=1e-4)
    # The gold rewards kept for segments are those of the episodes.
    kept = replay.sample_up_to(2, STEPS, np.random.default_rng(0)).gold.sum(1)
    assert sorted(kept) == pytest.approx(sorted(totals[3]))


def test_sb3s_own_wrappers_work_around_it() -> None:
    taught = TaughtVecEnv(GymnasiumVecEnv(vector(2)), GoldReward())
    env = VecNormalize(VecMonitor(taught))
    env.reset()
    for _ in range(STEPS):
        _, _, _, infos = env.step(np.array([1, 4]))
    assert infos[0]["episode"]["r"] == pytest.approx(taught.episodes[0].gold, abs=1e-4)


def test_a_task_without_a_judge_has_its_own_reward_as_gold() -> None:
    env = gym.make_vec(
        "CartPole-v1",
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )
    taught = TaughtVecEnv(GymnasiumVecEnv(env), GoldReward())
    taught.reset()
    _, paid, _, infos = taught.step(np.array([0, 1]))
    assert paid.tolist() == [1.0, 1.0]
    assert infos[0]["gold_reward"] == 1.0


def test_the_dead_step_of_next_step_is_paid_nothing() -> None:
    taught = TaughtVectorEnv(
        vector(1, autoreset_mode=AutoresetMode.NEXT_STEP), LearnedReward(ensemble(vector(1)))
    )
    taught.reset(seed=0)
    paid = [taught.step(np.array([1]))[1][0] for _ in range(STEPS + 1)]
    assert paid[-1] == 0.0
    assert all(paid[:-1])


def test_pictures_are_kept_for_people() -> None:
    venv = vector(1, render_mode="rgb_array")
    encoding = Encoding(venv.single_observation_space, venv.single_action_space)
    replay = SegmentReplay(encoding, 1, 10)
    taught = TaughtVecEnv(GymnasiumVecEnv(venv), GoldReward(), replay=replay, record_frames=True)
    taught.reset()
    first = taught.get_images()[0]
    for action in (3, 4):
        taught.step(np.array([action]))
    segment = replay.sample_up_to(1, 2, np.random.default_rng(0)).segment(0)
    assert segment.frames is not None
    assert np.array_equal(segment.frames[0], first)  # what was seen before the first step
    blind = TaughtVecEnv(GymnasiumVecEnv(vector(1)), GoldReward(), record_frames=True)
    with pytest.raises(InvalidArgument, match="record_frames"):
        blind.reset()
