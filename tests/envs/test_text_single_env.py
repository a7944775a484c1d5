"""The single environment is a batch of one, and what Gymnasium and SB3 expect of an environment."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from rlhf_gym.core.errors import EpisodeEnded, InvalidAction, InvalidArgument
from rlhf_gym.envs.registration import register_all
from rlhf_gym.envs.text.checks import UnsupportedRenderMode
from rlhf_gym.envs.text.single import TextGenerationEnv
from rlhf_gym.rewards.kl import KLPenalty

EOS = 2
D, E = 7, 8

register_all()


@pytest.fixture
def make_single(tokenizer, word_count):
    def make(**overrides):
        settings = {
            "prompts": ["a b", "c", "d e f"],
            "tokenizer": tokenizer,
            "reward": word_count,
            "max_response_tokens": 4,
        } | overrides
        return gym.make("rlhf_gym/TextGeneration-v0", **settings)

    return make


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"observation": "ids"},
        {"min_response_tokens": 2, "render_mode": "ansi"},
        {"length_limit": "truncate", "prompt_order": "sequential"},
        {"top_k": 3, "with_reference": True},
        {"reward_timing": "step", "with_penalty": True},
    ],
    ids=str,
)
def test_check_env_of_gymnasium_and_sb3_without_a_warning(make_single, reference, settings):
    settings = dict(settings)
    if settings.pop("with_reference", False):
        settings["reference"] = reference
    if settings.pop("with_penalty", False):
        settings["reward"] = -KLPenalty(reference, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make_single(**settings)
        check_env(env.unwrapped)
        check_env_sb3(env.unwrapped)


def test_single_is_a_batch_of_one(make_single, make_env, tokenizer, word_count, reference):
    def settings():
        return {
            "prompts": ["a b", "c", "d e f"],
            "prompt_order": "shuffle",
            "reward": -KLPenalty(reference, 0.1),
            "gold": word_count,
        }

    single = TextGenerationEnv(tokenizer=tokenizer, max_response_tokens=4, **settings())
    vector = make_env(num_envs=1, autoreset_mode=AutoresetMode.DISABLED, **settings())
    rng = np.random.default_rng(0)
    for seed in (3, None, None):
        (one, _), (many, _) = single.reset(seed=seed), vector.reset(seed=seed)
        terminated = False
        while not terminated:
            for key in one:
                np.testing.assert_array_equal(one[key], many[key][0])
            token = rng.integers(1, 12)
            for env in (single, vector):
                env.channel.write(np.array([token]), np.array([-1.5]))
            one, reward, terminated, truncated, info = single.step(token)
            many, rewards, terminations, _, infos = vector.step([token])
            assert isinstance(reward, float)
            assert type(terminated) is type(truncated) is bool
            assert (reward, terminated) == (rewards[0], terminations[0])
        for key in ("finish_reason", "score", "kl", "gold_reward", "prompt_index", "kl_known"):
            assert info[key] == infos[key][0]
        np.testing.assert_array_equal(info["token_rewards"], infos["token_rewards"][0])
    assert info["kl_known"] is True
    assert "active" not in info
    assert not [key for key in info if key.startswith("_")]


def test_step_after_the_end_raises_at_once(make_single):
    env = make_single().unwrapped
    with pytest.raises(EpisodeEnded, match="before reset"):
        env.step(D)
    env.reset()
    env.step(EOS)
    with pytest.raises(EpisodeEnded, match="call reset"):
        env.step(D)
    env.reset()
    env.step(D)


def test_options_choose_the_prompt(make_single):
    observation, _ = make_single().reset(options={"prompt_index": 2})
    np.testing.assert_array_equal(observation["input_ids"][:3], [7, 8, 9])


def test_generator_is_the_one_in_use(make_single):
    env = make_single(prompts=list("abcdefgh")).unwrapped
    env.reset(seed=4)
    assert env.np_random is env.vector_env.np_random
    assert env.np_random_seed == env.vector_env.np_random_seed == 4
    runs = []
    for _ in range(2):  # the round that seed 4 began has seven prompts left
        env.np_random = np.random.default_rng(0)
        runs.append([env.reset()[0]["input_ids"][0] for _ in range(8)])
        env.reset(seed=4)
    assert runs[0] == runs[1]
    assert env.np_random is env.vector_env.np_random


def test_masks_and_text_of_the_one_row(make_single):
    env = make_single(render_mode="ansi", min_response_tokens=1)
    env.reset(options={"prompt_index": 0})
    masks = env.get_wrapper_attr("action_masks")()
    assert masks.shape == (12,)
    assert not masks[EOS]
    env.step(D)
    assert env.render() == "a b d"


def test_coefficient_and_counts_are_the_batchs(make_single, reference):
    env = make_single(reward=-KLPenalty(reference, 0.3)).unwrapped
    assert env.kl_coef == env.update_kl() == 0.3
    env.reset()
    env.channel.write(np.array([EOS]), np.array([-1.0]))
    env.step(EOS)
    assert env.episodes_seen == 1
    state = env.state_dict()
    other = make_single(reward=-KLPenalty(reference, 0.3)).unwrapped
    other.load_state_dict(state)
    assert other.episodes_seen == 1
    assert other.np_random.bit_generator.state == env.np_random.bit_generator.state


@pytest.mark.parametrize("action", [12, -1, 1.5, True, "a", [1, 2], None])
def test_actions_that_are_no_token(make_single, action):
    env = make_single().unwrapped
    env.reset()
    with pytest.raises(InvalidAction, match="action"):
        env.step(action)
    env.step(np.int32(11))


def test_unknown_render_mode(make_single):
    with pytest.raises(UnsupportedRenderMode, match=r"'rgb_array'.*'ansi'") as raised:
        TextGenerationEnv(["a"], make_single().unwrapped.tokenizer, render_mode="rgb_array")
    # SB3 makes environments from ids with "rgb_array" first, and goes on after a TypeError.
    assert isinstance(raised.value, TypeError)
    assert isinstance(raised.value, InvalidArgument)
