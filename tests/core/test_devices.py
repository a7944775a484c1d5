"""Where models go: by name, by `auto`, and what is said where that cannot be."""

from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import nn

import rlhf_gym  # noqa: F401  registers the tasks
from rlhf_gym.agents import PPO
from rlhf_gym.core.devices import choose_device, same_device
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.models import load_causal_lm
from rlhf_gym.envs.sentiment.task import REFERENCE, REWARD_MODEL
from rlhf_gym.pipelines.environment import EnvironmentConfig, make_environment
from rlhf_gym.rewards import RewardModel

BEST = "cuda" if torch.cuda.is_available() else "cpu"
"""What `auto` stands for here."""


def place(module: nn.Module) -> str:
    return next(module.parameters()).device.type


def test_auto_is_a_gpu_if_there_is_one() -> None:
    assert choose_device().type == choose_device("auto").type == BEST
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")


def test_one_device_may_have_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    cpu, here, first, second = (torch.device(n) for n in ("cpu", "cuda", "cuda:0", "cuda:1"))
    assert same_device(cpu, cpu)
    assert same_device(here, second)
    assert not same_device(here, first)
    assert not same_device(first, second)
    assert not same_device(cpu, here)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "", "cuda:99"])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="device"):
        choose_device(name)


def test_what_is_loaded_by_name_goes_where_auto_says() -> None:
    env: Any = gym.make_vec("rlhf_gym/Sentiment-v0", num_envs=2).unwrapped
    assert env.device.type == place(env.reference) == place(load_causal_lm(REFERENCE)) == BEST
    assert place(RewardModel(REWARD_MODEL).model) == BEST
    assert place(gym.make_vec("rlhf_gym/Exact-v0", num_envs=2).unwrapped.reference) == BEST


@pytest.mark.parametrize("task", ["rlhf_gym/Sentiment-v0", "rlhf_gym/Exact-v0"])
def test_a_device_that_is_named_holds_all_models(task: str) -> None:
    env: Any = make_environment(EnvironmentConfig(env=task, num_envs=2, device="cpu")).unwrapped
    assert place(env.reference) == "cpu"
    agent = PPO("LMPolicy", env, device="cpu", seed=0, minibatches=1)
    agent.learn(1)
    assert place(agent.policy) == "cpu"


def test_a_reward_model_goes_to_the_named_device() -> None:
    config = EnvironmentConfig(num_envs=2, reward=str(REWARD_MODEL), device="cpu")
    reward: Any = make_environment(config).unwrapped.reward
    models = [term.model for _, term in reward.parts if isinstance(term, RewardModel)]
    assert [place(model) for model in models] == ["cpu"]


def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(InvalidArgument, match=r"device='cuda:99'.*GPU"):
        make_environment(EnvironmentConfig(model="no/such", prompts="none", device="cuda:99"))


def test_an_agent_says_when_the_reference_is_elsewhere() -> None:
    env: Any = gym.make_vec("rlhf_gym/Exact-v0", num_envs=2, device="cpu").unwrapped
    env.reference.to("meta")
    with (
        pytest.warns(UserWarning, match="reference is on meta"),
        pytest.raises(NotImplementedError),
    ):
        PPO("LMPolicy", env, device="cpu", seed=0, minibatches=1)
