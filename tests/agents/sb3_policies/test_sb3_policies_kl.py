"""The KL penalty of stock algorithms is that of the policy which sampled."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from rlhf_gym.agents.sb3 import (
    lm_policy_kwargs,
)
from rlhf_gym.core.tokens import legal_logits, next_token_logits
from rlhf_gym.envs.sb3 import make_sb3_env
from rlhf_gym.envs.text import TextGenerationEnv

Maker = Callable[..., Any]

ALL = ["PPO", "A2C", "TRPO", "MaskablePPO", "RecurrentPPO"]
CROSSING: dict[str, dict[str, Any]] = {
    "PPO": {"n_steps": 8},
    "A2C": {"n_steps": 5},
    "TRPO": {"n_steps": 10, "batch_size": 80, "cg_max_steps": 2},
    "MaskablePPO": {"n_steps": 8},
    "RecurrentPPO": {"n_steps": 8},
}
"""Rollouts shorter than responses, so that an update comes in the middle of them."""


class Bookkeeping(BaseCallback):
    """Sums log pi - log pi_ref of every response with passes of its own, without any cache.

    Attributes:
        differences: reward - score + coef * KL of every episode, which shall be 0.
        kls: of every episode, nats.
    """

    is_known = True

    def __init__(self, reference: Any, coef: float) -> None:
        super().__init__()
        self.reference, self.coef = reference, coef
        self.differences: list[float] = []
        self.kls: list[float] = []

    def _on_training_start(self) -> None:
        self.sums = torch.zeros(self.training_env.num_envs)

    def estimate(self, observation: Any, actions: Tensor, reference: Tensor) -> Tensor:
        """log pi - log pi_ref of the step, nats, shape (batch,).

        By a copy of the policy in training mode, which reads every text from its beginning.
        """
        judge: Any = deepcopy(self.model.policy)
        judge.set_training_mode(True)
        arguments: tuple[Any, ...] = (observation, actions)
        if isinstance(self.model, RecurrentPPO):
            # Those that the step began with: the algorithm moves on after this callback.
            starts = torch.as_tensor(self.model._last_episode_starts, dtype=torch.float32)
            arguments += (self.model._last_lstm_states, starts)
        if isinstance(self.model, MaskablePPO):
            arguments += (self.locals["action_masks"],)
        log_probs = judge.evaluate_actions(*arguments)[1]
        return log_probs - reference.gather(-1, actions[:, None]).squeeze(-1)

    @torch.no_grad()
    def _on_step(self) -> bool:
        observation = self.locals["obs_tensor"]
        actions = torch.as_tensor(self.locals["actions"])
        rules = self.training_env.get_attr("rules")[0]
        masks = self.locals.get("action_masks")
        allowed = None if masks is None else torch.as_tensor(masks)
        logits = legal_logits(next_token_logits(self.reference, observation), rules, allowed)
        self.sums += self.estimate(observation, actions, logits.log_softmax(-1))
        for row in np.flatnonzero(self.locals["dones"]):
            info, reward = self.locals["infos"][row], self.locals["rewards"][row]
            assert info["kl_known"] == self.is_known
            self.kls.append(self.sums[row].item())
            self.differences.append(reward - info["score"] + self.coef * self.kls[-1])
            self.sums[row] = 0
        return True


@pytest.mark.parametrize("name", ALL)
def test_the_penalty_is_that_of_the_policy_that_sampled(
    stock: Any, make_env: Maker, make_model: Maker, name: str
) -> None:
    """Over rollouts that cross updates: reward - score = -coef * sum(log pi - log pi_ref)."""
    reference = make_model()
    masks = {"min_response_tokens": 2, "top_k": 8} if name == "MaskablePPO" else {}
    env = make_sb3_env(make_env(max_response_tokens=12, **stock.penalised(reference), **masks))
    agent = stock.agent(name, env, learning_rate=3e-3, **CROSSING[name])
    books = Bookkeeping(reference, 0.3)
    agent.learn(320, callback=books)
    assert len(books.kls) > 20
    assert np.mean(np.abs(books.kls[-10:])) > 0.05  # the policy has moved
    np.testing.assert_allclose(books.differences, 0.0, atol=1e-4)


class ExactBookkeeping(Bookkeeping):
    """The same with the whole distribution: sum of pi (log pi - log pi_ref) over the vocabulary."""

    def estimate(self, observation: Any, actions: Tensor, reference: Tensor) -> Tensor:
        judge: Any = deepcopy(self.model.policy)
        judge.set_training_mode(True)
        masks = (self.locals["action_masks"],) if isinstance(self.model, MaskablePPO) else ()
        pi = judge.get_distribution(observation, *masks).distribution
        ratio = (pi.logits - reference).masked_fill(pi.probs == 0, 0.0)
        return (pi.probs * ratio).sum(-1)


@pytest.mark.parametrize("name", ["A2C", "MaskablePPO"])
def test_the_exact_penalty_is_that_of_the_whole_distribution(
    stock: Any, make_env: Maker, make_model: Maker, name: str
) -> None:
    reference = make_model()
    masks = {"min_response_tokens": 2, "top_k": 8} if name == "MaskablePPO" else {}
    env = make_sb3_env(make_env(**stock.penalised(reference, estimator="exact"), **masks))
    agent = stock.agent(name, env, learning_rate=3e-3, **CROSSING[name])
    books = ExactBookkeeping(reference, 0.3)
    agent.learn(200, callback=books)
    assert np.mean(books.kls[-10:]) > 0.05
    np.testing.assert_allclose(books.differences, 0.0, atol=1e-4)


class SoftBookkeeping(Bookkeeping):
    """The policy's half is left to the agent: log pi counts 0."""

    is_known = False

    def estimate(self, observation: Any, actions: Tensor, reference: Tensor) -> Tensor:
        return -reference.gather(-1, actions[:, None]).squeeze(-1)


def test_the_soft_penalty_needs_nothing_from_the_policy(
    stock: Any, make_env: Maker, make_model: Maker
) -> None:
    """reward - score = coef * log pi_ref of the response, whatever the policy does."""
    reference = make_model()
    env = make_sb3_env(make_env(**stock.penalised(reference, mode="soft")))
    agent = stock.agent("A2C", env, policy_kwargs=lm_policy_kwargs(env, channel=None))
    books = SoftBookkeeping(reference, 0.3)
    agent.learn(400, callback=books)
    assert len(books.kls) > 30
    np.testing.assert_allclose(books.differences, 0.0, atol=1e-4)


def test_an_evaluation_in_mid_rollout_changes_nothing(
    stock: Any, make_env: Maker, make_model: Maker, tmp_path: Path
) -> None:
    """With the same actions: what the training environment pays is the same with EvalCallback."""
    reference = make_model()

    def trained(evaluates: bool) -> tuple[list[float], Any]:
        env = make_sb3_env(make_env(**stock.penalised(reference)))
        agent = stock.agent("PPO", env)
        books = Bookkeeping(reference, 0.3)
        callbacks: list[BaseCallback] = [books]
        if evaluates:
            eval_env = make_sb3_env(
                make_env(**stock.penalised(reference), channel=env.get_attr("channel")[0])
            )
            callbacks += [
                EvalCallback(
                    eval_env,
                    callback_on_new_best=StopTrainingOnRewardThreshold(1e9),
                    n_eval_episodes=8,
                    eval_freq=7,
                    best_model_save_path=str(tmp_path),
                    verbose=0,
                ),
                CheckpointCallback(16, str(tmp_path)),
            ]
        agent.learn(256, callback=callbacks)
        return books.differences, agent

    differences, agent = trained(evaluates=True)
    np.testing.assert_allclose(differences, 0.0, atol=1e-4)
    # Greedy evaluation draws no random numbers, so nothing else differs either.
    _, undisturbed = trained(evaluates=False)
    torch.testing.assert_close(
        stock.parameters(agent), stock.parameters(undisturbed), atol=1e-5, rtol=0
    )
    assert (tmp_path / "best_model.zip").exists()
    assert (tmp_path / "rl_model_256_steps.zip").exists()


def test_environments_stepped_one_by_one(
    stock: Any, make_model: Maker, tokenizer: Any, recwarn: pytest.WarningsRecorder
) -> None:
    """A DummyVecEnv of single environments: every one gets its row of the log-probabilities."""
    reference = make_model()

    def single() -> TextGenerationEnv:
        return TextGenerationEnv(
            ["a film", "plot"], tokenizer, max_response_tokens=4, **stock.penalised(reference)
        )

    env = DummyVecEnv([single] * 3)
    agent = stock.agent("PPO", env)
    books = Bookkeeping(reference, 0.3)
    agent.learn(96, callback=books)
    assert books.kls
    np.testing.assert_allclose(books.differences, 0.0, atol=1e-4)
    agent.predict({key: value[:2] for key, value in env.reset().items()})  # fewer rows: not theirs

    alone = single()  # SB3 wraps it in a DummyVecEnv
    stock.agent("A2C", alone).learn(20)
