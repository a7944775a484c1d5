"""What a trained agent is worth, whatever scheme it was trained with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from rlhf_gym.agents.lm_policy import LMPolicy
from rlhf_gym.agents.registry import AGENTS
from rlhf_gym.agents.sb3.stock import StockAgent
from rlhf_gym.envs.exact import ExactVectorEnv
from rlhf_gym.envs.sb3 import make_sb3_env
from rlhf_gym.pipelines.environment import EnvironmentConfig, make_environment
from rlhf_gym.pipelines.experiments.titles import HEADLINES as HEADLINES
from rlhf_gym.pipelines.generation import Generation, draw_prompts, generate, text_task
from rlhf_gym.pipelines.studies.agent_cells import judged_policy
from rlhf_gym.pipelines.text_metrics import distinct_n, finish_shares, repetition
from rlhf_gym.rewards.scheme_terms import TaskReward, taken_apart

JUDGE_SEED = 10_000
"""Of prompts and sampling: all agents answer the same prompts, in an order met by none before."""


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        metrics: by name; see docs/compare.md.
        samples: responses, one after another; empty where the agent does not write by a language
            model.
    """

    metrics: Mapping[str, float]
    samples: Sequence[Generation] = ()


def task_reward(task: Any) -> TaskReward:
    """What a text environment pays by itself."""
    return taken_apart(task.reward, task.reference)


@lru_cache(maxsize=1)
def judging_environment(config: EnvironmentConfig) -> VectorEnv[Any, Any, Any]:
    """The task as it is, with its own score for gold if it has no judge.

    Kept from one cell to the next: what Exact-v0 knows of its optimum is computed once.
    """
    env = make_environment(config)
    task = text_task(env)
    if task.gold is not None:
        return env
    return make_environment(config, gold=task_reward(task).score)


def judge_text(
    name: str, agent: BaseAlgorithm, env: VectorEnv[Any, Any, Any], episodes: int
) -> Verdict:
    """Judge an agent that writes, on the task as it is.

    Args:
        name: of the agent in the registry.
        agent: trained, by whatever scheme.
        env: see `judging_environment`.
        episodes: responses to judge by.
    """
    model = language_model(name, agent)
    if model is None:
        verdict = Verdict(_played(name, agent, env, episodes))
    else:
        task = text_task(env)
        prompts = draw_prompts(task, episodes, JUDGE_SEED)
        samples = generate(model, env, prompts, seed=JUDGE_SEED)
        verdict = Verdict(_of_samples(samples), samples)
    return Verdict({**verdict.metrics, **exact_metrics(name, agent, env)}, verdict.samples)


def exact_metrics(
    name: str, agent: BaseAlgorithm, env: VectorEnv[Any, Any, Any]
) -> dict[str, float]:
    """Share of the way to the optimum, by enumeration, where the task knows it; else nothing."""
    task = text_task(env)
    if not isinstance(task, ExactVectorEnv) or not task.kl_coef:
        return {}
    policy = judged_policy(name, agent)
    performance = task.judge.performance(policy)
    return {
        "share": task.share_of_the_way(policy),
        "objective": performance.objective(task.kl_coef),
        "gold": float(performance.reward.mean()),
        "kl": float(performance.kl.mean()),
    }


def language_model(name: str, agent: BaseAlgorithm) -> nn.Module | None:
    """The language model that an agent writes by; None if it is more, or less, than that."""
    found = AGENTS.load(name)
    if isinstance(found, StockAgent):
        return found.language_model(agent)
    return cast(LMPolicy, agent.policy).model


def _of_samples(samples: Sequence[Generation]) -> dict[str, float]:
    tokens = [sample.tokens for sample in samples]
    numbers: dict[str, list[float | None]] = {
        "gold": [sample.gold for sample in samples],
        "score": [sample.score for sample in samples],
        "kl": [sample.kl for sample in samples],
        "length": [float(sample.length) for sample in samples],
    }
    known = {name: [v for v in values if v is not None] for name, values in numbers.items()}
    means = {
        name: float(np.mean(values))
        for name, values in known.items()
        if len(values) == len(samples)
    }
    shares = finish_shares(sample.finish_reason for sample in samples)
    return means | {
        "stopped": shares.get("stop", 0.0),
        "distinct_2": distinct_n(tokens, 2),
        "repetition": repetition(tokens),
    }


def _played(
    name: str, agent: BaseAlgorithm, env: VectorEnv[Any, Any, Any], episodes: int
) -> dict[str, float]:
    """The same of an agent that acts by `predict`; its KL is not known.

    Every row plays the same number of episodes: taking those that end first would favour short
    ones.
    """
    stock = AGENTS.load(name)
    greedy = isinstance(stock, StockAgent) and stock.is_greedy
    venv = make_sb3_env(env)
    wanted = -(-episodes // venv.num_envs)
    venv.seed(JUDGE_SEED)
    torch.manual_seed(JUDGE_SEED)  # SB3's policies draw from the global generator
    observations: Any = venv.reset()
    state, starts = None, np.ones(venv.num_envs, dtype=np.bool_)
    finished: Counter[int] = Counter()
    found: list[Mapping[str, Any]] = []
    while len(found) < wanted * venv.num_envs:
        actions, state = agent.predict(observations, state, starts, deterministic=greedy)
        observations, _, starts, infos = venv.step(actions)
        for row in np.flatnonzero(starts).tolist():
            if finished[row] < wanted:
                found.append(infos[row])
            finished[row] += 1
    return {
        "gold": float(np.mean([info["gold_reward"] for info in found])),
        "score": float(np.mean([info["score"] for info in found])),
        "length": float(np.mean([info["response_length"] for info in found])),
        "stopped": float(np.mean([info["finish_reason"] == "stop" for info in found])),
    }
