"""Decoding any Hugging Face causal language model through its own forward."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from rlhf_gym.core.decoding.base import (
    check_length,
    check_prompts,
    evaluation_mode,
    left_justified,
    row_indices,
    trim_left,
)
from rlhf_gym.core.decoding.parts import logit_transform, take_apart
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import position_ids

CACHE_ARGUMENTS = ("cache", "cache_params", "past_key_values")
"""Names that a forward may have for its cache, the newest first."""


class TransformersDecoder:
    """The model's own trunk with a `DynamicCache`: every architecture, no slower than `generate`.

    All rows end in the same column of the cache. A replaced row is moved to end there too, and
    columns that no row sees any more are dropped, so the cache never outgrows the longest row.

    Args:
        model: a Hugging Face causal language model or classifier, or peft's wrapper of one.

    Raises:
        InvalidArgument: trunk and head cannot be told apart.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module) -> None:
        parts = take_apart(model)
        self._trunk, self._head = parts.trunk, parts.head
        self._model = parts.model
        accepted = inspect.signature(self._trunk.forward).parameters
        self._takes_positions = "position_ids" in accepted
        # What a cache is called has changed: `cache` everywhere from transformers 5.24 on.
        named = (name for name in CACHE_ARGUMENTS if name in accepted)
        self._cache_argument = next(named, CACHE_ARGUMENTS[-1])
        # By attribute: GPT-2 calls it n_positions and answers to this name all the same.
        self._context: int | None = getattr(parts.model.config, "max_position_embeddings", None)
        with evaluation_mode(self._model):
            self._transform = logit_transform(parts)
        self._cache: DynamicCache | None = None
        self._ids = torch.empty(0, 0, dtype=torch.long)
        self._mask = torch.empty(0, 0, dtype=torch.long)
        self._lengths = torch.empty(0, dtype=torch.long)
        self._needs_mask = True
        self._column = 0
        self._capacity = 0
        self._budget = 0

    @property
    def _device(self) -> torch.device:
        return next(self._trunk.parameters()).device

    @torch.no_grad()
    def prefill(self, input_ids: Tensor, attention_mask: Tensor, capacity: int) -> Tensor:
        """Read the prompts; see `Decoder.prefill`."""
        check_prompts(input_ids, attention_mask)
        ids, mask = trim_left(input_ids.to(self._device), attention_mask.to(self._device).long())
        # The whole capacity, though ids were trimmed: a prompt that comes later may be longer.
        self._capacity = max(capacity, input_ids.shape[1])
        self._budget = self._capacity - input_ids.shape[1]
        check_length(ids.shape[1] + self._budget, self._context)
        return self._reread(ids, mask)[:, -1]

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to every row; see `Decoder.step`."""
        cache = self._running()
        if self._column == self._capacity:
            raise InvalidArgument(
                "capacity", self._capacity, "a row is full", "Prefill with more new tokens"
            )
        ids = tokens.to(self._device).unsqueeze(-1)
        self._ids[:, self._column] = ids[:, 0]
        self._column += 1
        positions = self._lengths.unsqueeze(-1)
        self._lengths = self._lengths + 1
        mask = self._mask[:, : self._column] if self._needs_mask else None
        return self._forward(ids, mask, positions, cache)[:, -1]

    @torch.no_grad()
    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these; see `Decoder.keep`."""
        cache = self._running()
        rows = row_indices(rows, len(self._ids), self._device)
        self._ids, self._mask = self._ids[rows], self._mask[rows]
        self._lengths = self._lengths[rows]
        if _layers_are(cache, DynamicLayer, DynamicSlidingWindowLayer):
            cache.batch_select_indices(rows)
        elif len(rows):
            self._reread(self._ids[:, : self._column], self._mask[:, : self._column])

    @torch.no_grad()
    def replace(self, rows: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Start some rows afresh; see `Decoder.replace`."""
        cache = self._running()
        check_prompts(input_ids, attention_mask)
        device = self._device
        rows = row_indices(rows, len(self._ids), device)
        ids, mask = trim_left(input_ids.to(device), attention_mask.to(device).long())
        width = ids.shape[1]
        check_length(width, self._capacity)
        check_length(width + self._budget, self._context)

        # Every row as it is now, all of them ending in the last column; then the columns some row
        # sees.
        shift = max(0, width - self._column)
        all_ids = nn.functional.pad(self._ids[:, : self._column], (shift, 0))
        all_mask = nn.functional.pad(self._mask[:, : self._column], (shift, 0))
        all_mask[rows] = 0
        all_ids[rows, -width:], all_mask[rows, -width:] = ids, mask
        first = int(all_mask.any(0).int().argmax())
        all_ids, all_mask = all_ids[:, first:], all_mask[:, first:]

        if not _layers_are(cache, DynamicLayer):
            return self._reread(all_ids, all_mask)[rows, -1]
        prompts = self._new_cache()
        hidden = self._forward(ids, mask, position_ids(mask), prompts)[:, -1]
        # Untyped: a layer's tensors are None until it is filled, which these are.
        filled: Iterable[tuple[Any, Any]] = zip(cache.layers, prompts.layers, strict=True)
        for layer, prompt in filled:
            layer.keys = _moved(layer.keys, prompt.keys, rows, shift, first)
            layer.values = _moved(layer.values, prompt.values, rows, shift, first)
        self._remember(all_ids, all_mask)
        return hidden

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """The model's head; see `Decoder.logits`."""
        return self._transform(self._head(hidden))

    @torch.no_grad()
    def hidden_at(self, input_ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        """Teacher-forced hidden states; see `Decoder.hidden_at`."""
        device = self._device
        ids, columns = left_justified(input_ids.to(device), attention_mask.to(device))
        check_length(ids.shape[1], self._context)
        rows, old = wanted.to(device).nonzero(as_tuple=True)
        return self._forward(ids, None, None, None)[rows, columns[rows, old]]

    def release(self) -> None:
        """Give memory back; see `Decoder.release`."""
        self._cache = None

    def _running(self) -> DynamicCache:
        if self._cache is None:
            raise InvalidArgument("tokens", None, "no prompt has been read", "Call prefill first")
        return self._cache

    def _new_cache(self) -> DynamicCache:
        # The trunk's configuration: a classifier or a wrapper may carry another one.
        return DynamicCache(config=cast(Any, self._trunk).config)

    def _reread(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Fill a new cache; hidden states of all columns."""
        cache = self._cache = self._new_cache()
        self._remember(ids, mask)
        return self._forward(ids, mask, position_ids(mask), cache)

    def _remember(self, ids: Tensor, mask: Tensor) -> None:
        """Keep what the cache holds; the future is unmasked, so a step only widens the slice."""
        rows, self._column = ids.shape
        self._ids = ids.new_zeros(rows, self._capacity)
        self._mask = mask.new_ones(rows, self._capacity)
        self._ids[:, : self._column], self._mask[:, : self._column] = ids, mask
        self._lengths = mask.sum(-1)
        # Without padding there is nothing to mask, and the model saves a tenth of a step by not
        # preparing it. A purely recurrent model has no past columns for a mask to speak of.
        recurrent = self._cache is not None and _has_states_alone(self._cache)
        self._needs_mask = not recurrent and bool((mask == 0).any())

    def _forward(
        self,
        ids: Tensor,
        mask: Tensor | None,
        positions: Tensor | None,
        cache: DynamicCache | None,
    ) -> Tensor:
        """The trunk with dropout off, shape (rows, width, hidden)."""
        arguments: dict[str, Any] = {self._cache_argument: cache}
        if self._takes_positions:
            arguments["position_ids"] = positions
        with evaluation_mode(self._model):
            output = self._trunk(
                input_ids=ids,
                attention_mask=mask,
                use_cache=cache is not None,
                **arguments,
            )
        return cast(Tensor, output.last_hidden_state)


def _has_states_alone(cache: DynamicCache) -> bool:
    """Whether no layer keeps keys and values of the past: the model is purely recurrent."""
    layers = cache.layers
    return bool(layers) and not any(isinstance(layer, CacheLayerMixin) for layer in layers)


def _layers_are(cache: DynamicCache, *kinds: type) -> bool:
    """Whether every layer is of a kind whose tensors may be edited row by row."""
    return all(type(layer) in kinds for layer in cache.layers)


def _moved(old: Tensor, prompt: Tensor, rows: Tensor, shift: int, first: int) -> Tensor:
    """Keys or values with new prompts at the right edge, shape (rows, heads, columns, size)."""
    new = nn.functional.pad(old, (0, 0, shift, 0))
    new[rows, :, -prompt.shape[2] :] = prompt
    return new[:, :, first:]
