"""What a decoder is: a language model's trunk that reads one token more per step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from rlhf_gym.core.errors import InvalidArgument, InvalidPrompt
from rlhf_gym.core.tokens import position_ids


class Decoder(Protocol):
    """A causal language model with a cache of keys and values, one row per response.

    Hidden states are the trunk's output behind the final norm: what the LM head, a value head or a
    reward head reads. Nothing here needs or leaves gradients, dropout is off whatever mode the
    model is in, and the model's weights are read anew at every `prefill`.
    """

    def prefill(self, input_ids: Tensor, attention_mask: Tensor, capacity: int) -> Tensor:
        """Read the prompts and forget whatever was cached before.

        Args:
            input_ids: prompts, padded on the left, shape (rows, width).
            attention_mask: non-zero at real tokens, shape (rows, width); the last column is real.
            capacity: the most tokens a row will ever hold, prompt and padding included; at least
                width.

        Returns:
            Hidden states at the last column, shape (rows, hidden).
        """

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to every row.

        Args:
            tokens: shape (rows,).

        Returns:
            Hidden states at those tokens, shape (rows, hidden).
        """

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these from the cache.

        Args:
            rows: distinct row numbers, in the order wanted from now on, or True at the rows to
                keep.
        """

    def replace(self, rows: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Start some rows afresh with new prompts while the others go on where they are.

        Args:
            rows: distinct row numbers, shape (replaced,).
            input_ids: their new prompts, padded on the left, shape (replaced, width).
            attention_mask: non-zero at real tokens, shape (replaced, width); the last column is
                real.

        Returns:
            Hidden states at the last column of the replaced rows, shape (replaced, hidden).
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """The model's head on hidden states, shape (..., hidden) to (..., model vocabulary)."""

    def hidden_at(self, input_ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        """Teacher-forced hidden states of chosen tokens; the cache is left alone.

        Args:
            input_ids: shape (rows, width); padding may stand on either side.
            attention_mask: non-zero at real tokens, shape (rows, width).
            wanted: True at the tokens asked for, none of them padding, shape (rows, width).

        Returns:
            Row after row, shape (number wanted, hidden).
        """

    def release(self) -> None:
        """Give the memory of cache and prepared weights back; `prefill` begins anew."""


def row_indices(rows: Tensor, count: int, device: torch.device) -> Tensor:
    """Row numbers from numbers or from a boolean mask over `count` rows."""
    rows = rows.to(device)
    if rows.dtype == torch.bool:
        if rows.shape != (count,):
            raise InvalidArgument(
                "rows",
                tuple(rows.shape),
                f"a mask over {count} rows was expected",
                "Give one bool per row",
            )
        return rows.nonzero().squeeze(-1)
    return rows.long()


def check_prompts(input_ids: Tensor, attention_mask: Tensor) -> None:
    """Refuse prompts that a decoder would silently misread.

    Raises:
        InvalidPrompt: no row or column, shapes that differ, or a last column that is padding.
    """
    if input_ids.ndim != 2 or input_ids.numel() == 0 or input_ids.shape != attention_mask.shape:
        raise InvalidPrompt(
            "input_ids",
            tuple(input_ids.shape),
            f"with an attention_mask of {tuple(attention_mask.shape)}, not two equal (rows, width)",
            "Give ids and mask of one shape, with at least one prompt of at least one token",
        )
    if not bool(attention_mask[:, -1].all()):
        raise InvalidPrompt(
            "attention_mask",
            attention_mask[:, -1].tolist(),
            "the last column is padding in some rows",
            "Pad prompts on the left; an empty prompt needs at least a BOS token",
        )


def check_length(longest: int, context: int | None) -> None:
    """Refuse sequences that a model has no positions for.

    Raises:
        InvalidPrompt: `longest` tokens do not fit into `context`.
    """
    if context is not None and longest > context:
        raise InvalidPrompt(
            "capacity",
            longest,
            f"prompt and response do not fit into the model's context of {context} tokens",
            "Shorten max_prompt_tokens or max_response_tokens, or take a model that reads more",
        )


def trim_left(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Drop the leading columns that are padding in every row."""
    used = attention_mask.bool().any(0)
    first = int(used.int().argmax())
    return input_ids[:, first:], attention_mask[:, first:]


def left_justified(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move every row's tokens to the left edge: a causal trunk then needs no mask at all.

    Args:
        input_ids: shape (rows, width), padded on either side.
        attention_mask: non-zero at real tokens, shape (rows, width).

    Returns:
        The moved ids, shape (rows, longest row), arbitrary behind a row's end, where no real token
        looks; and for each original column the column it moved to, shape (rows, width).
    """
    real = attention_mask.bool()
    columns = position_ids(real)
    longest = max(1, int(real.sum(-1).max()))
    # A stable sort brings real tokens to the front in their order.
    order = real.int().argsort(dim=-1, descending=True, stable=True)[:, :longest]
    return input_ids.gather(1, order), columns


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while, and put every submodule back as it was found."""
    training = [module for module in model.modules() if module.training] if model.training else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
