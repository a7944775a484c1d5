"""Many games of Go at once: stones, groups, captures, legality with positional superko, area.

Every board is two sets of points, and for each point the set of its group is kept, so that a move
merges and captures groups without a search. Nothing loops over boards. The players are `OWN` and
`OTHER`; which of them is Black does not matter to these rules.

Source: the Tromp-Taylor rules (https://tromp.github.io/go.html) with suicide forbidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.envs.control.dynamics import State
from rlhf_gym.envs.control.go.geometry import EMPTY, Bits, Geometry, Ints, geometry

OWN, OTHER = 0, 1
"""The two players, as columns of `Boards.stones`."""
SYMBOLS = "XO"


class Placed(NamedTuple):
    """What a stone does on the point it is set on; sets of points of one shape (...,)."""

    own: Bits
    """The mover's stones, after it."""
    other: Bits
    """The other player's stones, after captures."""
    captured: Bits
    """Stones that leave the board."""
    chain: Bits
    """The group that the stone now belongs to."""
    liberties: Bits
    """The empty points beside that group; none would be suicide."""


@dataclass
class Boards(State):
    """Positions of n boards, and what has happened on them.

    Args:
        stones: the stones of each player, shape (n, 2).
        groups: the group on each point, shape (n, points + 1); the empty set on empty points and in
            the last column, which stands for a neighbour beyond the edge.
        liberties: how many liberties the group on each point has, shape (n, points + 1).
        lost: points where a stone of the player was captured before, shape (n, 2).
        plies: moves and passes of both players so far, shape (n,).
        history: the stones before each ply and now, shape (n, 2, plies + 1).
    """

    stones: Bits
    groups: Bits
    liberties: NDArray[np.uint8]
    lost: Bits
    plies: Ints
    history: Bits

    @classmethod
    def empty_fields(cls, num_boards: int, size: int, max_plies: int) -> dict[str, NDArray[Any]]:
        """The fields of boards without stones.

        Args:
            num_boards: n.
            size: lines of each board, at most 8.
            max_plies: moves of both players that can be remembered for superko.
        """
        points = geometry(size).points
        shapes = {
            "stones": (2,),
            "groups": (points + 1,),
            "lost": (2,),
            "history": (2, max_plies + 1),
        }
        return {
            **{name: np.zeros((num_boards, *s), dtype=np.uint64) for name, s in shapes.items()},
            "liberties": np.zeros((num_boards, points + 1), dtype=np.uint8),
            "plies": np.zeros(num_boards, dtype=np.int64),
        }

    @classmethod
    def from_diagrams(cls, diagrams: Sequence[str], max_plies: int = 100) -> Boards:
        """Boards as drawn: `X` own, `O` other, `.` empty, lines from the top.

        Args:
            diagrams: one per board, of equal sizes; space and line breaks alike part lines.
            max_plies: as in `empty_fields`.
        """
        lines = [diagram.split() for diagram in diagrams]
        cells = np.array([list("".join(board)) for board in lines])
        boards = Boards(**cls.empty_fields(len(lines), len(lines[0]), max_plies))
        for player, symbol in enumerate(SYMBOLS):
            boards.stones[:, player] = boards.geometry.gather(cells == symbol)
        boards.groups[:, :-1] = find_groups(boards.geometry, boards.stones)
        boards._count_liberties()
        boards.history[..., 0] = boards.stones
        return boards

    @property
    def geometry(self) -> Geometry:
        """Of these boards."""
        return geometry(isqrt(self.groups.shape[1]))

    @property
    def indices(self) -> Ints:
        """The indices 0 to n - 1."""
        return np.arange(len(self.plies))

    @property
    def empty(self) -> Bits:
        """The empty points of each board, shape (n,)."""
        return self.geometry.full & ~(self.stones[:, OWN] | self.stones[:, OTHER])

    def play(self, player: int, moves: Ints) -> Placed:
        """Set a stone of the player, or pass, on each board; see `place` and `put_down`."""
        placed = self.place(player, moves)
        self.put_down(player, placed, np.ones(len(moves), dtype=np.bool_))
        return placed

    def put_down(self, player: int, placed: Placed, rows: NDArray[np.bool_]) -> None:
        """Do what `place` has worked out.

        Args:
            player: who moves.
            placed: for each board; a pass where `rows` is False.
            rows: boards on which this is a ply, shape (n,).
        """
        self.stones[:, player] = placed.own
        self.stones[:, 1 - player] = placed.other
        joined = self.geometry.contains(placed.chain)
        groups = np.where(joined, placed.chain[:, None], self.groups[:, :-1])
        self.groups[:, :-1] = groups & ~placed.captured[:, None]
        self._count_liberties()
        self.lost[:, 1 - player] |= placed.captured
        self.plies += rows
        # a board that was not played on writes its present position once more: no harm
        self.history[self.indices, :, self.plies] = self.stones

    def place(self, player: int, moves: Ints) -> Placed:
        """What a stone on each board would do; the boards stay as they are.

        Args:
            player: who moves.
            moves: an empty point of each board, shape (n,); or a pass, which does nothing.
        """
        return self._place_on(self.indices, player, moves)

    def place_everywhere(self, player: int) -> Placed:
        """What a stone on each point would do, shape (n, points); nonsense on stones."""
        beside = self.geometry.neighbours[:-1].T
        groups = [self.groups.take(points, axis=1) for points in beside]
        liberties = [self.liberties.take(points, axis=1) for points in beside]
        stone = self.geometry.bit[:-1]
        return self._place(player, self.stones[:, None], stone, groups, liberties)

    def legal_points(self, player: int) -> NDArray[np.bool_]:
        """Where the player may set a stone: empty, no suicide, no repetition; (n, points)."""
        spread = self.geometry.spread
        own, other, empty = self.stones[:, player], self.stones[:, 1 - player], self.empty
        in_atari = self.geometry.gather(self.liberties[:, :-1] == 1)
        # A stone lives if it has a liberty, takes one from a dying enemy, or joins a group that
        # has another liberty than this point.
        lives = spread(empty) | spread(other & in_atari) | spread(own & ~in_atari)
        legal = self.geometry.contains(empty & lives)
        self._forbid_repetition(player, legal)
        return legal

    def eyes(self, player: int) -> Bits:
        """Points that only a beginner fills: all neighbours and nearly all diagonals are own.

        One diagonal may be the other player's in the middle, none at the edge: two make the eye
        false. Shape (n,).
        """
        board = self.geometry
        surrounded = self.empty & ~board.spread(board.full & ~self.stones[:, player])
        enemies = np.bitwise_count(self.stones[:, 1 - player, None] & board.diagonals[:-1])
        at_edge = (board.bit[:-1] & board.edge) != 0
        return surrounded & board.gather(enemies <= np.where(at_edge, 0, 1))

    def area(self, player: int) -> Ints:
        """Stones and the empty points that reach no stone of the other player, shape (n,)."""
        empty = self.empty
        reached = [self.geometry.flood(stones, empty) for stones in self.stones.T]
        own = reached[player] & ~reached[1 - player]
        area = np.bitwise_count(own | self.stones[:, player])
        return np.asarray(area, dtype=np.int64)

    def diagram(self, row: int) -> str:
        """The board as `from_diagrams` reads it."""
        marks = np.full(self.geometry.points, ".")
        for player, symbol in enumerate(SYMBOLS):
            marks[self.geometry.contains(self.stones[row, player])] = symbol
        return "\n".join("".join(line) for line in marks.reshape(self.geometry.size, -1))

    def _place_on(self, rows: Ints, player: int, moves: Ints) -> Placed:
        beside = self.geometry.neighbours[moves].T
        groups = [self.groups[rows, points] for points in beside]
        liberties = [self.liberties[rows, points] for points in beside]
        stone = self.geometry.bit[moves]
        return self._place(player, self.stones[rows], stone, groups, liberties)

    def _place(
        self,
        player: int,
        stones: Bits,
        stone: Bits,
        groups: Sequence[Bits],
        liberties: Sequence[NDArray[np.uint8]],
    ) -> Placed:
        """See `Placed`.

        Args:
            player: who moves.
            stones: both players', shape (..., 2).
            stone: the bit of the point, shape (...,).
            groups: on the four neighbours, shape (...,) each.
            liberties: of these groups.
        """
        own, other = stones[..., player], stones[..., 1 - player]
        captured = chain = stone & EMPTY
        for group, left in zip(groups, liberties, strict=True):
            # this point is a liberty of the groups beside it; of some, the only one
            captured = captured | (group & other) * (left == 1)
            chain = chain | (group & own)
        chain = stone | chain
        own, other = own | stone, other & ~captured
        return Placed(own, other, captured, chain, self.geometry.spread(chain) & ~(own | other))

    def _count_liberties(self) -> None:
        beside = self.geometry.spread(self.groups[:, :-1]) & self.empty[:, None]
        self.liberties[:, :-1] = np.bitwise_count(beside)

    def _forbid_repetition(self, player: int, legal: NDArray[np.bool_]) -> None:
        """Positional superko: strike from `legal` what would bring an earlier position back.

        A stone can only bring back a position in which it stood already; since then it must have
        been captured. So few points need the comparison with all that was.
        """
        suspects = legal & self.geometry.contains(self.lost[:, player])
        rows, points = np.nonzero(suspects)
        if rows.size == 0:
            return
        placed = self._place_on(rows, player, points)
        # rows of fewer plies have empty boards behind, which no stone brings back
        before = self.history[rows, player, : int(self.plies[rows].max()) + 1]
        case, ply = np.nonzero(before == placed.own[:, None])
        again = self.history[rows[case], 1 - player, ply] == placed.other[case]
        legal[rows[case[again]], points[case[again]]] = False


def find_groups(board: Geometry, stones: Bits) -> Bits:
    """The group on each point by flood fill, shape (n, points) from stones (n, 2)."""
    groups = np.zeros((len(stones), board.points), dtype=np.uint64)
    for player in (OWN, OTHER):
        through = np.broadcast_to(stones[:, player, None], groups.shape)
        groups |= board.flood(board.bit[:-1] & through, through)
    return groups
