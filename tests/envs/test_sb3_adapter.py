"""A Gymnasium vector environment as Stable-Baselines3 sees it."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import TransformReward
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, is_vecenv_wrapped

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.registration import register_all
from rlhf_gym.envs.sb3 import GymnasiumVecEnv, make_sb3_env
from rlhf_gym.envs.text.single import TextGenerationEnv
from rlhf_gym.rewards.kl import KLPenalty

EOS = 2
A, B, C, D, E = range(4, 9)
ADAPTED = [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]

register_all()


@pytest.mark.parametrize("mode", ADAPTED)
def test_rows_that_end_come_back_as_they_begin(make_env, mode):
    env = GymnasiumVecEnv(make_env(autoreset_mode=mode))
    observations = env.reset()
    assert observations["input_ids"].shape == (2, 6)
    env.step(np.array([D, D]))
    observations, rewards, dones, infos = env.step(np.array([EOS, E]))
    assert rewards.dtype == np.float32
    np.testing.assert_array_equal(rewards, [1, 0])
    np.testing.assert_array_equal(dones, [True, False])
    np.testing.assert_array_equal(observations["input_ids"][0], [A, B, 0, 0, 0, 0])
    np.testing.assert_array_equal(observations["input_ids"][1], [0, C, D, E, 0, 0])
    last = infos[0]["terminal_observation"]
    np.testing.assert_array_equal(last["input_ids"], [A, B, D, EOS, 0, 0])
    np.testing.assert_array_equal(last["attention_mask"], [1, 1, 1, 1, 0, 0])
    assert infos[0]["finish_reason"] == "stop"
    assert infos[0]["reward_terms"] == {"count_words": 1.0}
    assert infos[0]["TimeLimit.truncated"] is False
    assert "terminal_observation" not in infos[1]
    assert "score" not in infos[1]
    observations, _, dones, _ = env.step(np.array([D, D]))
    np.testing.assert_array_equal(observations["input_ids"][0], [A, B, D, 0, 0, 0])
    assert not dones.any()


@pytest.mark.parametrize("mode", ADAPTED)
@pytest.mark.parametrize("limit", ["truncate", "terminate"])
def test_truncation_is_told_apart(make_env, mode, limit):
    env = GymnasiumVecEnv(make_env(autoreset_mode=mode, length_limit=limit, max_response_tokens=1))
    env.reset()
    _, _, dones, infos = env.step(np.array([D, EOS]))
    assert dones.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [limit == "truncate", False]


def test_both_modes_and_sb3s_own_loop_agree(make_env, tokenizer, word_count):
    """Same actions, same prompts: the adapter in both modes and DummyVecEnv over single envs."""

    def single():
        return TextGenerationEnv(["a b"], tokenizer, word_count, max_response_tokens=3)

    prompts = {"prompts": ["a b"], "max_response_tokens": 3}
    envs = [GymnasiumVecEnv(make_env(autoreset_mode=mode, **prompts)) for mode in ADAPTED]
    envs.append(DummyVecEnv([single, single]))
    first = [env.reset() for env in envs]
    for other in first[1:]:
        np.testing.assert_array_equal(first[0]["input_ids"], other["input_ids"])
    rng = np.random.default_rng(0)
    for _ in range(30):
        actions = rng.integers(1, 12, size=2)
        (obs, rewards, dones, infos), *others = [env.step(actions) for env in envs]
        for other_obs, other_rewards, other_dones, other_infos in others:
            for key in obs:
                np.testing.assert_array_equal(obs[key], other_obs[key])
            np.testing.assert_array_equal(rewards, other_rewards)
            np.testing.assert_array_equal(dones, other_dones)
            for info, other in zip(infos, other_infos, strict=True):
                assert info.keys() - {"active"} == other.keys() - {"active"}


def test_next_step_is_refused_with_the_remedy(make_env):
    env = make_env(autoreset_mode=AutoresetMode.NEXT_STEP)
    with pytest.raises(InvalidArgument, match=r"autoreset_mode=.*SAME_STEP"):
        GymnasiumVecEnv(env)
    assert GymnasiumVecEnv(env, refuse_next_step=False).vector_env is env


def test_seeds_and_options_are_used_once(make_env):
    env = GymnasiumVecEnv(make_env(prompts=list("abcdefgh"), prompt_order="shuffle"))
    runs = []
    for _ in range(2):
        env.seed(7)
        runs.append([env.reset()["input_ids"] for _ in range(3)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0][0], runs[0][1])
    env.set_options({"prompt_index": [3, 3]})
    assert env.reset()["input_ids"][:, 0].tolist() == [7, 7]
    env.set_options([{"prompt_index": [3, 3]}, {}])
    with pytest.raises(InvalidArgument, match="differ by row"):
        env.reset()


class TestRows:
    def test_attributes_are_given_to_each_row(self, make_env):
        env = GymnasiumVecEnv(make_env())
        assert env.get_attr("max_response_tokens") == [4, 4]
        assert env.get_attr("reward_timing", indices=1) == ["end"]
        assert env.has_attr("action_masks")
        assert not env.has_attr("no_such_thing")
        with pytest.raises(AttributeError, match="no_such_thing"):
            env.get_attr("no_such_thing")
        env.set_attr("note", "kept")
        assert env.get_attr("note") == ["kept", "kept"]
        with pytest.raises(InvalidArgument, match="indices"):
            env.set_attr("note", "lost", indices=[0])

    def test_methods_are_called_once_and_parted(self, make_env):
        env = GymnasiumVecEnv(make_env(min_response_tokens=1, autoreset_mode="Disabled"))
        env.reset()
        env.step(np.array([D, D]))
        masks = env.env_method("action_masks")
        np.testing.assert_array_equal(np.stack(masks), env.vector_env.action_masks())
        assert env.env_method("action_masks", indices=[1])[0].shape == (12,)
        assert env.env_method("update_kl") == [None, None]
        np.testing.assert_array_equal(get_action_masks(env), env.vector_env.action_masks())
        assert is_masking_supported(env)

    def test_wrappers_are_asked_first(self, make_env):
        class Doubled(TransformReward):
            def __init__(self, env):
                super().__init__(env, lambda reward: 2 * reward)
                self.own = "wrapper"

        env = GymnasiumVecEnv(Doubled(make_env()))
        assert env.get_attr("own") == ["wrapper", "wrapper"]
        assert env.get_attr("prompt_width") == [2, 2]
        env.reset()
        env.step(np.array([D, D]))
        assert env.step(np.array([EOS, D]))[1].tolist() == [2, 0]

    def test_other_vector_environments_too(self):
        cartpole = gym.make_vec(
            "CartPole-v1",
            num_envs=3,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        )
        env = make_sb3_env(cartpole)
        assert len(set(map(id, env.get_attr("np_random")))) == 3
        env.set_attr("note", "kept")
        assert env.get_attr("note", indices=[0, 2]) == ["kept", "kept"]
        env.seed(0)
        env.reset()
        for _ in range(60):
            _, _, dones, infos = env.step(np.ones(3, dtype=int))
            for done, info in zip(dones, infos, strict=True):
                assert ("terminal_observation" in info) == done
                assert ("episode" in info) == done

    def test_an_end_that_is_both_is_no_truncation(self):
        class Both(gym.Env):
            observation_space = action_space = gym.spaces.Discrete(2)

            def reset(self, *, seed=None, options=None):
                return 0, {}

            def step(self, action):
                return 0, 0.0, bool(action), True, {}

        single = SyncVectorEnv([Both, Both], autoreset_mode=AutoresetMode.SAME_STEP)
        env = GymnasiumVecEnv(single)
        env.reset()
        *_, infos = env.step(np.array([0, 1]))
        assert [info["TimeLimit.truncated"] for info in infos] == [True, False]

    def test_text_has_no_images(self, make_env):
        env = GymnasiumVecEnv(make_env(render_mode="ansi"))
        env.reset()
        assert env.get_images() == [None, None]
        env.render()


class TestMake:
    def test_id_and_environment(self, make_env, tokenizer, word_count):
        settings = {"prompts": ["a"], "tokenizer": tokenizer, "reward": word_count}
        env = make_sb3_env("rlhf_gym/TextGeneration-v0", num_envs=3, **settings)
        assert isinstance(env, VecMonitor)
        assert isinstance(env.unwrapped, GymnasiumVecEnv)
        assert (env.num_envs, env.unwrapped.spec.id) == (3, "rlhf_gym/TextGeneration-v0")
        assert is_vecenv_wrapped(env, VecMonitor)
        assert make_sb3_env(make_env()).num_envs == 2
        single = make_sb3_env(TextGenerationEnv(**settings))
        assert isinstance(single.unwrapped.vector_env, SyncVectorEnv)
        assert single.reset()["input_ids"].shape == (1, 33)

    def test_arguments_for_what_exists_already(self, make_env):
        for wrong in ({"num_envs": 3}, {"max_response_tokens": 3}):
            with pytest.raises(InvalidArgument, match="exists already"):
                make_sb3_env(make_env(), **wrong)
        with pytest.raises(InvalidArgument, match="not an environment"):
            make_sb3_env(3)

    def test_discounting_rewards_paid_at_the_end_is_warned_of(self, make_env, reference, recwarn):
        make_sb3_env(make_env(), gamma=1.0)
        make_sb3_env(make_env(reward_timing="step"), gamma=0.9)
        assert not [w for w in recwarn if "reward_timing" in str(w.message)]
        with pytest.warns(UserWarning, match=r"gamma=0\.99.*reward_timing='step'"):
            make_sb3_env(make_env(), gamma=0.99)

    def test_monitor_writes_what_is_asked_for(self, make_env, tmp_path):
        env = make_sb3_env(
            make_env(), monitor=str(tmp_path / "run"), info_keywords=["finish_reason"]
        )
        env.reset()
        *_, infos = env.step(np.array([EOS, D]))
        assert infos[0]["episode"]["l"] == 1
        env.close()
        assert "stop" in (tmp_path / "run.monitor.csv").read_text()


@pytest.mark.parametrize("mode", ADAPTED)
@pytest.mark.parametrize("algorithm", [A2C, DQN, MaskablePPO])
def test_stock_algorithms_run_unmodified(make_env, reference, word_count, algorithm, mode):
    env = make_env(
        -KLPenalty(reference, 0.1) + word_count, autoreset_mode=mode, min_response_tokens=1
    )
    small = {"n_steps": 8} if algorithm is not DQN else {"learning_starts": 10}
    if algorithm is MaskablePPO:
        small["batch_size"] = 8
    agent = algorithm(
        "MultiInputPolicy", make_sb3_env(env), policy_kwargs={"net_arch": [8]}, seed=0, **small
    )
    agent.learn(40)
    mean, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=4)
    assert np.isfinite(mean)
    assert len(agent.ep_info_buffer) > 0


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "rlhf_gym:rlhf_gym/Pizza-v0"])
def test_tasks_of_gymnasium_have_no_dead_step(name: str) -> None:
    """CartPole has a vector of its own, which has one; Acrobot has none."""
    env = make_sb3_env(name, num_envs=2)
    assert env.num_envs == 2
    env.seed(0)
    env.reset()
    for _ in range(520):
        _, _, dones, infos = env.step(np.zeros(2, np.int64))
        if dones.any():
            assert "terminal_observation" in infos[int(np.flatnonzero(dones)[0])]
            return
    pytest.fail("no episode ended")
