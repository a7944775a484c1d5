"""The one cached decoder loop: agents, collect, best-of-n and evaluate all sample here."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlhf_gym.core.decoding import Backend, make_decoder
from rlhf_gym.core.decoding.base import row_indices
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.sampling import greedy_tokens, sample_tokens
from rlhf_gym.core.tokens import TokenRules, legal_logits


class Draw(NamedTuple):
    """One token for every row.

    Attributes:
        tokens: int64, shape (rows,).
        log_probs: their log-probabilities in nats under the legal logits, float32, shape (rows,).
        log_distribution: log-probabilities of the whole vocabulary, shape (rows, vocab), or None.
    """

    tokens: Tensor
    log_probs: Tensor
    log_distribution: Tensor | None


class Completions(NamedTuple):
    """Finished responses.

    Attributes:
        response_ids: PAD behind the last token, int64, shape (batch, time).
        log_probs: in nats under the legal logits, 0 off the mask, float32, shape (batch, time).
        mask: True where a token counts, the stop token included, shape (batch, time).
        stopped: True where a stop token ended the response, shape (batch,).
    """

    response_ids: Tensor
    log_probs: Tensor
    mask: Tensor
    stopped: Tensor


class Sampler:
    """Prompts in, one token per row and step out.

    ```
    sampler.prefill(input_ids, attention_mask, max_new_tokens)
    draw = sampler.draw()
    sampler.advance(draw.tokens)
    sampler.keep(~finished)
    ```

    Weights are read at `prefill`: after an update, prefill again. Nothing here has gradients, and
    dropout is off whatever mode the model is in.

    Args:
        model: a Hugging Face causal language model, plain or wrapped by peft.
        rules: vocabulary, temperature and tokens that are never legal.
        generator: the only source of randomness.
        backend: see `rlhf_gym.core.decoding.make_decoder`.
        with_distribution: give the full distribution with every draw.
    """

    def __init__(
        self,
        model: nn.Module,
        rules: TokenRules,
        *,
        generator: torch.Generator,
        backend: Backend = "auto",
        with_distribution: bool = False,
    ) -> None:
        self.rules = rules
        self.generator = generator
        self.with_distribution = with_distribution
        self._decoder = make_decoder(model, backend)
        self._hidden: Tensor | None = None

    @property
    def hidden(self) -> Tensor:
        """What predicts the next token, shape (rows, hidden); a value head reads it too."""
        if self._hidden is None:
            raise InvalidArgument(
                "hidden", None, "no prompt has been read yet", "Call prefill first"
            )
        return self._hidden

    def __len__(self) -> int:
        """Rows in the batch."""
        return 0 if self._hidden is None else len(self._hidden)

    def prefill(self, input_ids: Tensor, attention_mask: Tensor, max_new_tokens: int) -> None:
        """Read prompts and start one row for each.

        Args:
            input_ids: padded on the left, shape (rows, width).
            attention_mask: non-zero at real tokens, shape (rows, width).
            max_new_tokens: the most tokens any row will be advanced by.

        Raises:
            InvalidPrompt: an empty prompt, padding on the right, or too long for the model.
        """
        capacity = input_ids.shape[-1] + max_new_tokens
        self._hidden = self._decoder.prefill(input_ids, attention_mask, capacity)

    def logits(self, mask: Tensor | None = None) -> Tensor:
        """Legal logits of the next token, float32, shape (rows, vocab).

        Args:
            mask: True where an action is allowed, shape (rows, vocab); None allows all.
        """
        logits = self._decoder.logits(self.hidden)
        return legal_logits(logits, self.rules, None if mask is None else mask.to(logits.device))

    def draw(self, mask: Tensor | None = None, deterministic: bool = False) -> Draw:
        """Choose the next token of every row; the rows do not advance yet.

        Args:
            mask: True where an action is allowed, shape (rows, vocab); None allows all.
            deterministic: take the most probable token instead of sampling.
        """
        logits = self.logits(mask)
        choice = greedy_tokens(logits) if deterministic else sample_tokens(logits, self.generator)
        distribution = logits.float().log_softmax(-1) if self.with_distribution else None
        return Draw(*choice, distribution)

    def advance(self, tokens: Tensor) -> None:
        """Append a token to every row, shape (rows,)."""
        self._hidden = self._decoder.step(tokens)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these: distinct row numbers, or True at the rows to keep."""
        rows = row_indices(rows, len(self), self.hidden.device)
        self._decoder.keep(rows)
        self._hidden = self.hidden[rows]

    def replace(self, rows: Tensor, input_ids: Tensor, attention_mask: Tensor) -> None:
        """Start some rows afresh with new prompts while the others go on.

        Args:
            rows: distinct row numbers, or True at the rows to replace.
            input_ids: their new prompts, padded on the left, shape (replaced, width).
            attention_mask: non-zero at real tokens, shape (replaced, width).
        """
        rows = row_indices(rows, len(self), self.hidden.device)
        hidden = self.hidden.clone()
        hidden[rows] = self._decoder.replace(rows, input_ids, attention_mask)
        self._hidden = hidden

    def release(self) -> None:
        """Give the memory of cache and prepared weights back, before an update for instance."""
        self._decoder.release()
        self._hidden = None


def complete(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    rules: TokenRules,
    max_new_tokens: int,
    generator: torch.Generator,
    *,
    deterministic: bool = False,
    batch_size: int | None = None,
    backend: Backend = "auto",
) -> Completions:
    """Write a response to every prompt; rows that have finished leave the batch.

    Args:
        model: a Hugging Face causal language model, plain or wrapped by peft.
        input_ids: prompts, padded on the left, shape (batch, width).
        attention_mask: non-zero at real tokens, shape (batch, width).
        rules: vocabulary, temperature, stop tokens and tokens that are never legal.
        max_new_tokens: response budget in tokens.
        generator: the only source of randomness.
        deterministic: take the most probable token instead of sampling.
        batch_size: rows decoded together; None takes all of them at once.
        backend: see `rlhf_gym.core.decoding.make_decoder`.

    Raises:
        InvalidPrompt: an empty prompt, padding on the right, or too long for the model.
        InvalidArgument: `max_new_tokens` or `batch_size` below 1.
    """
    for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise InvalidArgument(name, value, "there would be nothing to do", "Give at least 1")
    sampler = Sampler(model, rules, generator=generator, backend=backend)
    size = batch_size or max(1, len(input_ids))
    parts = [
        _complete_batch(sampler, ids, mask, max_new_tokens, deterministic)
        for ids, mask in zip(
            torch.split(input_ids, size), torch.split(attention_mask, size), strict=True
        )
    ]
    return Completions(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _complete_batch(
    sampler: Sampler,
    input_ids: Tensor,
    attention_mask: Tensor,
    max_new_tokens: int,
    deterministic: bool,
) -> Completions:
    """`complete` for rows that are decoded together."""
    rules = sampler.rules
    sampler.prefill(input_ids, attention_mask, max_new_tokens)
    device = sampler.hidden.device
    shape = (len(input_ids), max_new_tokens)
    response_ids = torch.full(shape, rules.pad_id, dtype=torch.long, device=device)
    log_probs = torch.zeros(shape, device=device)
    lengths = torch.full(shape[:1], max_new_tokens, device=device)
    stopped = torch.zeros(shape[:1], dtype=torch.bool, device=device)
    is_stop = torch.zeros(rules.vocab_size, dtype=torch.bool, device=device)
    is_stop[torch.tensor(rules.stop_ids, dtype=torch.long, device=device)] = True

    # Rows still in the batch: their numbers, and what they have written so far.
    alive = torch.arange(len(input_ids), device=device)
    written_ids, written_log_probs = response_ids.clone(), log_probs.clone()
    for time in range(max_new_tokens):
        tokens, written_log_probs[:, time], _ = sampler.draw(deterministic=deterministic)
        written_ids[:, time] = tokens
        ends = is_stop.gather(0, tokens)
        if ends.any():
            done, goes_on = alive[ends], (~ends).nonzero().squeeze(-1)
            response_ids[done], log_probs[done] = written_ids[ends], written_log_probs[ends]
            lengths[done], stopped[done] = time + 1, True
            if len(goes_on) > 0:
                sampler.keep(goes_on)
            alive, tokens = alive[goes_on], tokens[goes_on]
            written_ids, written_log_probs = written_ids[goes_on], written_log_probs[goes_on]
        if len(alive) == 0 or time + 1 == max_new_tokens:
            break
        sampler.advance(tokens)
    response_ids[alive], log_probs[alive] = written_ids, written_log_probs
    sampler.release()
    mask = torch.arange(max_new_tokens, device=device) < lengths[:, None]
    return Completions(response_ids, log_probs, mask, stopped)
