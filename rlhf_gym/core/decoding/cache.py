"""Keys and values of a batch whose rows come, go and are replaced, in one block of memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_gym.core.decoding.base import check_length
from rlhf_gym.core.errors import InvalidArgument


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
        keys: per layer, shape (rows * heads, columns, size), the new column included.
        values: as keys.
        mask: 0 where a row may look, minus infinity elsewhere, shape (rows * heads, 1, columns);
            None if every row may look everywhere.
    """

    written: tuple[Tensor, ...]
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor | None


class Place(NamedTuple):
    """Where new prompts go: slots, shape (replaced,), and columns, shape (width,)."""

    slots: Tensor
    columns: Tensor


class KeyValueCache:
    """A ring of columns that all rows write at the same place.

    Every row ends in the last written column, whatever its length: a shorter prompt is masked on
    its left, and a replaced row is written so that its prompt ends there too. So a step writes one
    column with one copy per layer, without scatter and without concatenation. The ring only turns
    once rows have been replaced; attention then looks at all columns, until then at the written
    ones.

    A row that leaves is filled by the last one, so that rows in use stay together: what is copied
    are the rows that moved, not the batch. Callers keep their own order through `slot_of` and
    `row_at`.

    Args:
        shape: layers, heads and columns.
        starts: columns of padding on the left of each prompt, shape (rows,).
        width: columns that the prompts take.
        dtype: of keys and values.

    Attributes:
        lengths: tokens in each slot, padding not counted, shape (rows,).
        slot_of: where each of the caller's rows lies, shape (rows,); None if all in order.
        row_at: the caller's row in each slot, shape (rows,); None if all in order.
    """

    def __init__(self, shape: CacheShape, starts: Tensor, width: int, dtype: torch.dtype) -> None:
        self._shape = shape
        rows, device = len(starts), starts.device
        block = (shape.layers, 2, rows, shape.heads, shape.columns, shape.size)
        self._block = torch.empty(block, dtype=dtype, device=device)
        self._mask: Tensor | None = None
        self._written = width
        self._turns = False
        self.lengths = width - starts
        self._longest = width
        self.slot_of: Tensor | None = None
        self.row_at: Tensor | None = None
        if starts.any():
            columns = torch.arange(shape.columns, device=device)
            self._open_mask().masked_fill_((columns < starts[:, None])[:, None, :], -torch.inf)

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
            InvalidArgument: a row is as long as the cache is wide.
        """
        rows, (_, heads, _, columns) = len(self), self._shape
        if self._longest == columns:  # an upper bound; the longest row may have left
            self._longest = int(self.lengths.max())
            if self._longest == columns:
                raise InvalidArgument(
                    "capacity", columns, "a row is full", "Prefill with more new tokens"
                )
        if self._written == columns:
            self._start_turning()
            self._written = 0
        column = self._written
        self._written += 1
        self._longest += 1
        self.lengths += 1
        span = columns if self._turns else self._written

        mask = self._mask
        if mask is not None:
            if self._turns:
                mask[:rows, :, column] = 0.0
            mask = mask.view(-1, 1, columns)[: rows * heads, :, :span]
        flat = self._block.flatten(2, 3)[:, :, : rows * heads, :span]
        return StepViews(
            self._block[:, :, :rows, :, column].unbind(0),
            flat[:, 0].unbind(0),
            flat[:, 1].unbind(0),
            mask,
        )

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these; memory is given back when none is left.

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
        for line in self._by_row():
            line[holes] = line[movers]
        self.lengths = self.lengths[:count]
        if count == 0:
            self._block, self._mask = self._block[:, :, :0].clone(), None
        self._set_order(slots.masked_scatter(moves, holes))

    def _by_row(self) -> list[Tensor]:
        """Everything that has a line per row, rows first."""
        span = self._shape.columns if self._turns else self._written
        lines = [self._block[..., :span, :].movedim(2, 0), self.lengths]
        return lines if self._mask is None else [*lines, self._mask]

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
            InvalidPrompt: the prompts are wider than the cache.
        """
        columns = self._shape.columns
        check_length(width, columns)
        if width > self._written and not self._turns:
            self._start_turning()
        slots = rows if self.slot_of is None else self.slot_of[rows]
        place = torch.arange(self._written - width, self._written, device=rows.device) % columns
        hidden = torch.arange(width, device=rows.device) < starts[:, None]
        line = self._block.new_full((len(rows), columns), -torch.inf)
        line[:, place] = torch.zeros_like(line[:, :width]).masked_fill_(hidden, -torch.inf)
        if not self._turns:
            line[:, self._written :] = 0.0
        self._open_mask()[slots] = line[:, None, :]
        self.lengths[slots] = width - starts
        self._longest = int(self.lengths.max())
        return Place(slots, place)

    def refill(self, place: Place, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store the new prompts' keys and values, each of shape (replaced, heads, width, size)."""
        # Two index tensors around a slice put the indexed axes first: (replaced, width, heads,
        # size).
        self._block[layer, 0][place.slots[:, None], :, place.columns] = keys.transpose(1, 2)
        self._block[layer, 1][place.slots[:, None], :, place.columns] = values.transpose(1, 2)

    def _open_mask(self) -> Tensor:
        """The mask; a line per row and head because products want it so."""
        if self._mask is None:
            shape = (self._block.shape[2], self._shape.heads, self._shape.columns)
            self._mask = self._block.new_zeros(shape)
        return self._mask

    def _start_turning(self) -> None:
        """From now on attention looks at all columns, also at those that nobody has written yet."""
        self._turns = True
        self._open_mask()[:, :, self._written :] = -torch.inf
        # Weight 0 times whatever lies in fresh memory may be NaN.
        self._block[..., self._written :, :] = 0.0
