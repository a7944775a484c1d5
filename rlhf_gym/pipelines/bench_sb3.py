"""What stock Stable-Baselines3 costs on text, and what sharing prefixes and caching save of it.

    python -m rlhf_gym.pipelines.bench_sb3

SB3 learns from transitions: a response of T tokens is T observations, each with the whole text so
far. Read one by one that is T passes for what one pass says. The policies of `rlhf_gym.agents.sb3`
read a text once however many of its prefixes are in a minibatch, and read one token per step while
they act. What remains is measured here against PPO on whole responses.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from gymnasium.vector import AutoresetMode
from rich.console import Console
from stable_baselines3 import PPO as StockPPO
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.logger import Logger
from torch import Tensor

from rlhf_gym.agents.ppo import PPO
from rlhf_gym.agents.sb3.cached_lm import CachedLM
from rlhf_gym.agents.sb3.policies import LMActorCriticPolicy
from rlhf_gym.agents.sb3.policy_kwargs import lm_policy_kwargs
from rlhf_gym.core.tokens import gather_log_probs, legal_logits, next_token_logits
from rlhf_gym.envs.sb3 import make_sb3_env
from rlhf_gym.envs.text.vector import TextGenerationVectorEnv
from rlhf_gym.pipelines.bench_task import BenchModels, BenchTask, build_models
from rlhf_gym.pipelines.bench_timing import Measurement, alternate, seconds_of, threads

STEPS = 4
"""Optimiser steps per epoch, for both PPOs."""


def measure_sb3(task: BenchTask, rounds: int) -> list[Measurement]:
    """Rollout, gradient and epoch of stock PPO, and the epoch of ours.

    Args:
        task: sizes of the networks, the batch and the response budget.
        rounds: measured runs of each contestant, in turn; the median counts.
    """
    models = build_models(task)
    stock, ours = make_stock(models, task), make_ours(models, task)
    return [
        *measure_rollout(stock, rounds),
        *measure_sharing(stock, task, rounds),
        measure_epoch(stock, ours, rounds),
    ]


def measure_rollout(stock: StockPPO, rounds: int) -> list[Measurement]:
    """A rollout with the cache, against one that reads every observation from its beginning."""
    lm = language_model(stock)

    def rollout(cached: bool) -> float:
        return seconds_of(partial(_act, stock, lm, cached))

    seconds = alternate({"cached": lambda: rollout(True), "read": lambda: rollout(False)}, rounds)
    cached, read = (statistics.median(seconds[name]) for name in ("cached", "read"))
    return [Measurement("rollout: one token per step, not the text", "speed-up", read, cached)]


def measure_sharing(stock: StockPPO, task: BenchTask, rounds: int) -> list[Measurement]:
    """Loss and gradient of a minibatch: prefixes shared, against the model's own forward."""
    everything = task.responses * task.response_tokens
    rows = []
    for size in (everything // 16, everything // STEPS, everything):
        observations, actions = draw_minibatch(stock, size)
        seconds = alternate(
            {
                "separate": partial(seconds_of, partial(separate, stock, observations, actions)),
                "shared": partial(seconds_of, partial(shared, stock, observations, actions)),
            },
            rounds,
        )
        read, once = (statistics.median(seconds[name]) for name in ("separate", "shared"))
        what = f"gradient of {size} of {everything} transitions: each text once"
        rows.append(Measurement(what, "speed-up", read, once))
    return rows


def measure_epoch(stock: StockPPO, ours: PPO, rounds: int) -> Measurement:
    """An epoch of updates on as many tokens: whole responses, against stock PPO's transitions."""
    _, callback = ours._setup_learn(1)
    batch = ours.collect_rollouts(callback)
    assert batch is not None
    batch = ours.make_batch(batch)
    runs: dict[str, Callable[[], float]] = {
        "stock": lambda: seconds_of(stock.train),
        "ours": lambda: seconds_of(lambda: ours.update(batch)),
    }
    seconds = alternate(runs, rounds)
    return Measurement(
        f"epoch of {STEPS} steps: PPO on responses, not transitions",
        "speed-up",
        statistics.median(seconds["stock"]),
        statistics.median(seconds["ours"]),
    )


def make_stock(models: BenchModels, task: BenchTask) -> StockPPO:
    """SB3's PPO with a rollout in its buffer: one response of every row."""
    env = make_sb3_env(_make_env(models, task))
    agent = StockPPO(
        LMActorCriticPolicy,
        env,
        learning_rate=task.learning_rate,
        n_steps=task.response_tokens,
        batch_size=task.responses * task.response_tokens // STEPS,
        n_epochs=1,
        gamma=1.0,
        policy_kwargs=lm_policy_kwargs(env),
        seed=task.seed,
        device="cpu",
    )
    agent.set_logger(Logger(None, []))
    _, callback = agent._setup_learn(1)
    assert agent.env is not None
    agent.collect_rollouts(agent.env, callback, agent.rollout_buffer, agent.n_steps)
    return agent


def make_ours(models: BenchModels, task: BenchTask) -> PPO:
    """Our PPO with as many responses and optimiser steps."""
    agent = PPO(
        "LMPolicy",
        _make_env(models, task),
        learning_rate=task.learning_rate,
        epochs=1,
        minibatches=STEPS,
        seed=task.seed,
        device="cpu",
    )
    agent.set_logger(Logger(None, []))
    return agent


def language_model(stock: StockPPO) -> CachedLM:
    """The language model in a stock agent's policy."""
    return cast(CachedLM, cast(Any, stock.policy).features_extractor.lm)


def draw_minibatch(stock: StockPPO, size: int) -> tuple[dict[str, Tensor], Tensor]:
    """Observations and actions as SB3 draws them from its buffer, `size` of them."""
    buffer = cast(DictRolloutBuffer, stock.rollout_buffer)
    samples = next(iter(buffer.get(size)))
    return samples.observations, samples.actions.long().flatten()


def shared(stock: StockPPO, observations: dict[str, Tensor], actions: Tensor) -> None:
    """Gradient of the log-probabilities as a stock agent's policy computes them."""
    stock.policy.set_training_mode(True)
    _, log_probs, _ = stock.policy.evaluate_actions(cast(Any, observations), actions)
    _backward(stock, log_probs)


def separate(stock: StockPPO, observations: dict[str, Tensor], actions: Tensor) -> None:
    """The same with every observation in a row of its own, by the model's own forward."""
    lm = language_model(stock)
    logits = legal_logits(next_token_logits(lm.model, observations), lm.rules)
    _backward(stock, gather_log_probs(logits, actions))


def _backward(stock: StockPPO, log_probs: Tensor) -> None:
    stock.policy.optimizer.zero_grad()
    log_probs.mean().backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def _act(stock: StockPPO, lm: CachedLM, cached: bool) -> None:
    """Go through the rollout's observations as the policy did when it sampled them."""
    lm.forget()
    lm.train(not cached)
    buffer = cast(DictRolloutBuffer, stock.rollout_buffer)
    assert not buffer.generator_ready, "SB3 has flattened its buffer by drawing from it"
    for step in range(buffer.buffer_size):
        observations = buffer.observations.items()
        lm.hidden({key: torch.as_tensor(values[step]) for key, values in observations})
    lm.train(False)


def _make_env(models: BenchModels, task: BenchTask) -> TextGenerationVectorEnv:
    """An environment whose responses all take the whole budget."""
    return TextGenerationVectorEnv(
        models.prompts,
        models.tokenizer,
        lambda prompts, responses: [0.0] * len(prompts),
        num_envs=task.responses,
        max_response_tokens=task.response_tokens,
        stop_token_ids=(),
        reference=models.policy,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )


def main() -> None:
    """Print the table at the size of the embedded task."""
    from rlhf_gym.pipelines.bench import as_table

    task = BenchTask()
    title = f"stock PPO: {task.responses} x {task.response_tokens} tokens, {task.label}"
    with threads(1):
        Console(width=100).print(as_table(title, measure_sb3(task, rounds=3)))


if __name__ == "__main__":
    main()
