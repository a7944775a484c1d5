"""What `step` costs beside the sampling: its bookkeeping, the reference pass, the reward pass.

A wave is one response in every row: prefill, then draw, `step`, advance for every token. `step`
is timed inside such waves, so its caches are as warm or cold as they are in real use.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from gymnasium.vector import AutoresetMode

from rlhf_gym.core.sampler import Sampler
from rlhf_gym.core.tokens import Observation, TokenRules, lm_inputs
from rlhf_gym.envs.text.vector import TextGenerationVectorEnv
from rlhf_gym.pipelines.bench_task import PAD_ID, BenchModels, BenchTask, build_models
from rlhf_gym.pipelines.bench_timing import Measurement, alternate, median_of, now
from rlhf_gym.rewards.base import RewardTerm
from rlhf_gym.rewards.kl import KLPenalty
from rlhf_gym.rewards.model import RewardModel

BOOKKEEPING_TARGET = 2.0
"""Per cent of the sampling that `step` may take when it runs no model."""
GROWTH_TARGET = 1.1
"""How much dearer a late token may be, attention aside; above 1 because clocks are not exact."""


class Wave(NamedTuple):
    """Seconds of one wave, by part, and of each of its tokens.

    Attributes:
        sampling: prefill, drawing and decoding.
        stepping: inside `step` and the channel.
        token_seconds: sampling of each token, shape (time,).
    """

    sampling: float
    stepping: float
    token_seconds: list[float]


class Motionless(TextGenerationVectorEnv):
    """Its `step` does nothing, which costs something too."""

    def step(self, actions: Any) -> Any:
        """Nothing."""


def sample_wave(env: TextGenerationVectorEnv, sampler: Sampler) -> Wave:
    """Let every row write a response of `max_response_tokens` tokens, and time the parts.

    Args:
        env: in DISABLED mode, with no stop token that is legal.
        sampler: of the policy.
    """
    observation, _ = env.reset()
    inputs = lm_inputs(cast(Observation, observation))
    ids, mask = (inputs[name][:, : env.prompt_width] for name in ("input_ids", "attention_mask"))
    started = now()
    sampler.prefill(ids, mask, env.max_response_tokens)
    prefill = now() - started
    token_seconds, stepping = [], 0.0
    for time_step in range(env.max_response_tokens):
        started = now()
        draw = sampler.draw()
        # Read twice: a reading of the clock costs about a tenth of what it is to measure here.
        drawn, begun = now(), now()
        env.channel.write(draw.tokens, draw.log_probs)
        env.step(draw.tokens.cpu().numpy())
        stepped = now() - (begun - drawn)
        if time_step + 1 < env.max_response_tokens:
            sampler.advance(draw.tokens)
        token_seconds.append(drawn - started + now() - stepped)
        stepping += stepped - begun
    return Wave(prefill + sum(token_seconds), stepping, token_seconds)


def measure_step(task: BenchTask, batch: int, rounds: int) -> list[Measurement]:
    """Bookkeeping of `step`, reference pass and reward pass, as shares of the sampling.

    Beside them stands what the bookkeeping would be if `step` did nothing: tokens and
    log-probabilities are handed over, the clock is read, Python makes a call.

    Args:
        task: sizes of the networks and the response budget.
        batch: rows.
        rounds: measured waves of each kind.
    """
    models = build_models(task)
    sampler = make_sampler(models, task)
    rewards: dict[str, RewardTerm | None] = {
        "none": None,
        "reference": -KLPenalty(models.policy, task.kl_coef),
        "reward": RewardModel(models.reward),
    }

    def runner(
        reward: RewardTerm | None, kind: type[TextGenerationVectorEnv] = TextGenerationVectorEnv
    ) -> Callable[[], Wave]:
        env = make_env(models, task, batch, reward, kind)
        return lambda: sample_wave(env, sampler)

    runs = {name: runner(reward) for name, reward in rewards.items()}
    waves = alternate({**runs, "nothing": runner(None, Motionless)}, rounds)
    sampling = statistics.median(wave.sampling for some in waves.values() for wave in some)
    stepping = {
        name: statistics.median(wave.stepping for wave in some) for name, some in waves.items()
    }
    bare = stepping["none"]
    reference, reward = stepping["reference"] - bare, stepping["reward"] - bare
    return [
        Measurement(
            f"bookkeeping of step, batch {batch}", "share", sampling, bare, BOOKKEEPING_TARGET
        ),
        Measurement("  of which a step that does nothing", "share", sampling, stepping["nothing"]),
        Measurement("  reference pass", "share", sampling, reference),
        Measurement("  reward pass", "share", sampling, reward),
    ]


def measure_growth(task: BenchTask, batch: int, rounds: int) -> list[Measurement]:
    """Whether a token gets dearer the longer its response is, beyond attention itself.

    The last quarter of the response is compared with the second, in seconds per step of the whole
    batch; attention alone, over as many keys, stands beside it.

    Args:
        task: sizes of the networks and the response budget, at least 8 tokens.
        batch: rows.
        rounds: measured waves.
    """
    models = build_models(task)
    env = make_env(models, task, batch, None)
    sampler = make_sampler(models, task)
    waves = [sample_wave(env, sampler) for _ in range(rounds + 1)][1:]
    quarter = task.response_tokens // 4
    # The last token is drawn but never read, so it costs less.
    parts = (range(quarter, 2 * quarter), range(3 * quarter, task.response_tokens - 1))
    early, late = (
        statistics.median(wave.token_seconds[at] for wave in waves for at in part) for part in parts
    )
    attention_early, attention_late = (
        attention_seconds(task, batch, task.prompt_tokens + (part[0] + part[-1]) // 2, rounds)
        for part in parts
    )
    what = f"a late step against an early one, batch {batch}"
    rest_early, rest_late = early - attention_early, late - attention_late
    return [
        Measurement(what, "growth", early, late),
        Measurement("  of which attention", "growth", attention_early, attention_late),
        Measurement("  of which the rest", "growth", rest_early, rest_late, GROWTH_TARGET),
    ]


def attention_seconds(task: BenchTask, batch: int, keys: int, rounds: int) -> float:
    """Seconds that attention adds to one decoding step, over all layers.

    Measured as the difference it makes between the layers' matrix products: attention alone, over
    and over, would find its keys in a cache from which a real step has driven them, and would not
    drive the weights out in turn.
    """
    size = task.hidden // task.heads
    cache = torch.randn(task.layers, 2, batch * task.heads, keys, size)
    query = torch.randn(batch * task.heads, 1, size)
    # A block's four linear layers hold 12 hidden^2 weights.
    weights = torch.randn(task.layers, task.hidden, 12 * task.hidden)
    x = torch.randn(batch, task.hidden)

    @torch.no_grad()
    def products() -> None:
        for weight in weights:
            x @ weight

    @torch.no_grad()
    def products_and_attention() -> None:
        for (key, value), weight in zip(cache, weights, strict=True):
            torch.bmm(torch.bmm(query, key.mT).softmax(-1), value)
            x @ weight

    runs = {"with": products_and_attention, "without": products}
    seconds = alternate({name: partial(median_of, run, 20) for name, run in runs.items()}, rounds)
    return statistics.median(seconds["with"]) - statistics.median(seconds["without"])


def make_env(
    models: BenchModels,
    task: BenchTask,
    batch: int,
    reward: RewardTerm | None,
    kind: type[TextGenerationVectorEnv] = TextGenerationVectorEnv,
) -> TextGenerationVectorEnv:
    """An environment whose responses all take the whole budget."""
    return kind(
        models.prompts,
        models.tokenizer,
        reward,
        num_envs=batch,
        max_response_tokens=task.response_tokens,
        stop_token_ids=(),
        autoreset_mode=AutoresetMode.DISABLED,
    )


def make_sampler(models: BenchModels, task: BenchTask) -> Sampler:
    """The policy's sampler under the rules of `make_env`."""
    rules = TokenRules(task.vocab_size, PAD_ID, stop_ids=())
    return Sampler(models.policy, rules, generator=torch.Generator().manual_seed(task.seed))
