"""One cell of the matrix of agents: an agent trained on a task, and judged."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import ARS
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from rlhf_gym.agents.lm_policy import LMPolicy
from rlhf_gym.agents.registry import AGENTS
from rlhf_gym.agents.sb3.stock import StockAgent
from rlhf_gym.envs.exact import ExactVectorEnv
from rlhf_gym.envs.exact.judge import ExactJudge, Policy
from rlhf_gym.envs.sb3 import make_sb3_env
from rlhf_gym.pipelines.studies.agent_settings import Setup

EXACT_ID, SENTIMENT_ID = "rlhf_gym/Exact-v0", "rlhf_gym/Sentiment-v0"
EPISODES = 512
"""Responses by which a policy on Sentiment-v0 is judged, to prompts in an order of their own."""
JUDGE_SEED = 10_000
"""Added to an agent's seed: every seed is judged by prompts and responses of its own, so that the
spread over seeds is all the spread there is."""


class Trained(NamedTuple):
    """An agent after its training.

    Attributes:
        agent: the agent.
        env: what it was trained on.
        cost: `tokens`, `seconds` and `tokens_per_second` of the training.
    """

    agent: BaseAlgorithm
    env: VecEnv
    cost: dict[str, float]


def train(name: str, env_id: str, setup: Setup, seed: int) -> Trained:
    """Train an agent by its name in the registry; ours and stock ones alike."""
    env = make_sb3_env(env_id, num_envs=setup.rows, kl_mode=setup.kl_mode, **setup.env)
    agent = make_agent(name, env, setup.settings, seed)
    started = time.perf_counter()
    # SB3 calls ARS's callback once per row and step, and ARS counts all rows each time.
    counted_as = setup.rows if isinstance(agent, ARS) else 1
    agent.learn(setup.tokens * counted_as)
    seconds = time.perf_counter() - started
    tokens = agent.num_timesteps // counted_as
    cost = {"tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}
    return Trained(agent, env, cost)


def make_agent(name: str, env: VecEnv, settings: Mapping[str, Any], seed: int) -> BaseAlgorithm:
    """An agent on an environment, not trained: it acts as the reference does."""
    found = AGENTS.load(name)
    if isinstance(found, StockAgent):
        return found.make(env, seed=seed, device="cpu", **settings)
    return cast(BaseAlgorithm, found("LMPolicy", env, seed=seed, device="cpu", **settings))


def exact_cell(name: str, setup: Setup, seed: int) -> dict[str, float]:
    """Train on Exact-v0 and judge the policy by enumeration, not by samples."""
    agent, env, cost = train(name, EXACT_ID, setup, seed)
    task = cast(ExactVectorEnv, env.get_attr("unwrapped")[0])
    policy = judged_policy(name, agent)
    performance = task.judge.performance(policy)
    return {
        "share": task.share_of_the_way(policy),
        "reward": float(performance.reward.mean()),
        "kl": float(performance.kl.mean()),
        **cost,
    }


def sentiment_cell(name: str, setup: Setup, seed: int) -> dict[str, float]:
    """Train on Sentiment-v0; mean gold score beside the reference's on the same prompts."""
    trained = train(name, SENTIMENT_ID, setup, seed)
    greedy = acts_greedily(name)
    after = gold_scores(trained.agent, seed, deterministic=greedy)
    untrained = make_agent("rloo", make_sb3_env(SENTIMENT_ID, num_envs=4), {}, seed)
    before = gold_scores(untrained, seed, deterministic=greedy)
    return {
        "gold": float(after.mean()),
        "reference": float(before.mean()),
        "gain": float((after - before).mean()),
        **trained.cost,
    }


def gold_scores(agent: BaseAlgorithm, seed: int, *, deterministic: bool) -> NDArray[np.float64]:
    """Gold score of one response to each of a seed's prompts, shape (EPISODES,)."""
    env = make_sb3_env(SENTIMENT_ID, num_envs=EPISODES)
    env.seed(JUDGE_SEED + seed)
    torch.manual_seed(JUDGE_SEED + seed)  # SB3's policies draw from the global generator
    observation = env.reset()
    state, starts = None, np.ones(EPISODES, dtype=np.bool_)
    gold = np.full(EPISODES, np.nan)
    while np.isnan(gold).any():
        actions, state = agent.predict(
            cast(Any, observation), state, starts, deterministic=deterministic
        )
        observation, _, starts, infos = env.step(actions)
        for row in np.flatnonzero(starts & np.isnan(gold)):
            gold[row] = infos[row]["gold_reward"]
    env.close()
    return gold


def acts_greedily(name: str) -> bool:
    """Whether an agent's policy is its best token, and no distribution."""
    found = AGENTS.load(name)
    return isinstance(found, StockAgent) and found.is_greedy


def judged_policy(name: str, agent: BaseAlgorithm) -> Policy:
    """An agent's policy in the form that Exact-v0's judge enumerates."""
    found = AGENTS.load(name)
    if not isinstance(found, StockAgent):
        return cast(LMPolicy, agent.policy).model
    if found.is_greedy:
        return lambda observations: _certain(agent, observations)
    model = found.language_model(agent)
    return (lambda observations: _recurrent_logits(agent, observations)) if model is None else model


def _certain(agent: BaseAlgorithm, observations: dict[str, Tensor]) -> Tensor:
    """Logits of a policy that takes its best token, shape (n, vocab)."""
    policy = cast(Any, agent.policy)
    policy.set_training_mode(False)
    actions = policy._predict(observations, deterministic=True)
    logits = torch.full((len(actions), policy.action_space.n), -torch.inf)
    return logits.scatter(1, actions.reshape(-1, 1).cpu(), 0.0)


def _recurrent_logits(agent: BaseAlgorithm, observations: dict[str, Tensor]) -> Tensor:
    """Logits of a recurrent policy, shape (n, vocab): it is shown every prefix of each text."""
    policy = cast(Any, agent.policy)
    policy.set_training_mode(False)
    mask, width = observations["attention_mask"], policy.prompt_width
    count, depth = len(mask), int(mask[:, width:].sum(-1).max())
    nothing = torch.zeros(policy.lstm_actor.num_layers, count, policy.lstm_actor.hidden_size)
    states = (nothing, nothing)
    logits = torch.empty(0)
    for length in range(depth + 1):
        seen = mask.clone()
        seen[:, width + length :] = 0
        starts = torch.full((count,), float(length == 0))
        prefixes = {**observations, "attention_mask": seen}
        distribution, states = policy.get_distribution(prefixes, states, starts)
        logits = distribution.distribution.logits
    return logits


def best_deterministic(judge: ExactJudge, kl_coef: float) -> float:
    """Share of the way that the best policy without chance reaches on Exact-v0.

    Its KL is -log pi_ref of the one response it gives to each prompt.
    """
    optimum = judge.optimum(kl_coef)
    gains = judge.tree.along(judge.rewards) + kl_coef * judge.tree.along(judge.reference)
    value = float(gains.amax(-1).mean())
    return (value - optimum.reference_value) / (optimum.value - optimum.reference_value)
