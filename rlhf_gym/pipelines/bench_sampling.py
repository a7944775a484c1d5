"""Sampling through `env.step` against transformers' `generate`, as ratios in one run.

`python -m rlhf_gym.pipelines.bench_sampling` prints them for every shape; `--quick` shows that
everything runs. Both sides read the same prompts, write responses of the same length and give the
log-probability of every token; they take turns, and medians are compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, cast

import torch
import tyro
from gymnasium.vector import AutoresetMode
from rich.console import Console
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.sampler import Sampler
from rlhf_gym.core.tokens import Observation, TokenRules, lm_inputs
from rlhf_gym.envs.text.vector import TextGenerationVectorEnv
from rlhf_gym.pipelines.bench_step import sample_wave
from rlhf_gym.pipelines.bench_task import EOS_ID, PAD_ID, BenchTask, build_tokenizer, draw_prompts
from rlhf_gym.pipelines.bench_timing import Measurement, alternate, seconds_of, threads


@dataclass(frozen=True)
class SamplingShape:
    """One model to sample from.

    Attributes:
        label: as the table names it.
        config: of the model.
        targets: batch size -> how many times faster than `generate` we want to be.
    """

    label: str
    config: PreTrainedConfig
    targets: Mapping[int, float] = field(default_factory=dict)

    def build(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        """A fresh model, the same every time, in evaluation mode."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            # Untyped in transformers.
            model = cast(Any, AutoModelForCausalLM).from_config(self.config)
        return cast(PreTrainedModel, model.eval().to(device, dtype))


def _ids(vocab_size: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "pad_token_id": PAD_ID,
        "bos_token_id": EOS_ID,
        "eos_token_id": EOS_ID,
    }


SHAPES = (
    SamplingShape(
        "GPT-2, 4 x 128, vocabulary 512",
        GPT2Config(n_layer=4, n_embd=128, n_head=4, n_positions=64, **_ids(512)),
        {16: 2.2, 64: 1.8},
    ),
    SamplingShape(
        "Llama, 4 x 128, vocabulary 512",
        LlamaConfig(
            num_hidden_layers=4,
            hidden_size=128,
            intermediate_size=352,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            **_ids(512),
        ),
        {16: 2.2, 64: 1.8},
    ),
    SamplingShape(
        "GPT-NeoX by its own forward, 4 x 128, vocabulary 512",
        GPTNeoXConfig(
            num_hidden_layers=4,
            hidden_size=128,
            intermediate_size=512,
            num_attention_heads=4,
            max_position_embeddings=64,
            **_ids(512),
        ),
        {16: 1.0, 64: 1.0},
    ),
    SamplingShape("GPT-2 small", GPT2Config(n_positions=64, **_ids(50257)), {16: 1.3, 64: 1.6}),
)

QUICK_SHAPES = (
    SamplingShape(
        "GPT-2, 1 x 32, vocabulary 64",
        GPT2Config(n_layer=1, n_embd=32, n_head=2, n_positions=64, **_ids(64)),
    ),
)


def measure_sampling(
    shape: SamplingShape,
    batch: int,
    rounds: int,
    *,
    prompt_tokens: int = 16,
    response_tokens: int = 32,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Measurement]:
    """Seconds of `generate` and of a wave through `env.step`, with log-probabilities.

    Args:
        shape: the model.
        batch: rows that sample together.
        rounds: measured runs of each side.
        prompt_tokens: longest prompt; lengths are spread evenly between half of it and all of it.
        response_tokens: tokens that every row writes.
        device: where both sides work; the targets are those of a CPU.
        dtype: of the model.
    """
    task = BenchTask(
        vocab_size=shape.config.vocab_size,
        prompt_tokens=prompt_tokens,
        responses=batch,
        response_tokens=response_tokens,
        minibatches=1,
        device=device,
    )
    model = shape.build(device, dtype)
    ours = sampling_through_step(model, task)
    theirs = sampling_by_generate(model, task)
    seconds = alternate(
        {"generate": lambda: seconds_of(theirs), "step": lambda: seconds_of(ours)}, rounds
    )
    return [
        Measurement(
            f"{shape.label}, batch {batch}{_kind(device, dtype)}",
            "speed-up",
            median(seconds["generate"]),
            median(seconds["step"]),
            shape.targets.get(batch) if device == "cpu" else None,
        )
    ]


def sampling_through_step(model: PreTrainedModel, task: BenchTask) -> Callable[[], object]:
    """Ours: reset, prefill, and draw, `step` and advance for every token of the whole batch."""
    env = _environment(task)
    rules = TokenRules(task.vocab_size, PAD_ID, stop_ids=())
    generator = torch.Generator(task.device).manual_seed(task.seed)
    sampler = Sampler(model, rules, generator=generator)
    return lambda: sample_wave(env, sampler)


def sampling_by_generate(model: PreTrainedModel, task: BenchTask) -> Callable[[], Tensor]:
    """Theirs: `generate` from the same prompts, then the log-probabilities of what it drew."""
    env = _environment(task)
    inputs = lm_inputs(cast(Observation, env.reset()[0]))
    width = env.prompt_width
    ids, mask = (
        inputs[name][:, :width].to(task.device) for name in ("input_ids", "attention_mask")
    )
    settings = model.generation_config
    assert settings is not None, "every causal language model of transformers has one"
    # Without a stop token both sides write exactly the same number of tokens.
    settings.eos_token_id = settings.bos_token_id = None
    settings.pad_token_id = PAD_ID

    @torch.no_grad()
    def sample() -> Tensor:
        output = cast(Any, model).generate(
            ids,
            attention_mask=mask,
            max_new_tokens=task.response_tokens,
            do_sample=True,
            top_k=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        logits = torch.stack(output.logits, dim=1)
        tokens = output.sequences[:, width:]
        return logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)

    return sample


def _kind(device: str, dtype: torch.dtype) -> str:
    """Device and dtype in words; nothing for what is usual."""
    where = "" if device == "cpu" else f", {device}"
    return where + ("" if dtype == torch.float32 else f", {dtype}".replace("torch.", ""))


def _environment(task: BenchTask) -> TextGenerationVectorEnv:
    """A row for each prompt, in order; no response stops before its budget."""
    tokenizer = build_tokenizer(task.vocab_size)
    ids = draw_prompts(task, torch.Generator().manual_seed(task.seed))
    return TextGenerationVectorEnv(
        [str(tokenizer.decode(prompt)) for prompt in ids],
        tokenizer,
        num_envs=task.responses,
        max_response_tokens=task.response_tokens,
        stop_token_ids=(),
        prompt_order="sequential",
        autoreset_mode=AutoresetMode.DISABLED,
    )


@dataclass(frozen=True)
class SamplingBenchConfig:
    """Measure sampling through `env.step` against transformers' `generate`."""

    rounds: int = 5
    """Measured runs of each side, in turn; the median counts."""
    batches: tuple[int, ...] = (16, 64)
    """Rows that sample together."""
    threads: int = 1
    """Threads that torch may use."""
    only: str = ""
    """Part of a label: measure the shapes that have it."""
    quick: bool = False
    """A toy and one round: shows that everything runs, says nothing about speed."""
    device: str = "cpu"
    """Where both sides work; on a GPU in float32 and in bfloat16."""

    def __post_init__(self) -> None:
        if not any(self.only in shape.label for shape in SHAPES):
            remedy = "Choose of: " + "; ".join(shape.label for shape in SHAPES)
            raise InvalidArgument("only", self.only, "no shape is called so", remedy)


def sampling_measurements(config: SamplingBenchConfig) -> Iterator[Measurement]:
    """Every shape at every batch size, each when it is ready."""
    shapes = QUICK_SHAPES if config.quick else SHAPES
    rounds = 1 if config.quick else config.rounds
    kinds = (torch.float32,) if config.device == "cpu" else (torch.float32, torch.bfloat16)
    wanted = [shape for shape in shapes if config.only in shape.label]
    with threads(config.threads):
        for shape, dtype, batch in itertools.product(wanted, kinds, config.batches):
            yield from measure_sampling(shape, batch, rounds, device=config.device, dtype=dtype)


def main() -> None:
    """Command line."""
    from rlhf_gym.pipelines.bench import as_table  # it takes the figures of this module

    config = tyro.cli(SamplingBenchConfig)
    title = f"sampling through step against generate, {config.threads} thread(s)"
    Console().print(as_table(title, list(sampling_measurements(config))))


if __name__ == "__main__":
    main()
