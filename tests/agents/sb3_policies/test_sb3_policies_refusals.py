"""What the policies refuse, and with which words."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
from gymnasium import spaces
from sb3_contrib import ARS
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from rlhf_gym.agents.ppo import PPO
from rlhf_gym.agents.sb3 import (
    LMActorCriticPolicy,
    LMARSPolicy,
    LMQPolicy,
    lm_policy_kwargs,
)
from rlhf_gym.core.errors import InvalidArgument, TokenizerMismatch
from rlhf_gym.envs.sb3 import make_sb3_env
from rlhf_gym.envs.text import TextGenerationEnv

Maker = Callable[..., Any]


class _Other(gym.ObservationWrapper[Any, Any, Any]):
    """Leaves the ids alone, without their mask."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.observation_space = spaces.Dict({"input_ids": env.observation_space["input_ids"]})

    def observation(self, observation: Any) -> Any:
        return {"input_ids": observation["input_ids"]}


class _Hides(VecEnvWrapper):
    """A wrapper that answers for itself what it does not know."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        if attr_name == "action_masks":
            raise AttributeError(attr_name)
        return self.venv.get_attr(attr_name, indices)


def test_wrong_spaces_are_refused(
    stock: Any, make_env: Maker, tokenizer: Any, make_model: Maker
) -> None:
    env = make_sb3_env(make_env())
    kwargs = lm_policy_kwargs(env)
    observations, actions = env.observation_space, env.action_space

    def policy(observation_space: Any, action_space: Any, **changes: Any) -> None:
        LMActorCriticPolicy(observation_space, action_space, lambda _: 1e-3, **kwargs | changes)

    with pytest.raises(InvalidArgument, match=r"action_space=MultiDiscrete.*one token per step"):
        policy(observations, spaces.MultiDiscrete([12, 12]))
    with pytest.raises(TokenizerMismatch, match="vocabulary of 12"):
        policy(observations, spaces.Discrete(13))
    with pytest.raises(InvalidArgument, match='observation="dict"'):
        policy(observations["input_ids"], actions)
    with pytest.raises(InvalidArgument, match="prompt_width=50"):
        policy(observations, actions, prompt_width=50)
    single = TextGenerationEnv(["a film"], tokenizer, reference=make_model(), max_response_tokens=3)
    with pytest.raises(InvalidArgument, match="without the mask"):
        stock.agent("PPO", _Other(single))


@pytest.mark.parametrize(
    ("algorithm", "policy", "remedy"),
    [
        (A2C, LMActorCriticPolicy, r"policy_kwargs=lm_policy_kwargs\(env\)"),
        (DQN, LMQPolicy, r"\*\*lm_q_kwargs\(env\)"),
        (ARS, LMARSPolicy, r"\*\*lm_ars_kwargs\(env\)"),
    ],
)
def test_a_policy_that_was_not_told_what_to_write_with_says_what_is_missing(
    algorithm: Any, policy: Any, remedy: str, make_env: Maker
) -> None:
    with pytest.raises(InvalidArgument, match=f"{policy.__name__} needs.*{remedy}"):
        algorithm(policy, make_sb3_env(make_env()))


def test_normalised_observations_are_refused(make_env: Maker) -> None:
    env = make_sb3_env(make_env())
    agent = A2C(LMActorCriticPolicy, VecNormalize(env), policy_kwargs=lm_policy_kwargs(env))
    with pytest.raises(InvalidArgument, match="norm_obs=False"):
        agent.learn(10)


def test_environments_it_cannot_start_from(make_env: Maker, make_model: Maker) -> None:
    with pytest.raises(InvalidArgument, match="no rules"):
        lm_policy_kwargs(gym.make("CartPole-v1"))
    with pytest.raises(InvalidArgument, match="make_sb3_env"):
        lm_policy_kwargs(make_env())
    without = make_sb3_env(make_env(reference=None))
    with pytest.raises(InvalidArgument, match="no reference to start from"):
        lm_policy_kwargs(without)
    with pytest.raises(InvalidArgument, match="SB3 pickles"):
        lm_policy_kwargs(without, model=make_model())


def test_masks_that_nobody_would_apply_are_refused(stock: Any, make_env: Maker) -> None:
    env = make_sb3_env(make_env(top_k=3))
    with pytest.raises(InvalidArgument, match="MaskablePPO"):
        stock.agent("PPO", env)
    with pytest.raises(InvalidArgument, match="hides its action_masks"):
        lm_policy_kwargs(_Hides(env))


def test_truncation_that_nobody_would_bootstrap_is_refused(make_env: Maker) -> None:
    class Foreign(VecEnvWrapper):
        reset, step_wait = _Hides.reset, _Hides.step_wait

    env = make_sb3_env(make_env(length_limit="truncate"))
    lm_policy_kwargs(env)
    foreign = Foreign(env)
    foreign.venv = object.__new__(_NotKnown)  # type: ignore[assignment]
    foreign.venv.behind = env.venv
    with pytest.raises(InvalidArgument, match=r"length_limit='truncate'.*TimeLimit.truncated"):
        lm_policy_kwargs(foreign)


def test_our_ppo_refuses_what_it_does_not_bootstrap(make_env: Maker) -> None:
    env = make_env(length_limit="truncate")
    with pytest.raises(InvalidArgument, match=r"length_limit='truncate'.*bootstraps"):
        PPO("LMPolicy", env, device="cpu")


class _NotKnown(VecEnv):
    """A VecEnv of somebody else's."""

    behind: Any

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        found: list[Any] = self.behind.get_attr(attr_name, indices)
        return found

    def _nothing(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    reset = step_async = step_wait = close = set_attr = env_method = env_is_wrapped = _nothing
