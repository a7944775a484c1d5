"""What makes a move look right to a teacher, whoever wins.

Source: the proverbs every beginner learns, as collected in Sensei's Library
(https://senseis.xmp.net/?GoProverbs): "the empty triangle is bad", "connect".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.envs.control.go.boards import Boards, Placed
from rlhf_gym.envs.control.go.geometry import Bits, Ints

FloatArray = NDArray[np.float64]

LONE_STONE_LIBERTIES = 3
"""What a stone without friends beside it is measured by; at the edge it has no more."""


@dataclass(frozen=True)
class ShapeTaste:
    """How much a teacher likes or dislikes it if a move ..."""

    self_atari: float = -1.0
    """leaves its own group one liberty and captures nothing"""
    own_eye: float = -1.0
    """fills an eye of its own"""
    empty_triangle: float = -0.5
    """makes three stones of a 2x2 square, the fourth point empty"""
    connection: float = 0.4
    """joins groups that were apart, for each beyond the first"""
    liberty: float = 0.15
    """gains its group a liberty (or loses it one, -2 to 3 are counted)"""


@dataclass(frozen=True)
class Shape:
    """The features of moves, arrays of one shape; 0 for a pass."""

    self_atari: NDArray[np.bool_]
    own_eye: NDArray[np.bool_]
    empty_triangles: Ints
    connections: Ints
    liberties_gained: Ints

    def judged_by(self, taste: ShapeTaste) -> FloatArray:
        """The teacher's opinion, of the features' shape."""
        # Who fills an eye gains no praise for the connection: it was one already.
        sound = ~self.own_eye
        return np.asarray(
            taste.self_atari * self.self_atari
            + taste.own_eye * self.own_eye
            + taste.empty_triangle * self.empty_triangles
            + taste.connection * (self.connections * sound)
            + taste.liberty * (self.liberties_gained * sound)
        )


def shape_of(boards: Boards, player: int, moves: Ints, placed: Placed) -> Shape:
    """The shape of one move on each board, shape (n,).

    Args:
        boards: as they were before the move.
        player: who moves.
        moves: legal points or passes, shape (n,).
        placed: `boards.place(player, moves)`.
    """
    board = boards.geometry
    stone, beside = board.bit[moves], board.neighbours[moves]
    rows = boards.indices[:, None]
    friends = boards.groups[rows, beside] & boards.stones[:, player, None]  # (n, 4)
    joined = _distinct(friends)
    before = np.where(friends != 0, boards.liberties[rows, beside], 0).max(axis=-1).astype(np.int64)
    before[joined == 0] = LONE_STONE_LIBERTIES
    after = np.bitwise_count(placed.liberties).astype(np.int64)
    is_stone = stone != 0
    return Shape(
        self_atari=is_stone & (after == 1) & (placed.captured == 0),
        own_eye=(stone & boards.eyes(player)) != 0,
        empty_triangles=empty_triangles(placed, board.squares[moves]),
        connections=np.maximum(joined - 1, 0),
        liberties_gained=np.where(is_stone, np.clip(after - before, -2, 3), 0),
    )


def empty_triangles(placed: Placed, squares: Bits) -> Ints:
    """In how many 2x2 squares a stone makes three of its colour and an empty point.

    Args:
        placed: what the stone does, sets of shape (...,).
        squares: those that its point is part of, shape (..., 4) or broadcasting to it.
    """
    three = np.bitwise_count(placed.own[..., None] & squares) == 3
    fourth_empty = (placed.other[..., None] & squares) == 0
    return np.asarray((three & fourth_empty).sum(axis=-1))


def _distinct(groups: Bits) -> Ints:
    """How many different sets that are not empty, shape (n,) from (n, 4)."""
    ordered = np.sort(groups, axis=-1)
    first = (ordered != 0).astype(np.int64)
    first[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    return np.asarray(first.sum(axis=-1))
