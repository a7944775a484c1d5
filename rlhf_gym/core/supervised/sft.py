"""Supervised fine-tuning: a language model learns to answer as demonstrations do.

Only the completion is learned: the prompt is masked out of the loss. Prompt and completion are
tokenised apart, as a policy meets them, and every completion that was not cut ends with EOS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from rlhf_gym.core.data import hold_out, read_records, text_column
from rlhf_gym.core.data_formats import Record
from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.supervised.common import StageConfig, close_folder, open_folder
from rlhf_gym.core.tokenizers import encode_beginnings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlhf_gym.core.supervised.trainer import Batch


@dataclass(frozen=True, kw_only=True)
class SFTConfig(StageConfig):
    """Fine-tune a language model on demonstrations or instructions."""

    model: str
    """Directory or hub name of the language model to begin with."""
    data: tuple[str, ...]
    """Files, folders or hub names with columns `prompt` and `completion`."""
    columns: dict[str, str] = field(default_factory=dict)
    """Columns to rename: name in the file, then the name wanted (chosen completion)."""
    limit: int | None = None
    """Read this many records of each file or folder at most."""
    max_length: int | None = None
    """Longest prompt and completion together, in tokens; the model's context if not given."""
    chat_template: bool = False
    """Render prompts (texts, or lists of messages) with the tokenizer's chat template."""
    end_token: str | None = None
    """Token that ends a completion; the tokenizer's EOS if not given."""
    lora: int | None = None
    """Train adapters of this rank and leave the model frozen; they are merged at the end."""
    freeze: int | str | None = None
    """Freeze embeddings and this many first blocks, or the parameters this pattern is found in."""
    trust_remote_code: bool = False
    """Let the model's directory execute Python code of its own."""
    epochs: float = 2.0
    """Passes over the training data."""
    learning_rate: float = 2e-4
    """Peak of AdamW's learning rate."""
    batch_size: int = 16
    """Examples per forward pass."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("max_length", (self.max_length or 2) >= 2, "2 or more", "Give 256, for example")
        if not self.data:
            raise InvalidArgument("data", self.data, "nothing to read", "Name a file")


@dataclass(frozen=True)
class SFTResult:
    """What fine-tuning came to.

    Attributes:
        output: the folder.
        examples: demonstrations trained on.
        held_out_examples: demonstrations held out, by prompt.
        truncated: completions that were cut to fit, and so have no EOS.
        dropped: demonstrations whose prompt alone leaves no room for a completion.
        steps: updates.
        seconds: of training.
        perplexity_before, perplexity_after: of held-out completions, per token; NaN if none.
    """

    output: Path
    examples: int
    held_out_examples: int
    truncated: int
    dropped: int
    steps: int
    seconds: float
    perplexity_before: float
    perplexity_after: float


class Demonstration(NamedTuple):
    """A tokenised demonstration.

    Attributes:
        input_ids: prompt, completion and EOS.
        prompt_length: tokens of the prompt.
    """

    input_ids: list[int]
    prompt_length: int


def sft(config: SFTConfig) -> SFTResult:
    """Fine-tune a language model and write it with its tokenizer.

    Raises:
        FolderNotWritable, InvalidCheckpoint: a folder or the model cannot be used.
        InvalidData: demonstrations that are missing, malformed or all too long.
        TokenizerMismatch: model and tokenizer do not fit.
        NonFiniteTraining: training diverged.
    """
    folder = open_folder(config, "sft")
    train_records, held_records = hold_out(
        _read(config), config.held_out, seed=config.seed, key=lambda r: str(r["prompt"])
    )

    from rlhf_gym.core.models import add_lora, context_length, freeze_layers
    from rlhf_gym.core.supervised.language_model import load_for_training, perplexity
    from rlhf_gym.core.supervised.trainer import Examples, train

    model, tokenizer = load_for_training(
        config.model,
        end_token=config.end_token,
        trust_remote_code=config.trust_remote_code,
        device=config.device,
    )
    limits = [n for n in (config.max_length, context_length(model.config)) if n is not None]
    max_length = min(limits, default=None)
    examples, truncated, dropped = encode(train_records, tokenizer, max_length, config)
    held, _, _ = encode(held_records, tokenizer, max_length, config)
    if not examples:
        raise InvalidData(
            "data", config.data, f"no prompt leaves room in {max_length} tokens", "Shorten them"
        )
    collate = partial(collate_demonstrations, pad_id=int(tokenizer.pad_token_id))
    evaluate = partial(
        perplexity,
        examples=Examples(held, [len(d.input_ids) for d in held]),
        collate=collate,
        batch_size=config.batch_size,
    )
    before = evaluate(model)["perplexity"] if held else math.nan
    if config.freeze is not None:
        freeze_layers(model, config.freeze)
    if config.lora is not None:
        # A PeftModel forwards what it lacks to the model that it wraps.
        model = cast("PreTrainedModel", add_lora(model, config.lora, seed=config.seed))
    trained = train(
        model,
        Examples(examples, [len(d.input_ids) for d in examples]),
        collate,
        config,
        stage="sft",
        evaluate=evaluate if held else None,
    )
    result = SFTResult(
        output=folder,
        examples=len(examples),
        held_out_examples=len(held),
        truncated=truncated,
        dropped=dropped,
        steps=trained.steps,
        seconds=trained.seconds,
        perplexity_before=before,
        perplexity_after=trained.metrics.get("perplexity", math.nan),
    )
    samples = _samples(model, tokenizer, (held or examples)[:8], max_length, config.seed)
    close_folder(config, model, tokenizer, {"result": result, "samples": samples})
    return result


def encode(
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    config: SFTConfig,
) -> tuple[list[Demonstration], int, int]:
    """Tokenise demonstrations; what does not fit is cut at its end, or dropped.

    A completion that was cut has no EOS: it would teach to stop in mid-sentence.

    Args:
        records: with `prompt` and `completion`.
        tokenizer: of the model.
        max_length: tokens of prompt and completion together; None for no limit.
        config: says whether prompts go through the chat template.

    Returns:
        The demonstrations, how many were cut, and how many were dropped for their prompt.
    """
    from rlhf_gym.core.models import quiet_transformers

    if not records:
        return [], 0, 0
    with quiet_transformers():  # it would warn of lengths that are dealt with below
        prompts = _prompt_ids(records, tokenizer, config)
        texts = [record["completion"] for record in records]
        completions = tokenizer(texts, add_special_tokens=False)["input_ids"]
    demonstrations, truncated = [], 0
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = [*prompt, *completion, int(tokenizer.eos_token_id)]
        if max_length is not None and len(prompt) >= max_length:
            continue
        truncated += max_length is not None and len(ids) > max_length
        demonstrations.append(Demonstration(ids[:max_length], len(prompt)))
    return demonstrations, truncated, len(records) - len(demonstrations)


def collate_demonstrations(demonstrations: Sequence[Demonstration], pad_id: int) -> Batch:
    """Pad on the right to the longest; only completions and their EOS have labels.

    Returns:
        `input_ids`, `attention_mask`, `labels` (-100 where there is none), int64, each of shape
        (batch, longest).
    """
    import torch

    shape = len(demonstrations), max(len(d.input_ids) for d in demonstrations)
    input_ids = torch.full(shape, pad_id)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, -100)
    for row, (ids, prompt_length) in enumerate(demonstrations):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = 1
        labels[row, prompt_length : len(ids)] = input_ids[row, prompt_length : len(ids)]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def _read(config: SFTConfig) -> list[Record]:
    records = []
    for path in config.data:
        part = read_records(
            path, columns=config.columns, required=("prompt", "completion"), limit=config.limit
        )
        for column in ("completion",) if config.chat_template else ("prompt", "completion"):
            text_column(part, column, path)
        records += part
    return records


def _prompt_ids(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, config: SFTConfig
) -> list[list[int]]:
    prompts = [record["prompt"] for record in records]
    if not config.chat_template:
        return encode_beginnings(tokenizer, prompts)
    if tokenizer.chat_template is None:
        raise InvalidArgument(
            "chat_template", True, "the tokenizer has none", "Leave it out, or give another model"
        )
    chats = [[{"role": "user", "content": p}] if isinstance(p, str) else p for p in prompts]
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def _samples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    demonstrations: Sequence[Demonstration],
    max_length: int | None,
    seed: int,
) -> list[dict[str, Any]]:
    """What the model now answers to a few prompts, for people to read."""
    from rlhf_gym.core.supervised.language_model import sample_completions

    prompts = [d.input_ids[: d.prompt_length] for d in demonstrations]
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        return []
    room = 64 if max_length is None else min(64, max_length - max(map(len, prompts)))
    answers = sample_completions(model, tokenizer, prompts, room, seed)
    texts = (tokenizer.batch_decode(ids, skip_special_tokens=True) for ids in (prompts, answers))
    return [{"prompt": p, "completion": c} for p, c in zip(*texts, strict=True)]
