"""Keys and values of a batch whose rows come, go and are replaced, in one block of memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_gym.core.decoding.base import check_length
from rlhf_gym.core.errors import InvalidArgument

ROOM = 32
"""Columns that are at least added when a block is full; a quarter of it when that is more."""


class CacheShape(NamedTuple):
    """Sizes that stay the same while a cache lives.

    Attributes:
        layers: number of layers.
        heads: key-value heads of each layer.
        size: numbers per head.
        columns: the most tokens a row may hold.
    """

    layers: int
    heads: int
    size: int
    columns: int


class StepViews(NamedTuple):
    """What one step writes and reads; all of them views into the cache.

    Attributes:
        written: per layer, keys and values of the new column, shape (2, rows, heads, size).
        keys: per layer, shape (rows * heads, columns, size), the new column among them.
        values: as keys.
        mask: 0 where a row may look, minus infinity elsewhere, shape (rows * heads, 1, columns) or
            (1, 1, columns).
    """

    written: tuple[Tensor, ...]
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor


class Place(NamedTuple):
    """Where new prompts go: slots, shape (replaced,), and columns, shape (width,)."""

    slots: Tensor
    columns: Tensor


class KeyValueCache:
    """A ring of columns that all rows write at the same place.

    Every row ends in the last written column, whatever its length: a shorter prompt is masked on
    its left, and a replaced row is written so that its prompt ends there too. So a step writes one
    column with one copy per layer, without scatter and without concatenation.

    Attention always looks at the whole block, with what is not written yet masked: memory that is
    read without gaps is read three times as fast as the same amount in pieces. So the block starts
    little wider than the prompts and grows by a quarter now and then. It only turns as a ring when
    rows have been replaced and it has its full width.

    A row that leaves is filled by the last one, so that rows in use stay together: what is copied
    are the rows that moved, not the batch. Callers keep their own order through `slot_of` and
    `row_at`.

    Args:
        shape: layers, heads and columns.
        starts: columns of padding on the left of each prompt, shape (rows,).
        width: columns that the prompts take.
        dtype: of keys and values.
        used: another cache whose memory is not needed any more; taken over if it fits, because
            fresh memory costs more than anything else here.

    Attributes:
        lengths: tokens in each slot, padding not counted, shape (rows,).
        slot_of: where each of the caller's rows lies, shape (rows,); None if all in order.
        row_at: the caller's row in each slot, shape (rows,); None if all in order.
    """

    def __init__(
        self,
        shape: CacheShape,
        starts: Tensor,
        width: int,
        dtype: torch.dtype,
        used: KeyValueCache | None = None,
    ) -> None:
        self._shape = shape
        self._next = width
        self._longest = width
        self._fixed_views: tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor] | None = None
        self.lengths = width - starts
        self.slot_of: Tensor | None = None
        self.row_at: Tensor | None = None

        columns = min(shape.columns, width + ROOM)
        block = (shape.layers, 2, len(starts), shape.heads, columns, shape.size)
        self._block: Tensor = _memory(block, dtype, starts.device, used)
        # A weight of 0 times whatever lies in this memory may be NaN.
        self._block[..., width:, :] = 0.0
        # One line for all rows until rows differ; then one per row and head, as products want it.
        self._mask = self._block.new_zeros(1, 1, columns)
        self._mask[..., width:] = -torch.inf
        if starts.any():
            is_padding = torch.arange(columns, device=starts.device) < starts[:, None]
            self._mask_by_row().masked_fill_(is_padding[:, None], -torch.inf)

    def __len__(self) -> int:
        return len(self.lengths)

    def fill(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store the prompts' keys and values, each of shape (rows, heads, width, size)."""
        width = keys.shape[2]
        self._block[layer, 0, :, :, :width] = keys
        self._block[layer, 1, :, :, :width] = values

    def append(self) -> StepViews:
        """Open the next column for every row; lengths grow by one.

        Raises:
            InvalidArgument: a row is as long as the cache may be wide.
        """
        columns = self._block.shape[4]
        if self._longest == self._shape.columns:  # an upper bound; the longest row may have left
            self._longest = int(self.lengths.max())
            if self._longest == self._shape.columns:
                raise InvalidArgument(
                    "capacity", self._longest, "a row is full", "Prefill with more new tokens"
                )
        if self._next == columns and columns < self._shape.columns:
            self._widen(min(self._shape.columns, columns + max(ROOM, columns // 4)))
        column = self._next % self._block.shape[4]
        self._next = column + 1
        self._longest += 1
        self.lengths += 1
        self._mask[..., column] = 0.0
        written = self._block[:, :, : len(self), :, column].unbind(0)
        return StepViews(written, *self._views())

    def _views(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
        """Keys, values and mask as a step reads them; made anew only when the block has changed."""
        if self._fixed_views is None:
            lines = len(self) * self._shape.heads
            flat = self._block.flatten(2, 3)[:, :, :lines]
            mask = self._mask.view(-1, 1, self._mask.shape[-1])[:lines]
            self._fixed_views = flat[:, 0].unbind(0), flat[:, 1].unbind(0), mask
        return self._fixed_views

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these.

        Args:
            rows: the caller's row numbers, distinct, in their new order.
        """
        slots = rows if self.slot_of is None else self.slot_of[rows]
        count = len(slots)
        moves = slots >= count
        movers = slots[moves]
        taken = torch.zeros(count, dtype=torch.bool, device=slots.device)
        taken[slots[~moves]] = True
        holes = (~taken).nonzero().squeeze(-1)
        by_row = [self._block.movedim(2, 0), self.lengths]
        if self._has_mask_by_row():
            by_row.append(self._mask)
        for lines in by_row:
            lines[holes] = lines[movers]
        self.lengths = self.lengths[:count]
        self._fixed_views = None
        self._set_order(slots.masked_scatter(moves, holes))

    def _set_order(self, slot_of: Tensor) -> None:
        order = torch.arange(len(slot_of), device=slot_of.device)
        if torch.equal(slot_of, order):
            self.slot_of = self.row_at = None
        else:
            self.slot_of = slot_of
            self.row_at = torch.empty_like(order).scatter_(0, slot_of, order)

    def replace(self, rows: Tensor, starts: Tensor, width: int) -> Place:
        """Make room for new prompts that end in the last written column.

        Args:
            rows: the caller's row numbers, distinct, shape (replaced,).
            starts: columns of padding on the left of each prompt, shape (replaced,).
            width: columns that the prompts take.

        Returns:
            Where `refill` is to store their keys and values.

        Raises:
            InvalidPrompt: the prompts are wider than the cache may be.
        """
        columns = self._shape.columns
        check_length(width, columns)
        if self._block.shape[4] < columns:
            self._widen(columns)
        slots = rows if self.slot_of is None else self.slot_of[rows]
        place = torch.arange(self._next - width, self._next, device=rows.device) % columns
        is_padding = torch.arange(width, device=rows.device) < starts[:, None]
        line = self._mask.new_full((len(rows), columns), -torch.inf)
        line[:, place] = torch.zeros_like(line[:, :width]).masked_fill_(is_padding, -torch.inf)
        self._mask_by_row()[slots] = line[:, None]
        self.lengths[slots] = width - starts
        self._longest = int(self.lengths.max())
        self._fixed_views = None
        return Place(slots, place)

    def refill(self, place: Place, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store the new prompts' keys and values, each of shape (replaced, heads, width, size)."""
        # Two index tensors around a slice put the indexed axes first: (replaced, width, heads,
        # size).
        where = (place.slots[:, None], slice(None), place.columns)
        self._block[layer, 0][where] = keys.transpose(1, 2)
        self._block[layer, 1][where] = values.transpose(1, 2)

    def _widen(self, columns: int) -> None:
        """Add columns that nobody has written, behind all that are there."""
        added = columns - self._block.shape[4]
        self._block = torch.nn.functional.pad(self._block[:, :, : len(self)], (0, 0, 0, added))
        self._mask = torch.nn.functional.pad(self._mask[: len(self)], (0, added), value=-torch.inf)
        self._fixed_views = None

    def _has_mask_by_row(self) -> bool:
        return self._mask.shape[:2] == self._block.shape[2:4]

    def _mask_by_row(self) -> Tensor:
        """The mask with a line of its own for each row and head."""
        if not self._has_mask_by_row():
            shape = (*self._block.shape[2:4], self._mask.shape[-1])
            self._mask = self._mask.expand(shape).clone()
            self._fixed_views = None
        return self._mask


def _memory(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, used: KeyValueCache | None
) -> Tensor:
    """Memory of this shape, taken from `used` if that is the same."""
    if used is not None:
        block = used._block
        if (block.shape, block.dtype, block.device) == (shape, dtype, device):
            return block
    return torch.empty(shape, dtype=dtype, device=device)
