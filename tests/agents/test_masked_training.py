"""Our PPO under every kind of mask: it begins with KL 0 and ratio 1, and never leaves the mask."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rlhf_gym.agents.minibatches import Minibatch
from rlhf_gym.agents.ppo import PPO
from rlhf_gym.envs.text.automata import TokenAutomaton
from rlhf_gym.rewards import KLPenalty
from rlhf_gym.rewards.base import FunctionReward

Maker = Callable[..., Any]
EOS, VOCAB = 1, 12


def never_twice(prompt: list[int], response: list[int]) -> Any:
    """A grammar as a function: the last token is not written again."""
    mask = np.ones(VOCAB, dtype=np.bool_)
    mask[(prompt + response)[-1]] = False
    return mask


# "a" and "b" in turns, either to begin with; stopping allowed behind a "b".
TURNS = np.full((3, VOCAB), -1)
TURNS[0, [3, 4]], TURNS[1, 4], TURNS[2, [EOS, 3]] = [1, 2], 2, [2, 1]

MASKS: dict[str, dict[str, Any]] = {
    "top_k": {"top_k": 3},
    "top_p": {"top_p": 0.8},
    "min_response_tokens": {"min_response_tokens": 3},
    "banned_token_ids": {"banned_token_ids": [2, 5]},
    "banned_words": {"banned_words": ["bad", "good good", "film plot a"]},
    "vocabulary": {"vocabulary": ["good", "film"]},
    "regular": {"grammar": "(good|bad)( film| plot)*"},
    "automaton": {"grammar": TokenAutomaton(TURNS, accepting=[False, False, True])},
    "function": {"grammar": never_twice},
    "all": {
        "top_k": 6, "top_p": 0.9, "min_response_tokens": 1, "banned_words": ["bad", "good good"],
        "vocabulary": ["good", "bad", "film", "plot"], "grammar": "[a-z]+( [a-z]+)*",
    },
}  # fmt: skip


@pytest.fixture(params=MASKS)
def agent(request: Any, make_env: Maker, make_model: Maker) -> PPO:
    """PPO on an environment with one kind of mask, and a KL penalty."""
    reference = make_model()
    score = FunctionReward(lambda prompts, responses: [r.count("o") for r in responses])
    env = make_env(
        reward=score - KLPenalty(reference, 0.1), reference=reference, temperature=0.8,
        num_envs=16, **MASKS[request.param],
    )  # fmt: skip
    return PPO("LMPolicy", env, seed=0, device="cpu", learning_rate=1e-2)


def test_before_the_first_update_nothing_has_moved(agent: PPO) -> None:
    _, callback = agent._setup_learn(1)
    raw = agent.collect_rollouts(callback)
    assert raw is not None
    assert agent.logger.name_to_value["kl/reference"] == pytest.approx(0.0, abs=1e-5)
    batch = agent.make_batch(raw)
    agent.loss(Minibatch(batch, int(batch.mask.sum()), len(batch.mask)))
    assert agent.metrics.current("ratio") == pytest.approx(1.0, abs=1e-5)


def test_after_updates_it_stays_within_the_mask_and_its_kl_is_finite(agent: PPO) -> None:
    agent.learn(200)
    _, callback = agent._setup_learn(1)
    batch = agent.collect_rollouts(callback)
    assert batch is not None
    # Sampled, so it may have either sign; exactly 0 only while nothing has moved.
    assert 1e-4 < abs(agent.logger.name_to_value["kl/reference"]) < 100
    assert torch.isfinite(batch.log_probs).all()
    if batch.action_masks is not None:
        tokens = batch.input_ids[:, agent.policy.prompt_width :]
        allowed = batch.action_masks.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        assert allowed[batch.mask].all()


def test_predict_never_leaves_the_mask(agent: PPO) -> None:
    """Not during a rollout: an evaluation, where nobody hands over the masks."""
    env = agent.stepper.tasks[0]
    observation, _ = env.reset(seed=1)
    agent.policy.generator.manual_seed(0)
    for _ in range(20):
        allowed = env.action_masks()
        greedy, _ = agent.predict(observation, deterministic=True)
        assert allowed[np.arange(env.num_envs), greedy].all()
        actions, _ = agent.predict(observation, deterministic=False)
        assert allowed[np.arange(env.num_envs), actions].all()
        observation, *_ = env.step(actions)
