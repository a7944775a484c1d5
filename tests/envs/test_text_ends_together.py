"""Episodes that end together: who waits, what is paid when, in the three autoreset modes."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from rlhf_gym.core.errors import EpisodeEnded, InvalidReward

EOS = 2
A, B, C, D, E, F = range(4, 10)
MODES = list(AutoresetMode)


@pytest.mark.parametrize("mode", MODES)
def test_a_row_that_is_done_waits_and_all_are_paid_in_the_last_step(make_env, play, mode):
    env = make_env(ends="together", autoreset_mode=mode)
    env.reset()
    # Row 0 writes `d <eos>`, row 1 `d d d <eos>`: one word and three.
    steps = play(env, [[D, D], [EOS, D], [F, D], [F, EOS]])
    for _, rewards, terminated, truncated, info in steps[:3]:
        np.testing.assert_array_equal(rewards, [0, 0])
        assert not (terminated | truncated).any()
        assert "score" not in info
    _, rewards, terminated, truncated, info = steps[3]
    np.testing.assert_array_equal(rewards, [1, 3])
    np.testing.assert_array_equal(terminated, [True, True])
    assert not truncated.any()
    assert info["response_length"].tolist() == [2, 4]
    np.testing.assert_array_equal(info["token_rewards"], [[0, 1, 0, 0], [0, 0, 0, 3]])
    actives = [step[-1]["active"].tolist() for step in steps]
    assert actives == [[True, True], [True, True], [False, True], [False, True]]
    # What stood in the waiting row's actions was written nowhere.
    np.testing.assert_array_equal(steps[2][0]["input_ids"][0], [A, B, D, EOS, 0, 0])


def test_all_responses_are_scored_in_one_batch(make_env, play):
    batches = []

    def reward(prompts, responses):
        batches.append(len(responses))
        return [0.0] * len(responses)

    env = make_env(reward, ends="together")
    env.reset()
    play(env, [[EOS, D], [D, D], [D, EOS], [EOS, EOS]])
    assert batches == [2, 2]


@pytest.mark.parametrize("mode", MODES)
def test_what_comes_behind_the_end(make_env, play, mode):
    env = make_env(ends="together", autoreset_mode=mode)
    env.reset()
    observation = play(env, [[EOS, D], [D, EOS]])[-1][0]
    if mode is AutoresetMode.DISABLED:
        with pytest.raises(EpisodeEnded, match="after all episodes"):
            env.step([D, D])
        return
    if mode is AutoresetMode.NEXT_STEP:
        observation, rewards, terminated, _, _ = env.step([D, D])
        assert not rewards.any()
        assert not terminated.any()
    np.testing.assert_array_equal(observation["attention_mask"].sum(-1), [2, 1])
    # And so does the next round.
    np.testing.assert_array_equal(play(env, [[EOS, D], [D, EOS]])[-1][2], [True, True])


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_paid_twice_after_a_masked_reset(make_env, play, mode):
    env = make_env(ends="together", autoreset_mode=mode)
    env.reset()
    play(env, [[D, EOS]])
    # Row 1 starts anew while it waits: its old response is forgotten.
    env.reset(options={"reset_mask": np.array([False, True])})
    assert not play(env, [[EOS, D]])[0][2].any()
    _, rewards, terminated, _, _ = env.step([F, EOS])
    np.testing.assert_array_equal(terminated, [True, True])
    np.testing.assert_array_equal(rewards, [1, 1])
    if mode is AutoresetMode.DISABLED:  # row 1 alone: row 0 has been paid
        env.reset(options={"reset_mask": np.array([False, True])})
        _, rewards, terminated, _, _ = env.step([D, EOS])
        np.testing.assert_array_equal(terminated, [False, True])
        assert not rewards.any()


@pytest.mark.parametrize("mode", MODES)
def test_returns_are_those_of_record_episode_statistics(make_env, mode):
    inner = make_env(num_envs=3, ends="together", autoreset_mode=mode)
    env = RecordEpisodeStatistics(inner, buffer_length=10_000)
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    returns = []
    for _ in range(60):
        _, _, terminated, _, info = env.step(rng.integers(1, 12, size=3))
        assert terminated.all() == terminated.any()
        if terminated.any():
            np.testing.assert_allclose(info["episode"]["r"], info["score"])
            returns += info["score"].tolist()
            if mode is AutoresetMode.DISABLED:
                env.reset()
    assert len(returns) == inner.episodes_seen > 10
    np.testing.assert_allclose(list(env.return_queue), returns)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_a_reward_that_raises_leaves_nothing_to_step_on(make_env, play, mode):
    env = make_env(lambda prompts, responses: [np.nan] * len(prompts), ends="together",
                   autoreset_mode=mode)  # fmt: skip
    env.reset()
    play(env, [[EOS, D]])
    with pytest.raises(InvalidReward):
        env.step([D, EOS])
    with pytest.raises(EpisodeEnded):
        env.step([D, D])
