"""Stock algorithms of every kind, made with the policy that fits them."""

from typing import Any

import pytest
import torch
from sb3_contrib import TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor

from rlhf_gym.agents.sb3 import (
    LMActorCriticPolicy,
    LMMaskableActorCriticPolicy,
    LMRecurrentActorCriticPolicy,
    PackedMaskBuffer,
    lm_policy_kwargs,
)
from rlhf_gym.rewards.base import FunctionReward
from rlhf_gym.rewards.kl import KLPenalty

PPO_SIZES: dict[str, Any] = {"n_steps": 16, "batch_size": 64, "n_epochs": 2}

STOCK: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "PPO": (PPO, LMActorCriticPolicy, PPO_SIZES),
    "A2C": (A2C, LMActorCriticPolicy, {"n_steps": 5}),
    "TRPO": (
        TRPO,
        LMActorCriticPolicy,
        {"n_steps": 16, "batch_size": 128, "cg_max_steps": 3, "n_critic_updates": 1},
    ),
    "MaskablePPO": (
        MaskablePPO,
        LMMaskableActorCriticPolicy,
        PPO_SIZES | {"rollout_buffer_class": PackedMaskBuffer},
    ),
    "RecurrentPPO": (RecurrentPPO, LMRecurrentActorCriticPolicy, PPO_SIZES),
}


class Stock:
    """What the tests of this folder do with them."""

    @staticmethod
    def agent(name: str, env: Any, policy_kwargs: Any = None, **kwargs: Any) -> Any:
        algorithm, policy, sizes = STOCK[name]
        settings = {"gamma": 1.0, "seed": 0, "device": "cpu", **sizes, **kwargs}
        return algorithm(
            policy, env, policy_kwargs=policy_kwargs or lm_policy_kwargs(env), **settings
        )

    @staticmethod
    def penalised(model: Any, coef: float = 0.3, **kwargs: Any) -> dict[str, Any]:
        """A reward that is the KL penalty and a score."""
        score = FunctionReward(lambda prompts, responses: [len(r) / 10 for r in responses])
        return {"reward": score - KLPenalty(model, coef, **kwargs), "reference": model}

    @staticmethod
    def parameters(agent: Any) -> Tensor:
        return torch.nn.utils.parameters_to_vector(agent.policy.parameters()).detach().clone()

    @staticmethod
    def distribution(agent: Any, observation: Any) -> Tensor:
        """The agent's next-token probabilities, shape (batch, vocab)."""
        policy = agent.policy
        obs = obs_as_tensor(observation, policy.device)
        rows = len(obs["input_ids"])
        with torch.no_grad():
            if isinstance(agent, RecurrentPPO):
                layers, _, size = policy.lstm_hidden_state_shape
                states = (torch.randn(layers, rows, size), torch.randn(layers, rows, size))
                distribution, _ = policy.get_distribution(obs, states, torch.zeros(rows))
            else:
                distribution = policy.get_distribution(obs)
        probabilities: Tensor = distribution.distribution.probs
        return probabilities


@pytest.fixture
def stock() -> type[Stock]:
    return Stock
