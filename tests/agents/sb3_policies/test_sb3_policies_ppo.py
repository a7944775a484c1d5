"""Our PPO and SB3's on the same rollout: the same advantages, the same loss, the same gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.logger import Logger
from torch import Tensor

from rlhf_gym.agents.metrics import UpdateMetrics
from rlhf_gym.agents.minibatches import Minibatch
from rlhf_gym.agents.ppo import PPO
from rlhf_gym.agents.rollout import RolloutBatch
from rlhf_gym.agents.sb3 import LMActorCriticPolicy, lm_policy_kwargs
from rlhf_gym.envs.sb3 import make_sb3_env

Maker = Callable[..., Any]
GAMMA, LAMBDA, CLIP, ENTROPY, VALUE = 0.98, 0.9, 0.2, 0.03, 0.25


def collect(env: Any) -> tuple[PPO, RolloutBatch]:
    """Ours after a rollout of whole episodes, its values not 0, then moved a little."""
    agent = PPO(
        "LMPolicy",
        env,
        seed=0,
        device="cpu",
        gamma=GAMMA,
        gae_lambda=LAMBDA,
        clip_range=CLIP,
        value_clip_range=None,
        value_coef=2 * VALUE,  # SB3 squares the error, we halve the square
        entropy_coef=ENTROPY,
        whiten_advantages=False,
        max_grad_norm=None,
    )
    generator = torch.Generator().manual_seed(0)
    head: Any = agent.policy.value_head
    head.weight.data = torch.randn(head.weight.shape, generator=generator)
    _, callback = agent._setup_learn(1)
    batch = agent.collect_rollouts(callback)
    assert batch is not None
    for parameter in agent.policy.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return agent, agent.make_batch(batch)


def stock_twin(agent: PPO, batch: RolloutBatch, env: Any) -> SB3PPO:
    """SB3's PPO with our weights, and our rollout in its buffer, one episode after another."""
    tokens = int(batch.mask.sum())
    stock = SB3PPO(
        LMActorCriticPolicy,
        env,
        learning_rate=1.0,
        n_steps=tokens,
        batch_size=tokens,
        n_epochs=1,
        gamma=GAMMA,
        gae_lambda=LAMBDA,
        clip_range=CLIP,
        normalize_advantage=False,
        ent_coef=ENTROPY,
        vf_coef=VALUE,
        max_grad_norm=1e9,
        device="cpu",
        policy_kwargs=lm_policy_kwargs(env, optimizer_class=torch.optim.SGD, optimizer_kwargs={}),
    )
    stock.set_logger(Logger(None, []))
    stock.policy.features_extractor.lm.model.load_state_dict(agent.policy.model.state_dict())
    stock.policy.value_net.load_state_dict(agent.policy.value_head.state_dict())
    assert batch.values is not None
    width = agent.policy.prompt_width
    for row, length in enumerate(batch.lengths.tolist()):
        for time in range(length):
            seen = torch.arange(batch.input_ids.shape[1]) < width + time
            mask = batch.attention_mask[row] & seen
            stock.rollout_buffer.add(
                {
                    "input_ids": (batch.input_ids[row] * mask).numpy(),
                    "attention_mask": mask.numpy(),
                },
                batch.input_ids[row, width + time].numpy().reshape(1, 1),
                batch.token_rewards[row, time].numpy().reshape(1),
                np.array([time == 0]),
                batch.values[row, time],
                batch.log_probs[row, time],
            )
    stock.rollout_buffer.compute_returns_and_advantage(torch.zeros(1), np.array([True]))
    return stock


def weights(agent: Any) -> Tensor:
    """Language model and value head, in this order, whoever holds them."""
    policy = agent.policy
    if isinstance(agent, PPO):
        modules = [policy.model, policy.value_head]
    else:
        modules = [policy.features_extractor.lm.model, policy.value_net]
    parameters = [p for module in modules for p in module.parameters()]
    return torch.nn.utils.parameters_to_vector(parameters).detach().clone()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_same_advantages_loss_and_gradient(make_env: Maker, temperature: float) -> None:
    settings: dict[str, Any] = {"temperature": temperature, "prompts": ["a film", "b plot film"]}
    agent, batch = collect(make_env(**settings))
    assert len(set(batch.lengths.tolist())) > 1  # unequal lengths, whole episodes
    stock = stock_twin(agent, batch, make_sb3_env(make_env(num_envs=1, **settings)))
    ours = batch.mask.nonzero(as_tuple=True)

    for name in ("advantages", "returns"):
        expected = getattr(stock.rollout_buffer, name)[:, 0]
        found = getattr(batch, name)[ours]
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)

    tokens = int(batch.mask.sum())
    agent.policy.zero_grad()
    agent.metrics = UpdateMetrics()
    loss = agent.loss(Minibatch(batch, tokens, len(batch.mask)))
    loss.backward()
    before = weights(stock)
    gradient = torch.cat([p.grad.flatten() for p in agent._trained if p.grad is not None])
    torch.testing.assert_close(before, weights(agent))
    stock.train()
    assert loss.item() == pytest.approx(stock.logger.name_to_value["train/loss"], abs=1e-5)
    # One step of SGD with rate 1: what it took off is the gradient.
    step = before - weights(stock)
    assert torch.cosine_similarity(gradient, step, dim=0) > 1 - 1e-6
    torch.testing.assert_close(step, gradient, atol=1e-5, rtol=1e-4)
    clipped = stock.logger.name_to_value["train/clip_fraction"]
    assert 0 < clipped < 1  # both sides of the clip are tried
