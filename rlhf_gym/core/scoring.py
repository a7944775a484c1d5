"""Teacher-forced scoring: the log-probabilities of responses that are already written."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rlhf_gym.core.decoding import Backend, make_decoder
from rlhf_gym.core.tokens import TokenRules, gather_log_probs, legal_logits

TRUNK_TOKENS = 1 << 14
"""Most tokens, padding included, that go through the trunk at once."""

CPU_TOKENS = 1 << 10
"""The same on a CPU: products are no faster with more, and activations would leave its caches."""

HEAD_FLOATS = 1 << 25
"""Most logits that exist at once: 128 MiB in float32."""


@torch.no_grad()
def token_log_probs(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    prompt_width: int,
    rules: TokenRules,
    action_masks: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Log-probability of every response token under the legal logits.

    Args:
        model: a Hugging Face causal language model, plain or wrapped by peft.
        input_ids: prompts padded on the left, responses padded on the right, shape (batch, width).
        attention_mask: non-zero at real tokens, shape (batch, width).
        prompt_width: column at which every response begins, at least 1.
        rules: temperature, vocabulary and tokens that are never legal.
        action_masks: True where an action was allowed, shape (batch, time, vocab); None allows all.
        backend: see `rlhf_gym.core.decoding.make_decoder`.

    Returns:
        Nats, float32, 0 where there is no token, shape (batch, time) with time = width -
        prompt_width, on the model's device.
    """
    mask = attention_mask[:, prompt_width:].bool()
    result: Tensor | None = None
    for rows, times, logits in _response_logits(
        model, input_ids, attention_mask, prompt_width, rules, action_masks, backend
    ):
        if result is None:
            result = logits.new_zeros(mask.shape, dtype=torch.float32)
        actions = input_ids[:, prompt_width:].to(logits.device)[rows, times]
        result[rows, times] = gather_log_probs(logits, actions)
    return torch.zeros(mask.shape) if result is None else result


@torch.no_grad()
def token_log_distributions(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    prompt_width: int,
    rules: TokenRules,
    action_masks: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Log-probabilities of the whole vocabulary before every response token.

    Args:
        model: a Hugging Face causal language model, plain or wrapped by peft.
        input_ids: prompts padded on the left, responses padded on the right, shape (batch, width).
        attention_mask: non-zero at real tokens, shape (batch, width).
        prompt_width: column at which every response begins, at least 1.
        rules: temperature, vocabulary and tokens that are never legal.
        action_masks: True where an action was allowed, shape (batch, time, vocab); None allows all.
        backend: see `rlhf_gym.core.decoding.make_decoder`.

    Returns:
        Nats, float32, minus infinity at illegal tokens, 0 everywhere where there is no token, shape
        (batch, time, vocab) with time = width - prompt_width, on the model's device.
    """
    mask = attention_mask[:, prompt_width:].bool()
    shape = (*mask.shape, rules.vocab_size)
    result: Tensor | None = None
    for rows, times, logits in _response_logits(
        model, input_ids, attention_mask, prompt_width, rules, action_masks, backend
    ):
        if result is None:
            result = logits.new_zeros(shape, dtype=torch.float32)
        result[rows, times] = logits.log_softmax(-1)
    return torch.zeros(shape) if result is None else result


def sequence_perplexity(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    prompt_width: int,
    rules: TokenRules,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Perplexity of each response: exp of the mean negative log-probability of its tokens.

    Args:
        model: a Hugging Face causal language model, plain or wrapped by peft.
        input_ids: prompts padded on the left, responses padded on the right, shape (batch, width).
        attention_mask: non-zero at real tokens, shape (batch, width).
        prompt_width: column at which every response begins, at least 1.
        rules: temperature, vocabulary and tokens that are never legal.
        backend: see `rlhf_gym.core.decoding.make_decoder`.

    Returns:
        Float32, NaN for a response without a token, shape (batch,), on the model's device.
    """
    log_probs = token_log_probs(
        model, input_ids, attention_mask, prompt_width, rules, backend=backend
    )
    lengths = attention_mask[:, prompt_width:].bool().sum(-1).to(log_probs.device)
    return (-log_probs.sum(-1) / lengths).exp()


def _response_logits(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    prompt_width: int,
    rules: TokenRules,
    action_masks: Tensor | None,
    backend: Backend,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Legal logits of the response tokens, a chunk at a time.

    Rows go through the trunk in order of length, so that short ones are not padded to the longest;
    the head sees real response tokens only.

    Yields:
        rows and times of the chunk's tokens, each of shape (tokens,), and their legal logits in
        float32, shape (tokens, vocab).
    """
    decoder = make_decoder(model, backend)
    device = next(model.parameters()).device
    for chunk in length_buckets(attention_mask, device):
        mask = attention_mask[chunk].bool()
        # The token in column c is predicted from column c - 1; a row's last token predicts nothing.
        read = mask[:, :-1] & mask[:, 1:]
        wanted = read.clone()
        wanted[:, : prompt_width - 1] = False
        hidden = decoder.hidden_at(input_ids[chunk, :-1], read, wanted)
        rows, times = mask[:, prompt_width:].nonzero(as_tuple=True)
        size = max(1, HEAD_FLOATS // rules.vocab_size)
        for some, some_rows, some_times in zip(
            *(torch.split(each, size) for each in (hidden, rows, times)), strict=True
        ):
            raw = decoder.logits(some).float()
            batch_rows = chunk[some_rows]
            allowed = (
                None
                if action_masks is None
                else action_masks[batch_rows, some_times].to(raw.device)
            )
            legal = legal_logits(raw, rules, allowed)
            yield batch_rows, some_times, legal


def length_buckets(attention_mask: Tensor, device: torch.device) -> Iterator[Tensor]:
    """Parts of a batch that go through a trunk at once.

    Args:
        attention_mask: non-zero at real tokens, shape (batch, width).
        device: where the trunk is.

    Yields:
        Numbers of rows of similar length, longest first, shape (k,).
    """
    most = min(CPU_TOKENS, TRUNK_TOKENS) if device.type == "cpu" else TRUNK_TOKENS
    lengths, order = attention_mask.bool().sum(-1).sort(descending=True)
    start = 0
    while start < len(order):
        end = start + max(1, most // max(1, int(lengths[start])))
        yield order[start:end]
        start = end
