"""Causal attention of packed rows on CPUs: one gather in, small products per head, one gather out.

torch's kernel wants a padded grid, and copies of it in another layout. Here the numbers of one
token and head are a chunk, and chunks are fetched straight to where the products need them. Short
rows share a line as wide as the longest row, each seeing itself alone, so all lines are of one
width and every layer is one batched product of each kind, whatever the lengths.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlhf_gym.agents.cpu_kernels import is_ours

LONGEST_ROW = 128
"""Up to here rows attend through one small product per head; its memory grows with the square."""


class AttentionPlan(NamedTuple):
    """Which chunk goes where; the same for every layer of a forward pass.

    A slot is a place for one token in a line. The products see a line once for each head.

    Attributes:
        heads: of queries, keys and values alike.
        width: slots of a line, as many as the longest row has tokens.
        bias: 0 where a slot looks, minus infinity elsewhere, shape (width, width), or where rows
            share lines (lines * heads, width, width).
        qkv_to_slots: chunk of queries, keys or values for each place of (part, line, head, slot);
            some real one where padding is, shape (3 * lines * heads * width,).
        slots_to_qkv: the way back, shape (3 * heads * tokens,).
        tokens_to_slots: output chunk for each place of (line, head, slot); heads * tokens where
            padding is, shape (lines * heads * width,).
        slots_to_tokens: the way back, shape (heads * tokens,).
    """

    heads: int
    width: int
    bias: Tensor
    qkv_to_slots: Tensor
    slots_to_qkv: Tensor
    tokens_to_slots: Tensor
    slots_to_tokens: Tensor

    @classmethod
    def of(cls, lengths: Tensor, heads: int) -> AttentionPlan:
        """Lay rows into lines.

        Args:
            lengths: tokens of each row, at least 1, in the order the rows are packed, shape
                (rows,).
            heads: of queries, keys and values alike.
        """
        count = lengths.tolist()
        width = max(count)
        places = _lines(count, width)
        lines = 1 + max(line for line, _ in places)
        line, offset = torch.tensor(places).repeat_interleave(lengths, 0).unbind(-1)
        row = torch.arange(len(count)).repeat_interleave(lengths)
        tokens = len(row)
        slot = offset + torch.arange(tokens) - (lengths.cumsum(0) - lengths)[row]

        bias = torch.full((width, width), -torch.inf).triu_(1)
        if lines < len(count):
            owner = torch.full((lines, width), -1)
            owner[line, slot] = row
            others = owner.unsqueeze(1) != owner.unsqueeze(2)
            bias = bias.masked_fill(others, -torch.inf).repeat_interleave(heads, 0)

        # Each of shape (tokens, heads) or (tokens, 3 * heads), as chunks lie in the packed tokens.
        to_tokens = ((line * heads).unsqueeze(-1) + torch.arange(heads)) * width
        to_tokens += slot.unsqueeze(-1)
        places_per_part = lines * heads * width
        to_qkv = torch.cat([to_tokens + part * places_per_part for part in range(3)], dim=1)
        to_tokens, to_qkv = to_tokens.flatten(), to_qkv.flatten()
        from_qkv = torch.zeros(3 * places_per_part, dtype=torch.long)
        from_qkv[to_qkv] = torch.arange(len(to_qkv))
        from_tokens = torch.full((places_per_part,), heads * tokens)
        from_tokens[to_tokens] = torch.arange(len(to_tokens))
        return cls(heads, width, bias, from_qkv, to_qkv, from_tokens, to_tokens)

    def by_line(self, chunks: Tensor) -> Tensor:
        """What stands at the slots, shape (n * width, size), as (n, width, size)."""
        return chunks.view(-1, self.width, chunks.shape[-1])


def is_faster(qkv: Tensor, width: int) -> bool:
    """Whether `packed_causal_attention` is the faster one, and allowed.

    Args:
        qkv: queries, keys and values.
        width: length of the longest row.
    """
    return width <= LONGEST_ROW and is_ours(qkv)


def packed_causal_attention(qkv: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
    """Causal attention of every token to its own row, differentiable once.

    Args:
        qkv: queries, keys and values side by side, float32, shape (tokens, 3 * heads * size).
        plan: of these rows.
        scale: factor on the products of queries and keys.

    Returns:
        Shape (tokens, heads * size).
    """
    mixed: Tensor = _PackedAttention.apply(qkv, plan, scale)  # type: ignore[no-untyped-call]
    return mixed


class _PackedAttention(torch.autograd.Function):
    """softmax(scale Q K^T + bias) V, all heads of all lines in one batched product.

    Padding stands behind its rows, where they never look, and its gradient is 0.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
        tokens = len(qkv)
        chunks = qkv.reshape(tokens * 3 * plan.heads, -1).index_select(0, plan.qkv_to_slots)
        queries, keys, values = plan.by_line(chunks).chunk(3)
        scores = torch.baddbmm(plan.bias, queries, keys.mT, alpha=scale)
        weights = scores.softmax(-1)
        mixed = torch.bmm(weights, values).flatten(0, 1)
        ctx.save_for_backward(chunks, weights)
        ctx.plan, ctx.scale = plan, scale
        return mixed.index_select(0, plan.slots_to_tokens).view(tokens, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        chunks, weights = ctx.saved_tensors
        plan: AttentionPlan = ctx.plan
        tokens = len(gradient)
        queries, keys, values = plan.by_line(chunks).chunk(3)
        d_tokens = gradient.reshape(tokens * plan.heads, -1)
        # The row of zeros is what padding gets.
        d_tokens = torch.cat([d_tokens, d_tokens.new_zeros(1, d_tokens.shape[-1])])
        d_mixed = plan.by_line(d_tokens.index_select(0, plan.tokens_to_slots))
        d_chunks = torch.empty_like(chunks)
        d_queries, d_keys, d_values = plan.by_line(d_chunks).chunk(3)
        torch.bmm(weights.mT, d_mixed, out=d_values)
        d_weights = torch.bmm(d_mixed, values.mT)
        # d_scores = weights * (d_weights - sum(weights * d_weights))
        d_scores = torch._softmax_backward_data(d_weights, weights, -1, torch.float32)
        d_scores.mul_(ctx.scale)
        torch.bmm(d_scores, keys, out=d_queries)
        torch.bmm(d_scores.mT, queries, out=d_keys)
        return d_chunks.index_select(0, plan.slots_to_qkv).view(tokens, -1), None, None


def _lines(lengths: list[int], width: int) -> list[tuple[int, int]]:
    """Line and first slot of each row: the longest first, each into the first line with room."""
    places = [(0, 0)] * len(lengths)
    used: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        length = lengths[row]
        line = next((at for at, taken in enumerate(used) if taken + length <= width), len(used))
        if line == len(used):
            used.append(0)
        places[row] = line, used[line]
        used[line] += length
    return places
