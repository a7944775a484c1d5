"""A training pass over the real tokens of a batch alone, for the GPT-2 and Llama families.

Linear layers, norms and activations see one long list of tokens, whatever responses they belong to;
attention alone sees rows. So a minibatch of unequal lengths costs what its tokens cost. In the last
block only the tokens whose hidden states are wanted go on behind the attention.

The model's own modules are called, or computed as they would compute it (`feed_forward`), so
adapters and frozen layers work, and gradients flow.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rlhf_gym.agents.cpu_kernels import feed_forward
from rlhf_gym.agents.packed_attention import AttentionPlan, is_faster, packed_causal_attention
from rlhf_gym.core.decoding.fast import Architecture
from rlhf_gym.core.decoding.gpt2 import GPT2Trunk, gpt2_trunk
from rlhf_gym.core.decoding.llama import LlamaTrunk, llama_trunk


class PackedRows(NamedTuple):
    """Rows of unequal length as one list of tokens.

    Attributes:
        ids: all real tokens, row after row, shape (tokens,).
        positions: place of each in its row, shape (tokens,).
        slots: place of each in the padded grid, row * width + position, shape (tokens,).
        rows: number of rows.
        width: length of the longest.
        wanted: which tokens' hidden states are asked for, shape (wanted,).
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    rows: int
    width: int
    wanted: Tensor

    @classmethod
    def of(cls, input_ids: Tensor, attention_mask: Tensor, prompt_width: int) -> PackedRows:
        """Pack written responses; wanted are the tokens that response tokens are predicted from.

        Args:
            input_ids: prompts padded on the left, responses padded on the right, at least one token
                each, shape (rows, columns).
            attention_mask: non-zero at real tokens, shape (rows, columns).
            prompt_width: column at which responses begin.
        """
        # A row's last token predicts nothing: a token is read only if another one follows.
        mask = attention_mask.bool()
        read = mask[:, :-1] & mask[:, 1:]
        columns = read.shape[1]
        flat = read.flatten().nonzero().squeeze(-1)
        row, column = flat // columns, flat % columns
        lengths = read.sum(-1)
        first = lengths.cumsum(0) - lengths
        positions = torch.arange(len(flat), device=flat.device) - first[row]
        width = int(lengths.max())
        return cls(
            input_ids[:, :-1].flatten()[flat],
            positions,
            row * width + positions,
            len(mask),
            width,
            (column >= prompt_width - 1).nonzero().squeeze(-1),
        )

    def grid(self) -> Tensor:
        """The ids as rows at the left edge, any real token where padding is, shape (rows, width).

        PAD itself would make transformers warn that there is no mask; a causal trunk needs none.
        """
        padded = self.ids.new_full((self.rows * self.width,), int(self.ids[0]))
        return padded.index_copy_(0, self.slots, self.ids).view(self.rows, self.width)

    def lengths(self) -> Tensor:
        """Tokens of each row, shape (rows,)."""
        return torch.bincount(self.slots // self.width, minlength=self.rows)

    def to_grid(self, packed: Tensor) -> Tensor:
        """What stands at the tokens as rows at the left edge, 0 where padding is.

        Args:
            packed: shape (tokens, features).

        Returns:
            Shape (rows, width, features).
        """
        slots = self.rows * self.width
        if len(packed) < slots:
            packed = packed.new_zeros(slots, packed.shape[-1]).index_copy(0, self.slots, packed)
        return packed.view(self.rows, self.width, -1)

    def from_grid(self, grid: Tensor) -> Tensor:
        """The way back, shape (tokens, features)."""
        flat = grid.flatten(0, 1)
        return flat if len(self.slots) == len(flat) else flat.index_select(0, self.slots)


class PackedTrunk:
    """A trunk that can be asked for the hidden states of packed rows.

    Args:
        trunk: a GPT-2, Llama, Mistral or Qwen2 model without a head.
        reader: what the decoder knows about its shape.
    """

    def __init__(self, trunk: nn.Module, reader: GPT2Trunk | LlamaTrunk) -> None:
        self._trunk: Any = trunk
        self._is_gpt2 = isinstance(reader, GPT2Trunk)
        self._architecture = reader.architecture

    def __call__(self, packed: PackedRows) -> Tensor:
        """Hidden states behind the final norm at the wanted tokens, shape (wanted, hidden)."""
        return self._gpt2(packed) if self._is_gpt2 else self._llama(packed)

    def _gpt2(self, packed: PackedRows) -> Tensor:
        trunk, attend = self._trunk, _RowAttention(packed, self._architecture)
        x = trunk.wte(packed.ids) + trunk.wpe(packed.positions)
        for number, block in enumerate(trunk.h):
            mixed = attend(number, block.attn.c_attn(block.ln_1(x)))
            x, mixed = self._prune(number, packed, x, mixed)
            x = x + block.attn.c_proj(mixed)
            x = x + feed_forward(block.mlp, block.ln_2(x))
        hidden: Tensor = trunk.ln_f(x)
        return hidden

    def _llama(self, packed: PackedRows) -> Tensor:
        trunk, attend = self._trunk, _RowAttention(packed, self._architecture)
        x = trunk.embed_tokens(packed.ids)
        cosines, sines = trunk.rotary_emb(x, packed.positions[None])
        # One entry per token, the same for all heads: (tokens, 1, size).
        rotary = cosines[0].unsqueeze(1), sines[0].unsqueeze(1)
        for number, block in enumerate(trunk.layers):
            attention, normed = block.self_attn, block.input_layernorm(x)
            queries = _rotate(attention.q_proj(normed), *rotary)
            keys = _rotate(attention.k_proj(normed), *rotary)
            qkv = torch.cat([queries, keys, attention.v_proj(normed)], dim=-1)
            x, mixed = self._prune(number, packed, x, attend(number, qkv))
            x = x + attention.o_proj(mixed)
            x = x + block.mlp(block.post_attention_layernorm(x))
        hidden: Tensor = trunk.norm(x)
        return hidden

    def _prune(
        self, number: int, packed: PackedRows, x: Tensor, mixed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """In the last block, keep the tokens that are wanted: nobody looks at the others again."""
        if number + 1 < self._architecture.layers or len(packed.wanted) == len(x):
            return x, mixed
        return x.index_select(0, packed.wanted), mixed.index_select(0, packed.wanted)


class _RowAttention:
    """Causal attention of every token to its own row, in all layers of one pass.

    Args:
        packed: the rows.
        architecture: heads and scales.
    """

    def __init__(self, packed: PackedRows, architecture: Architecture) -> None:
        self._rows = packed
        self._architecture = architecture
        self._plan: AttentionPlan | None = None

    def __call__(self, number: int, qkv: Tensor) -> Tensor:
        """Attend in one layer.

        Args:
            number: of the layer.
            qkv: queries, keys and values side by side, shape (tokens, (heads + 2 key_value_heads) *
                size).

        Returns:
            Shape (tokens, heads * size).
        """
        rows, shape = self._rows, self._architecture
        if shape.heads == shape.key_value_heads and is_faster(qkv, rows.width):
            if self._plan is None:
                self._plan = AttentionPlan.of(rows.lengths(), shape.heads)
            return packed_causal_attention(qkv, self._plan, shape.scales[number])
        return rows.from_grid(self._fused(number, rows.to_grid(qkv)))

    def _fused(self, number: int, grid: Tensor) -> Tensor:
        """torch's causal attention; padding stands behind its row, where it never looks."""
        shape = self._architecture
        heads, key_value_heads = shape.heads, shape.key_value_heads
        split = grid.view(*grid.shape[:2], heads + 2 * key_value_heads, -1).transpose(1, 2)
        queries, keys, values = torch.split(split, [heads, key_value_heads, key_value_heads], 1)
        mixed: Tensor = scaled_dot_product_attention(
            queries,
            keys,
            values,
            is_causal=True,
            scale=shape.scales[number],
            enable_gqa=heads != key_value_heads,
        )
        return mixed.transpose(1, 2).flatten(2)


def packed_trunk(trunk: nn.Module) -> PackedTrunk | None:
    """The packed pass of a trunk, or None for a family without one."""
    reader = gpt2_trunk(trunk) or llama_trunk(trunk)
    return None if reader is None else PackedTrunk(trunk, reader)


def _rotate(projected: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary positions: the halves (a, b) of every head become (a cos - b sin, b cos + a sin).

    Source: Su et al., "RoFormer" (2021), equation 34, with halves for pairs.
    """
    heads = projected.view(len(projected), -1, cosines.shape[-1])
    a, b = heads.chunk(2, dim=-1)
    rotated = heads * cosines + torch.cat([-b, a], dim=-1) * sines
    return rotated.flatten(1)
