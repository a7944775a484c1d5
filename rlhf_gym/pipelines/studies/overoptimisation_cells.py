"""The cells of the over-optimisation study: proxies, a pool of samples, one curve each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

from rlhf_gym.agents import PPO, PPOConfig
from rlhf_gym.core.data import write_jsonl
from rlhf_gym.core.models import (
    ModelSize,
    load_reward_model,
    load_tokenizer,
    new_causal_lm,
    save_model,
)
from rlhf_gym.core.supervised.preference_data import encode_prompts
from rlhf_gym.core.supervised.reward_evaluation import score_sequences
from rlhf_gym.core.supervised.reward_model import RewardModelConfig, train_reward_model
from rlhf_gym.envs.sentiment import grammar
from rlhf_gym.envs.sentiment.oracle import gold_sentiment
from rlhf_gym.envs.sentiment.task import REFERENCE
from rlhf_gym.pipelines.generation import Generation, draw_prompts, generate, text_task
from rlhf_gym.pipelines.studies.overoptimisation_fits import best_of_n
from rlhf_gym.rewards.base import RewardFunction, RewardTerm
from rlhf_gym.rewards.ensemble import Combination, EnsembleReward
from rlhf_gym.rewards.model import RewardModel

ENV_ID = "rlhf_gym/Sentiment-v0"
MEMBERS = 3
"""Reward models in an ensemble: of the same pairs, from different first weights."""

MOST_PAIRS, HELD_OUT_PAIRS, SCALED_ON = 1500, 1000, 2000
PAIR_SEED, HELD_OUT_SEED, POOL_SEED = 1000, 2000, 3000
"""Of openings and samples; the first is added to the seed of a cell."""

POOL_PROMPTS, POOL_SAMPLES = 32, 512
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""n of best-of-n."""

SHAPES = {
    "1x16": ModelSize(n_layer=1, n_head=1, n_embd=16),
    "1x32": ModelSize(n_layer=1, n_head=2, n_embd=32),
}
"""Proxies: blocks x hidden size, with first weights of their own. The embedded reward model is the
reference's trunk, trained on far more comparisons: too good to be fooled within a study."""

RESPONSES = 64
"""Per update of PPO, and so per point of its curve."""
TOKENS = 20_000
RL = PPOConfig(
    learning_rate=1e-3,
    schedule="constant",  # one that ends at 0 would end the optimisation, not only the run
    episodes_per_update=RESPONSES,
    epochs=2,
)


@dataclass(frozen=True)
class Proxy:
    """What stands in for gold.

    Attributes:
        shape: a name in `SHAPES`.
        pairs: gold-labelled pairs that it learns from.
        combine: how `MEMBERS` of them are one reward; "single" is the first alone.
        kl_coef: of the penalty in the reward of PPO.
    """

    shape: str
    pairs: int
    combine: Literal["single"] | Combination = "single"
    kl_coef: float = 0.0

    @property
    def name(self) -> str:
        """As the tables call it."""
        parts = [self.shape, f"{self.pairs} pairs"]
        if self.combine != "single":
            parts.append(f"{self.combine} of {MEMBERS}")
        if self.kl_coef:
            parts.append(f"KL {self.kl_coef:g}")
        return ", ".join(parts)


def write_pairs(folder: Path, seed: int, count: int, opening_seed: int) -> None:
    """Two samples of the reference to each opening, the better by gold first; `pairs.jsonl`.

    `samples.jsonl` beside it are samples that scores are normalised on.

    Args:
        folder: where both go; they are left as they are if they are there.
        seed: of the sampling.
        count: pairs, ties left out.
        opening_seed: of the generator's openings.
    """
    if (folder / "pairs.jsonl").is_file():
        return
    openings = int(1.1 * count)  # some pairs tie: neither answer says an opinion, for example
    rows = min(256, 2 * openings)
    env = _environment(gold_sentiment, rows, prompts=grammar.prompts(openings, opening_seed))
    task = text_task(env)
    assert task.reference is not None
    prompts = np.repeat(draw_prompts(task, openings, seed), 2)
    samples = generate(task.reference, env, prompts, seed=seed)
    compared = zip(samples[::2], samples[1::2], strict=True)
    pairs = [_pair(one, other) for one, other in compared if one.gold != other.gold]
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(
        folder / "samples.jsonl",
        ({"prompt": s.prompt, "completion": s.completion} for s in samples[:SCALED_ON]),
    )
    write_jsonl(folder / "pairs.jsonl", pairs[:count])


def _pair(one: Generation, other: Generation) -> dict[str, Any]:
    assert one.gold is not None
    assert other.gold is not None
    chosen, rejected = (one, other) if one.gold > other.gold else (other, one)
    return {
        "prompt": one.prompt,
        "chosen": chosen.completion,
        "rejected": rejected.completion,
        "stopped": [chosen.stopped, rejected.stopped],
    }


def train_proxy(folder: Path, proxy: Proxy, seed: int, member: int) -> Path:
    """One reward model of a proxy, unless it is there; its folder.

    Args:
        folder: of the study; holds `pairs/<seed>` and `pairs/held-out`.
        proxy: shape and number of pairs.
        seed: whose pairs.
        member: of the first weights and the order of the pairs.
    """
    output = folder / "proxies" / f"{proxy.shape}-{proxy.pairs}" / f"{seed}-{member}"
    if (output / "summary.json").is_file():
        return output
    pairs = folder / "pairs" / str(seed)
    first = output / "pairs.jsonl"
    first.parent.mkdir(parents=True, exist_ok=True)
    lines = (pairs / "pairs.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    first.write_text("".join(lines[: proxy.pairs]), encoding="utf-8")
    tokenizer = load_tokenizer(REFERENCE)
    weights = MEMBERS * seed + member
    fresh = new_causal_lm(SHAPES[proxy.shape], tokenizer, 64, weights)
    save_model(fresh, tokenizer, output / "fresh")
    train_reward_model(
        RewardModelConfig(
            model=str(output / "fresh"),
            data=(str(first),),
            held_out_data=(str(folder / "pairs" / "held-out" / "pairs.jsonl"),),
            normalise_on=str(pairs / "samples.jsonl"),
            output=str(output),
            context=64,
            epochs=10,
            learning_rate=3e-3,
            batch_size=16,
            validation=0.2,
            seed=weights,
            progress=False,
        )
    )
    return output


def make_reward(folder: Path, proxy: Proxy, seed: int) -> RewardTerm:
    """The reward that PPO is paid, its reward models trained where they are missing."""
    if proxy.combine == "single":
        return RewardModel(train_proxy(folder, proxy, seed, 0))
    members = [
        RewardModel(train_proxy(folder, proxy, seed, member), name=f"member_{member}")
        for member in range(MEMBERS)
    ]
    return EnsembleReward(members, proxy.combine)


def sample_pool() -> dict[str, Any]:
    """Many responses of the reference to a few openings, with their gold scores.

    Returns:
        `sequences` (prompt and response ids, prompt after prompt) and `gold`, flat lists.
    """
    env = _environment(
        gold_sentiment, POOL_SAMPLES, prompts=grammar.prompts(POOL_PROMPTS, POOL_SEED)
    )
    task = text_task(env)
    assert task.reference is not None
    prompts = np.repeat(np.arange(POOL_PROMPTS), POOL_SAMPLES)
    samples = generate(task.reference, env, prompts, seed=POOL_SEED)
    ids = encode_prompts(task.prompts.texts, task.tokenizer)
    return {
        "sequences": [ids[sample.prompt_index] + sample.tokens for sample in samples],
        "gold": [sample.gold for sample in samples],
    }


def bon_cell(
    folder: Path, pool: Mapping[str, Any], proxies: Sequence[Proxy], seed: int
) -> dict[str, Any]:
    """Best-of-n curves of proxies that share shape and pairs, the pool scored once per member.

    Returns:
        By name of the proxy `proxy` and `gold`, nested lists of shape (prompts, sizes).
    """
    gold = np.array(pool["gold"]).reshape(POOL_PROMPTS, POOL_SAMPLES)
    count = 1 if all(proxy.combine == "single" for proxy in proxies) else MEMBERS
    scores = np.stack(
        [_score_pool(train_proxy(folder, proxies[0], seed, m), pool) for m in range(count)]
    )
    curves = {}
    for proxy in proxies:
        combined = combine_scores(scores, proxy.combine)
        curves[proxy.name] = {
            "proxy": best_of_n(combined, combined, SIZES).tolist(),
            "gold": best_of_n(combined, gold, SIZES).tolist(),
        }
    return curves


def combine_scores(
    scores: NDArray[np.float64], combine: Literal["single"] | Combination
) -> NDArray[np.float64]:
    """Members' scores, shape (members, ...), as one; the arithmetic of `EnsembleReward`, k = 1."""
    if combine == "single":
        return np.asarray(scores[0])
    if combine == "minimum":
        return np.asarray(scores.min(0))
    mean = np.asarray(scores.mean(0))
    if combine == "mean":
        return mean
    return np.asarray(mean - (scores.std(0) if combine == "deviations" else scores.var(0)))


def _score_pool(model: Path, pool: Mapping[str, Any]) -> NDArray[np.float64]:
    """Score of every sample, shape (prompts, samples)."""
    classifier = load_reward_model(model)
    with torch.no_grad():
        scores = score_sequences(classifier, pool["sequences"], int(classifier.config.pad_token_id))
    return np.asarray(scores.double().reshape(POOL_PROMPTS, POOL_SAMPLES))


def rl_cell(folder: Path, proxy: Proxy, seed: int, tokens: int = TOKENS) -> dict[str, Any]:
    """PPO against a proxy; what each update's responses scored, before they moved the policy.

    Returns:
        `tokens`, `kl`, `proxy`, `gold` and `length`: lists with one mean per update.
    """
    env = _environment(make_reward(folder, proxy, seed), 64, kl_coef=proxy.kl_coef)
    trace = _Trace()
    PPO("LMPolicy", env, RL, seed=seed, device="cpu").learn(tokens, callback=trace)
    return trace.columns


class _Trace(BaseCallback):
    """Means over the responses of each update."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: dict[str, list[float]] = {
            name: [] for name in ("tokens", "kl", "proxy", "gold", "length")
        }
        self._episodes: list[tuple[float, float, float, float]] = []

    def _on_step(self) -> bool:
        for row in np.flatnonzero(self.locals["dones"]):
            info = self.locals["infos"][row]
            self._episodes.append(
                (info["kl"], info["score"], info["gold_reward"], info["response_length"])
            )
        return True

    def _on_rollout_end(self) -> None:
        means = np.mean(self._episodes, axis=0)
        row = (self.model.num_timesteps, *means)
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(round(float(value), 5))
        self._episodes = []


def _environment(
    reward: RewardTerm | RewardFunction, num_envs: int, kl_coef: float = 0.0, **options: Any
) -> VectorEnv[Any, Any, Any]:
    import rlhf_gym  # noqa: F401  registers the environment

    return gym.make_vec(
        ENV_ID, num_envs=num_envs, reward=reward, kl_coef=kl_coef, ends="together", **options
    )
