"""A Go board as the bits of one 64-bit number: neighbourhoods are shifts, sets are and, or, not.

Point `row * size + column` is bit `1 << point`; row 0 is the top. A set of points (the stones of a
player, a group, its liberties) is one `uint64`, so that arrays of any shape hold as many sets, and
a flood fill over thousands of boards takes a handful of array operations.

Source: bitboards, as chess programs have them; for Go the board must fit into one word, size <= 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
"""Sets of points, one per element."""
Ints = NDArray[np.int64]

ONE = np.uint64(1)
EMPTY = np.uint64(0)
COLUMNS = "ABCDEFGH"


@dataclass(frozen=True)
class Geometry:
    """What depends on nothing but the board's size; take it from `geometry(size)`.

    Args:
        size: lines in each direction, at most 8.
    """

    size: int

    @property
    def points(self) -> int:
        """How many points there are; as a move, this number is a pass."""
        return self.size**2

    @cached_property
    def bit(self) -> Bits:
        """Each point's bit, shape (points + 1,); the last, a pass, is the empty set."""
        return np.append(ONE << np.arange(self.points, dtype=np.uint64), EMPTY)

    @cached_property
    def full(self) -> np.uint64:
        """All points."""
        return np.uint64(_union(self.bit))

    @cached_property
    def neighbours(self) -> Ints:
        """Orthogonal neighbours, shape (points + 1, 4); `points` where there is none."""
        return self._table(((-1, 0), (1, 0), (0, -1), (0, 1)))

    @cached_property
    def diagonals(self) -> Bits:
        """The set of diagonal neighbours of each point, shape (points + 1,)."""
        corners = self._table(((-1, -1), (-1, 1), (1, -1), (1, 1)))
        return _union(self.bit[corners])

    @cached_property
    def squares(self) -> Bits:
        """The 2x2 squares each point is part of, shape (points + 1, 4); empty beyond the edge."""
        squares = []
        for down, right in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            others = self._table(((down, 0), (0, right), (down, right)))
            square = self.bit[:, None] | self.bit[others]
            whole = (others < self.points).all(axis=1)
            squares.append(np.where(whole, _union(square), EMPTY))
        return np.stack(squares, axis=1)

    @cached_property
    def edge(self) -> np.uint64:
        """The points of the first line."""
        rows, columns = np.divmod(np.arange(self.points), self.size)
        on_edge = np.isin(rows, (0, self.size - 1)) | np.isin(columns, (0, self.size - 1))
        return np.uint64(_union(self.bit[:-1][on_edge]))

    def spread(self, sets: Bits) -> Bits:
        """The neighbours of any point of each set (which need not be part of it)."""
        left, right = self._off_left_edge, self._off_right_edge
        vertical = (sets << self._size) | (sets >> self._size)
        beside = ((sets & left) >> ONE) | ((sets & right) << ONE)
        return np.asarray((vertical | beside) & self.full)

    def flood(self, sets: Bits, through: Bits) -> Bits:
        """Each set with all that it reaches over the points of `through`."""
        while True:
            grown = sets | (self.spread(sets) & through)
            if np.array_equal(grown, sets):
                return grown
            sets = grown

    def contains(self, sets: Bits) -> NDArray[np.bool_]:
        """Which points are in each set, shape (..., points)."""
        return np.asarray((sets[..., None] & self.bit[:-1]) != 0)

    def gather(self, chosen: NDArray[np.bool_]) -> Bits:
        """The set of the chosen points, shape (...,) from (..., points); undoes `contains`."""
        return _union(np.where(chosen, self.bit[:-1], EMPTY))

    def name(self, point: int) -> str:
        """As players say it: `A1` is the lower left corner, and `points` is `pass`."""
        if point == self.points:
            return "pass"
        row, column = divmod(point, self.size)
        return f"{COLUMNS[column]}{self.size - row}"

    def _table(self, offsets: tuple[tuple[int, int], ...]) -> Ints:
        rows, columns = np.divmod(np.arange(self.points), self.size)
        table = np.full((self.points + 1, len(offsets)), self.points)
        for at, (down, right) in enumerate(offsets):
            row, column = rows + down, columns + right
            inside = (row >= 0) & (row < self.size) & (column >= 0) & (column < self.size)
            table[:-1, at] = np.where(inside, row * self.size + column, self.points)
        return table

    @cached_property
    def _size(self) -> np.uint64:
        return np.uint64(self.size)

    @cached_property
    def _off_left_edge(self) -> np.uint64:
        columns = np.arange(self.points) % self.size
        return np.uint64(_union(self.bit[:-1][columns > 0]))

    @cached_property
    def _off_right_edge(self) -> np.uint64:
        columns = np.arange(self.points) % self.size
        return np.uint64(_union(self.bit[:-1][columns < self.size - 1]))


def _union(sets: Bits) -> Bits:
    """Of all sets along the last axis."""
    return np.asarray(np.bitwise_or.reduce(sets, axis=-1))


@cache
def geometry(size: int) -> Geometry:
    """The geometry of boards of a size; one object per size, since its tables are cached."""
    return Geometry(size)
