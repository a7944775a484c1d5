"""Causal attention of packed rows on CPUs: one gather in, small products per head, one gather out.

torch's kernel wants a padded grid, and copies of it in another layout. Here the numbers of one
token and head are a chunk, and chunks are fetched straight to where the products need them. Rows of
similar length are padded to the longest of their group alone, so short rows stay cheap.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlhf_gym.agents.cpu_kernels import is_ours

LONGEST_ROW = 128
"""Up to here rows attend through one small product per head; its memory grows with the square."""

SHORTEST_SHARE = 0.7
"""Rows shorter than this share of a group's longest row begin another group."""


class RowGroup(NamedTuple):
    """Rows that attend together, padded to the longest of them.

    Attributes:
        first: slots in the groups before.
        rows: number of rows.
        width: length of the longest.
    """

    first: int
    rows: int
    width: int

    @property
    def slots(self) -> int:
        """Places for a token, padding included."""
        return self.rows * self.width


class AttentionPlan(NamedTuple):
    """Which chunk goes where; the same for every layer of a forward pass.

    A slot is a place for one token in the padded rows of its group.

    Attributes:
        groups: rows that attend together.
        heads: of queries, keys and values alike.
        qkv_to_slots: chunk of queries, keys or values for each place of (group, part, row, head,
            position); some real one where padding is, shape (3 * heads * slots,).
        slots_to_qkv: the way back, shape (3 * heads * tokens,).
        tokens_to_slots: output chunk for each place of (group, row, head, position); heads * tokens
            where padding is, shape (heads * slots,).
        slots_to_tokens: the way back, shape (heads * tokens,).
    """

    groups: list[RowGroup]
    heads: int
    qkv_to_slots: Tensor
    slots_to_qkv: Tensor
    tokens_to_slots: Tensor
    slots_to_tokens: Tensor

    @classmethod
    def of(cls, lengths: Tensor, heads: int) -> AttentionPlan:
        """Group rows by length.

        Args:
            lengths: tokens of each row, at least 1, in the order the rows are packed, shape
                (rows,).
            heads: of queries, keys and values alike.
        """
        ordered, order = lengths.sort(descending=True, stable=True)
        groups = _group(ordered.tolist())
        # Of every row: its group's three numbers, its place in the group, its first token.
        told = torch.empty(len(order), 4, dtype=torch.long)
        told[order] = torch.tensor([(*g, place) for g in groups for place in range(g.rows)])
        told = torch.cat([told, (lengths.cumsum(0) - lengths).unsqueeze(-1)], dim=1)
        # Each of shape (tokens, 1).
        first, rows, width, place, start = told.repeat_interleave(lengths, 0).T.unsqueeze(-1)
        tokens = len(start)
        positions = torch.arange(tokens).unsqueeze(-1) - start

        head, part = torch.arange(heads), torch.arange(3).repeat_interleave(heads)
        line = place * heads + head
        to_tokens = (heads * first + line * width + positions).flatten()
        line = line.repeat(1, 3) + part * rows * heads
        to_qkv = (3 * heads * first + line * width + positions).flatten()

        slots = groups[-1].first + groups[-1].slots
        from_qkv = torch.zeros(3 * heads * slots, dtype=torch.long)
        from_qkv[to_qkv] = torch.arange(len(to_qkv))
        from_tokens = torch.full((heads * slots,), heads * tokens)
        from_tokens[to_tokens] = torch.arange(len(to_tokens))
        return cls(groups, heads, from_qkv, to_qkv, from_tokens, to_tokens)

    def by_group(self, chunks: Tensor, parts: int) -> list[tuple[Tensor, ...]]:
        """Views of what stands at the slots, for each group `parts` of (rows * heads, width, size).

        Args:
            chunks: shape (parts * heads * slots, size).
            parts: 3 for queries, keys and values, 1 for one of them.
        """
        sizes = [parts * self.heads * group.slots for group in self.groups]
        return [
            some.view(parts, self.heads * group.rows, group.width, chunks.shape[-1]).unbind()
            for group, some in zip(self.groups, torch.split(chunks, sizes), strict=True)
        ]


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
    """softmax(scale Q K^T + causal mask) V, all heads of a group's rows in one batched product.

    Padding stands behind its row, where causal attention never looks, and its gradient is 0.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
        tokens, heads = len(qkv), plan.heads
        chunks = qkv.reshape(tokens * 3 * heads, -1).index_select(0, plan.qkv_to_slots)
        mixed = chunks.new_empty(len(chunks) // 3, chunks.shape[-1])
        longest = plan.groups[0].width
        future = torch.full((longest, longest), -torch.inf).triu_(1)
        all_weights = []
        for (queries, keys, values), (out,) in zip(
            plan.by_group(chunks, 3), plan.by_group(mixed, 1), strict=True
        ):
            width = out.shape[1]
            scores = torch.baddbmm(future[:width, :width], queries, keys.mT, alpha=scale)
            weights = scores.softmax(-1)
            torch.bmm(weights, values, out=out)
            all_weights.append(weights)
        ctx.save_for_backward(chunks, *all_weights)
        ctx.plan, ctx.scale = plan, scale
        return mixed.index_select(0, plan.slots_to_tokens).view(tokens, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        chunks, *all_weights = ctx.saved_tensors
        plan: AttentionPlan = ctx.plan
        tokens, heads = len(gradient), plan.heads
        d_tokens = gradient.reshape(tokens * heads, -1)
        # The row of zeros is what padding gets.
        d_tokens = torch.cat([d_tokens, d_tokens.new_zeros(1, d_tokens.shape[-1])])
        d_mixed = d_tokens.index_select(0, plan.tokens_to_slots)
        d_chunks = torch.empty_like(chunks)
        for weights, (queries, keys, values), (d_queries, d_keys, d_values), (d_out,) in zip(
            all_weights,
            plan.by_group(chunks, 3),
            plan.by_group(d_chunks, 3),
            plan.by_group(d_mixed, 1),
            strict=True,
        ):
            torch.bmm(weights.mT, d_out, out=d_values)
            d_weights = torch.bmm(d_out, values.mT)
            # d_scores = weights * (d_weights - sum(weights * d_weights))
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, torch.float32)
            d_scores.mul_(ctx.scale)
            torch.bmm(d_scores, keys, out=d_queries)
            torch.bmm(d_scores.mT, queries, out=d_keys)
        return d_chunks.index_select(0, plan.slots_to_qkv).view(tokens, -1), None, None


def _group(lengths: list[int]) -> list[RowGroup]:
    """Cut rows in order of falling length where a row is much shorter than its group's longest."""
    groups: list[RowGroup] = []
    for length in lengths:
        if groups and length >= SHORTEST_SHARE * groups[-1].width:
            groups[-1] = groups[-1]._replace(rows=groups[-1].rows + 1)
            continue
        first = groups[-1].first + groups[-1].slots if groups else 0
        groups.append(RowGroup(first, 1, length))
    return groups
