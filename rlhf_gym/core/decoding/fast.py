"""Decoding with a forward of our own on the model's parameters.

`generate` spends 40 % of a tiny model's time in Python, 16 % in dispatch and 8 % in concatenating
keys and values. Here a step is a flat list of products per layer, keys and values are written in
place, and a family of models only says how its layers are computed (`gpt2`, `llama`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rlhf_gym.core.decoding.attention import attention_for
from rlhf_gym.core.decoding.base import (
    check_length,
    check_prompts,
    row_indices,
)
from rlhf_gym.core.decoding.cache import CacheShape, KeyValueCache, StepViews
from rlhf_gym.core.decoding.linear import AffineMap, affine_map
from rlhf_gym.core.decoding.token_list import TokenList
from rlhf_gym.core.errors import InvalidArgument

PACKING_STEPS = 8
"""Steps from which on packing the weights first is faster: it takes as long as about five save."""

Store = Callable[[int, Tensor, Tensor], None]
"""Takes a layer's keys and values, each of shape (rows, heads, width, size)."""

Attend = Callable[[int, Tensor], Tensor]
"""Layer and its queries, keys and values side by side, shape (tokens, (heads + 2 * key_value_heads)
* size), to what attention makes of them, shape (tokens, heads * size)."""


class Forward(Protocol):
    """A trunk with the weights it had when it was read."""

    @property
    def dtype(self) -> torch.dtype:
        """Of hidden states, keys and values."""

    def __call__(
        self, ids: Tensor, positions: Tensor, attend: Attend, wanted: Tensor | None = None
    ) -> Tensor:
        """Hidden states behind the final norm.

        Args:
            ids: tokens of whatever rows and columns, shape (tokens,).
            positions: their places in their rows, shape (tokens,).
            attend: how the tokens look at each other and at what is cached.
            wanted: tokens whose hidden states are asked for, shape (wanted,), or None for all; in
                the last layer the others end with the attention.

        Returns:
            Shape (wanted, hidden).
        """


class Architecture(NamedTuple):
    """What attention and cache need to know of a trunk.

    Attributes:
        layers: number of layers.
        heads: query heads.
        key_value_heads: heads of keys and values; fewer than `heads` when groups share them.
        size: numbers per head.
        scales: factor on the products of queries and keys, per layer.
        context: the most positions there are, or None.
    """

    layers: int
    heads: int
    key_value_heads: int
    size: int
    scales: tuple[float, ...]
    context: int | None


class FastTrunk(Protocol):
    """A family's trunk, before its weights are read."""

    @property
    def architecture(self) -> Architecture:
        """Sizes that attention and cache need."""

    @property
    def device(self) -> torch.device:
        """Where the weights are now."""

    def read(self, positions: int, pack: bool) -> Forward:
        """Read the weights.

        Args:
            positions: how many positions will be used at most.
            pack: whether time spent on rearranging weights will be repaid.
        """


class FastDecoder:
    """Cached decoding for families whose forward we have written ourselves.

    Args:
        trunk: the family's trunk.
        head: a readable linear layer on it.
    """

    def __init__(self, trunk: FastTrunk, head: nn.Module) -> None:
        self._trunk = trunk
        self._head_layer = head
        self._architecture = trunk.architecture
        self._budget = 0
        self._head: AffineMap | None = None
        self._session: tuple[Forward, KeyValueCache] | None = None

    def prefill(self, input_ids: Tensor, attention_mask: Tensor, capacity: int) -> Tensor:
        """Read the prompts; see `Decoder.prefill`."""
        check_prompts(input_ids, attention_mask)
        used = None if self._session is None else self._session[1]
        self.release()
        self._budget = max(0, capacity - input_ids.shape[1])
        with torch.inference_mode():
            tokens = self._prompts(attention_mask)
            pack = self._budget >= PACKING_STEPS
            columns = max(capacity, input_ids.shape[1])
            forward = self._trunk.read(columns, pack)
            self._head = affine_map([self._head_layer], pack)
            layers, _, kv_heads, size, _, _ = self._architecture
            shape = CacheShape(layers, kv_heads, size, columns)
            width = tokens.width
            cache = KeyValueCache(shape, width - tokens.lengths, width, forward.dtype, used)
            hidden = self._read_prompts(forward, input_ids, tokens, cache.fill)
        self._session = forward, cache
        return hidden.clone()

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to every row; see `Decoder.step`."""
        forward, cache = self._running()
        with torch.inference_mode():
            tokens = tokens.to(cache.lengths.device)
            if cache.row_at is not None:
                tokens = tokens[cache.row_at]
            positions = cache.lengths.clone()
            hidden = forward(tokens, positions, self._cached_attention(cache.append()))
            if cache.slot_of is not None:
                hidden = hidden[cache.slot_of]
        return hidden.clone()

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these; see `Decoder.keep`."""
        _, cache = self._running()
        with torch.inference_mode():
            cache.keep(row_indices(rows, len(cache), cache.lengths.device))

    def replace(self, rows: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Start some rows afresh; see `Decoder.replace`."""
        check_prompts(input_ids, attention_mask)
        forward, cache = self._running()
        with torch.inference_mode():
            rows = row_indices(rows, len(cache), cache.lengths.device)
            tokens = self._prompts(attention_mask)
            place = cache.replace(rows, tokens.width - tokens.lengths, tokens.width)
            store = functools.partial(cache.refill, place)
            hidden = self._read_prompts(forward, input_ids, tokens, store)
        return hidden.clone()

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """The model's head; see `Decoder.logits`."""
        head = self._head or affine_map([self._head_layer])
        logits = head(hidden.reshape(-1, hidden.shape[-1]))
        return logits.view(*hidden.shape[:-1], logits.shape[-1])

    def hidden_at(self, input_ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        """Teacher-forced hidden states; see `Decoder.hidden_at`."""
        # Weights may have changed since the last prefill, so the head it read is not used again.
        self._head = None
        device = self._trunk.device
        with torch.inference_mode():
            tokens = TokenList.of(attention_mask.to(device).bool())
            check_length(tokens.width, self._architecture.context)
            forward = self._trunk.read(tokens.width, False)
            ids = input_ids.to(device).flatten()[tokens.places]
            attend = self._causal_attention(tokens, None)
            hidden = forward(ids, tokens.positions, attend, tokens.at(wanted.to(device)))
        return hidden.clone()

    def release(self) -> None:
        """Give memory back; see `Decoder.release`."""
        self._head = self._session = None

    def _running(self) -> tuple[Forward, KeyValueCache]:
        if self._session is None:
            raise InvalidArgument("tokens", None, "no prompt has been read", "Call prefill first")
        return self._session

    def _prompts(self, attention_mask: Tensor) -> TokenList:
        """Where the prompts' tokens stand."""
        tokens = TokenList.of(attention_mask.to(self._trunk.device).bool())
        check_length(tokens.width + self._budget, self._architecture.context)
        return tokens

    def _read_prompts(
        self, forward: Forward, input_ids: Tensor, tokens: TokenList, store: Store
    ) -> Tensor:
        """Read prompts and store their keys and values as if padded on the left.

        Args:
            forward: the trunk.
            input_ids: as `prefill` gets them, shape (rows, columns).
            tokens: where the real ones stand.
            store: takes a layer's keys and values, each of shape (rows, heads, width, size).

        Returns:
            Hidden states at the last token of each row, shape (rows, hidden).
        """
        ids = input_ids.to(tokens.places.device).flatten()[tokens.places]
        attend = self._causal_attention(tokens, store)
        return forward(ids, tokens.positions, attend, tokens.last)

    def _causal_attention(self, tokens: TokenList, store: Store | None) -> Attend:
        """Every token looks at the tokens before it in its row; rows need no mask at all."""
        _, heads, kv_heads, size, scales, _ = self._architecture

        def by_head(grid: Tensor) -> Tensor:
            """(rows, width, heads * size) to (rows, heads, width, size)."""
            return grid.view(*grid.shape[:2], -1, size).transpose(1, 2)

        def attend(layer: int, qkv: Tensor) -> Tensor:
            if store is not None:
                new = by_head(tokens.grid_to_the_right(qkv[:, heads * size :]))
                store(layer, *new.chunk(2, dim=1))
            split = by_head(tokens.grid(qkv))
            queries, keys, values = torch.split(split, [heads, kv_heads, kv_heads], dim=1)
            mixed = scaled_dot_product_attention(
                queries,
                keys,
                values,
                is_causal=True,
                scale=scales[layer],
                enable_gqa=heads != kv_heads,
            )
            return tokens.from_grid(mixed.transpose(1, 2).flatten(2))

        return attend

    def _cached_attention(self, views: StepViews) -> Attend:
        """One token per row looks at everything its row holds."""
        _, heads, kv_heads, size, scales, _ = self._architecture
        width = heads * size
        look_up = attention_for(views.keys[0])

        def attend(layer: int, qkv: Tensor) -> Tensor:
            rows = len(qkv)
            new = qkv[:, width:].view(rows, 2, kv_heads, size)
            views.written[layer].copy_(new.transpose(0, 1))
            # The heads that share keys and values become queries of one product.
            queries = qkv[:, :width].reshape(rows * kv_heads, heads // kv_heads, size)
            mixed = look_up(
                queries, views.keys[layer], views.values[layer], views.mask, scales[layer]
            )
            return mixed.reshape(rows, width)

        return attend
