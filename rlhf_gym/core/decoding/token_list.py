"""Rows of unequal length as one list of tokens, and as a grid for attention, which needs rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TokenList(NamedTuple):
    """Where the real tokens of a padded batch stand, row after row.

    Linear layers, norms and activations work on the list, so padding costs them nothing.

    Attributes:
        places: place of each token in the flattened batch, shape (tokens,).
        positions: its place in its row, shape (tokens,).
        slots: its place in a flattened grid whose rows begin at the left edge, shape (tokens,).
        lengths: tokens of each row, shape (rows,).
        width: tokens of the longest row, the grid's width.
    """

    places: Tensor
    positions: Tensor
    slots: Tensor
    lengths: Tensor
    width: int

    @classmethod
    def of(cls, mask: Tensor) -> TokenList:
        """The tokens at which a mask is True, shape (rows, columns), wherever padding stands."""
        places = mask.flatten().nonzero().squeeze(-1)
        row = places.div(mask.shape[1], rounding_mode="floor")
        lengths = mask.sum(-1)
        first = lengths.cumsum(0) - lengths
        positions = torch.arange(len(places), device=places.device) - first[row]
        width = int(lengths.max())
        return cls(places, positions, row * width + positions, lengths, width)

    @property
    def is_full(self) -> bool:
        """True if list and grid are the same: all rows are equally long."""
        return len(self.places) == len(self.lengths) * self.width

    @property
    def last(self) -> Tensor:
        """Which token of the list is the last one of each row, shape (rows,)."""
        return self.lengths.cumsum(0) - 1

    def at(self, wanted: Tensor) -> Tensor:
        """Which tokens of the list a mask over the batch asks for, shape (wanted,)."""
        return wanted.flatten()[self.places].nonzero().squeeze(-1)

    def grid(self, numbers: Tensor) -> Tensor:
        """Spread over rows that begin at the left edge, 0 behind them.

        Args:
            numbers: of each token, shape (tokens, n).

        Returns:
            Shape (rows, width, n).
        """
        return self._spread(numbers, self.slots)

    def grid_to_the_right(self, numbers: Tensor) -> Tensor:
        """The same over rows that end at the right edge, 0 before them."""
        if self.is_full:
            return self._spread(numbers, self.slots)
        starts = self.width - self.lengths
        return self._spread(numbers, self.slots + starts.repeat_interleave(self.lengths))

    def from_grid(self, numbers: Tensor) -> Tensor:
        """Back from the rows of `grid`, shape (rows, width, n), to the list, shape (tokens, n)."""
        flat = numbers.flatten(0, 1)
        return flat if self.is_full else flat.index_select(0, self.slots)

    def _spread(self, numbers: Tensor, slots: Tensor) -> Tensor:
        shape = len(self.lengths), self.width, numbers.shape[-1]
        if self.is_full:
            return numbers.view(shape)
        flat = numbers.new_zeros(shape[0] * shape[1], shape[2])
        return flat.index_copy_(0, slots, numbers).view(shape)
