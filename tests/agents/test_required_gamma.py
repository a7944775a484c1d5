"""A reward that is shaped for one discount is not learned from with another."""

import pytest
from stable_baselines3 import A2C

from rlhf_gym.agents import PPO, RLOO, GammaCallback
from rlhf_gym.agents.sb3 import LMActorCriticPolicy, lm_policy_kwargs
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.sb3 import GymnasiumVecEnv, make_sb3_env
from rlhf_gym.envs.text import TextGenerationEnv
from rlhf_gym.rewards import FunctionReward, GroupNormalised, PotentialShaping, Whitened


def length(prompts, responses):
    return [float(len(r)) for r in responses]


def shaped(gamma):
    return FunctionReward(length) + PotentialShaping(length, gamma)


def ours(kind, env, **fields):
    return kind("LMPolicy", env, seed=0, device="cpu", episodes_per_update=8, **fields)


def test_the_environment_says_what_it_needs(make_env):
    assert make_env(reward=shaped(0.9)).required_gamma == 0.9
    assert make_env().required_gamma is None
    assert make_env(reward=None).required_gamma is None


def test_ours_refuse_another_discount_before_a_step(make_env):
    env = make_env(reward=shaped(0.9))
    for agent in (ours(PPO, env), ours(RLOO, env, responses_per_prompt=2)):
        with pytest.raises(InvalidArgument, match=r"gamma=1.0.*shaped for a discount of 0.9"):
            agent.learn(10)
        assert agent.num_timesteps == 0
    assert env.episodes_seen == 0


def test_ours_learn_with_the_same_discount(make_env):
    env = make_env(reward=shaped(0.9))
    assert ours(PPO, env, gamma=0.9).learn(10).num_timesteps >= 10
    assert ours(RLOO, make_env(reward=shaped(1.0)), responses_per_prompt=2).learn(10)


def test_stock_agents_are_refused_by_the_adapter(make_env):
    with pytest.raises(InvalidArgument, match=r"gamma=1.0.*0.9"):
        make_sb3_env(make_env(reward=shaped(0.9)))
    with pytest.warns(UserWarning, match="reward_timing"):
        make_sb3_env(make_env(reward=shaped(0.9)), gamma=0.9)


def test_stock_agents_are_refused_by_the_callback(make_env):
    env = GymnasiumVecEnv(make_env(reward=shaped(1.0)))

    def agent(gamma):
        kwargs = lm_policy_kwargs(env)
        return A2C(LMActorCriticPolicy, env, policy_kwargs=kwargs, gamma=gamma, device="cpu")

    with pytest.raises(InvalidArgument, match=r"gamma=0.99.*discount of 1.0.*Give A2C"):
        agent(0.99).learn(8, callback=GammaCallback())
    assert agent(1.0).learn(8, callback=GammaCallback()).num_timesteps >= 8


def test_rows_of_single_environments_say_it_too(make_env):
    env = make_env(reward=shaped(0.9), num_envs=1)
    single = TextGenerationEnv(
        prompts=["a"], tokenizer=env.tokenizer, reward=shaped(0.9), max_response_tokens=2
    )
    with pytest.raises(InvalidArgument, match=r"discount of 0\.9"):
        make_sb3_env(single)


def test_a_potential_needs_an_end(make_env):
    with pytest.raises(InvalidArgument, match="length_limit"):
        make_env(reward=shaped(1.0), length_limit="truncate")


@pytest.mark.parametrize("kind", [Whitened, GroupNormalised])
def test_comparisons_need_responses_that_end_together(make_env, kind):
    with pytest.raises(InvalidArgument, match="ends='apart'"):
        make_env(reward=kind(length))
    with pytest.raises(InvalidArgument, match="num_envs of 2 or more"):
        make_env(reward=kind(length), ends="together", num_envs=1)
    env = make_env(reward=kind(length), ends="together")
    assert ours(RLOO, env, responses_per_prompt=4).learn(10).num_timesteps >= 10
