"""What pretraining and fine-tuning share: the model they begin with, its loss and its samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from rlhf_gym.core.devices import Device
from rlhf_gym.core.models import disable_dropout, load_causal_lm, load_tokenizer, quiet_transformers
from rlhf_gym.core.sampler import complete
from rlhf_gym.core.supervised.trainer import Batch, Examples, Metrics
from rlhf_gym.core.tokenizers import (
    check_tokenizer,
    end_token_ids,
    ensure_pad_token,
    set_end_token,
)
from rlhf_gym.core.tokens import TokenRules

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_for_training(
    path_or_name: str,
    *,
    end_token: str | None = None,
    trust_remote_code: bool = False,
    device: Device = "auto",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A pretrained model and its tokenizer, with a PAD and an end token of their own.

    Args:
        path_or_name: directory or hub name.
        end_token: what ends a text; the tokenizer's EOS if None.
        trust_remote_code: let the directory execute Python code of its own.
        device: where the model goes; "auto" is a GPU if there is one.

    Raises:
        InvalidCheckpoint: it cannot be loaded.
        TokenizerMismatch: the two do not fit, or there is no such end token.
    """
    model = load_causal_lm(path_or_name, device=device, trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(path_or_name, trust_remote_code=trust_remote_code)
    set_end_token(tokenizer, model, end_token)
    with quiet_transformers():
        ensure_pad_token(tokenizer, model)
    check_tokenizer(model, tokenizer)
    disable_dropout(model)
    return model, tokenizer


def perplexity(
    model: PreTrainedModel,
    examples: Examples[Any],
    collate: Callable[[Sequence[Any]], Batch],
    batch_size: int,
) -> Metrics:
    """How well a model predicts held-out examples: mean over tokens, not over batches.

    Returns:
        `loss` in nats a token, `perplexity` = exp(loss), `tokens` that were predicted.
    """
    nats, tokens = 0.0, 0
    by_length = examples.lengths.argsort()
    for start in range(0, len(examples), batch_size):
        batch = collate([examples[int(i)] for i in by_length[start : start + batch_size]])
        count = int((batch["labels"][:, 1:] != -100).sum())
        inputs = {
            name: value.to(model.device) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        with torch.no_grad(), quiet_transformers():  # GPT-2's loss is none that it knows by name
            nats += model(**inputs).loss.item() * count
        tokens += count
    loss = nats / max(tokens, 1)
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "tokens": tokens}


def sample_completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    seed: int,
) -> list[list[int]]:
    """What a model writes after prompts, as token ids without the end token.

    Args:
        model: in eval mode.
        tokenizer: of the model.
        prompts: token ids, at least one each.
        max_tokens: longest completion.
        seed: of the randomness.
    """
    pad, ends = int(tokenizer.pad_token_id), end_token_ids(tokenizer, model)
    width = max(map(len, prompts))
    rows = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    real = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    completions = complete(
        model,
        torch.tensor(rows, device=model.device),
        torch.tensor(real, device=model.device),
        TokenRules(len(tokenizer), pad, ends),
        max_tokens,
        torch.Generator(model.device).manual_seed(seed),
    )
    kept = completions.mask.sum(-1) - completions.stopped.long()
    responses = zip(completions.response_ids.tolist(), kept.tolist(), strict=True)
    return [ids[:length] for ids, length in responses]
