"""Scripted opponents, from one who moves anywhere to one who knows shape; none looks ahead.

An opponent gives every point of every board a value, and the best legal one is played. A new one is
a function and a line in `OPPONENTS`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.envs.control.go.boards import Boards, Placed
from rlhf_gym.envs.control.go.geometry import Ints
from rlhf_gym.envs.control.go.shape import empty_triangles

FloatArray = NDArray[np.float64]
Opponent = Callable[[Boards, int], FloatArray]
"""(boards, player) -> the value of each point, shape (n, points); -inf: rather pass."""

NEVER = -np.inf


def anywhere(boards: Boards, player: int) -> FloatArray:
    """All points are alike."""
    return np.zeros((len(boards.plies), boards.geometry.points))


def capturer(boards: Boards, player: int) -> FloatArray:
    """Takes what it can take, saves what it can save, and does not put itself into atari."""
    placed = boards.place_everywhere(player)
    return _stones_at_stake(boards, player, placed)


def shape_player(boards: Boards, player: int) -> FloatArray:
    """Takes and saves too; else atari, liberties, thin shape, and the ground it overlooks."""
    board = boards.geometry
    placed = boards.place_everywhere(player)
    liberties = np.bitwise_count(placed.liberties).astype(np.float64)
    other_liberties = np.where(
        board.contains(boards.stones[:, 1 - player]), boards.liberties[:, :-1], 9
    )
    few = board.gather(other_liberties == 2)  # groups that a stone beside them puts into atari
    threatens = board.contains(board.spread(few)) & (liberties > 1)
    value = _stones_at_stake(boards, player, placed)
    value += 2.0 * threatens + 0.6 * np.minimum(liberties, 5.0)
    value += 1.0 * _ground(boards, placed)
    value -= 1.5 * (empty_triangles(placed, board.squares[:-1]) > 0)
    return value


OPPONENTS: dict[str, Opponent] = {
    "random": anywhere,
    "capturer": capturer,
    "shape": shape_player,
}
"""From the weakest to the strongest."""


def choose(
    opponent: Opponent,
    boards: Boards,
    player: int,
    legal: NDArray[np.bool_],
    noise: FloatArray,
    may_end: NDArray[np.bool_],
) -> Ints:
    """The opponent's move on each board, shape (n,).

    Args:
        opponent: how it values points.
        boards: the positions.
        player: which player it is.
        legal: where it may play, shape (n, points).
        noise: below 1, decides between points of nearly the same value, shape (n, points).
        may_end: boards where its pass would end the game and win it: it passes, shape (n,).
    """
    board = boards.geometry
    sensible = legal & ~board.contains(boards.eyes(player))
    value = np.where(sensible, opponent(boards, player) + noise, NEVER)
    best = value.argmax(axis=-1)
    nothing = value[boards.indices, best] == NEVER
    return np.where(nothing | may_end, board.points, best)


def _stones_at_stake(boards: Boards, player: int, placed: Placed) -> FloatArray:
    """Stones captured, and own stones brought out of atari, for each point; -inf: self-atari."""
    board = boards.geometry
    own = boards.stones[:, player]
    liberties = np.bitwise_count(placed.liberties)
    captured = np.bitwise_count(placed.captured)
    in_atari = board.gather(board.contains(own) & (boards.liberties[:, :-1] == 1))
    saved = np.bitwise_count(placed.chain & in_atari[:, None]) * (liberties > 1)
    value: FloatArray = 10.0 * captured + 8.0 * saved
    value[(liberties < 2) & (captured == 0)] = NEVER
    return value


def _ground(boards: Boards, placed: Placed) -> FloatArray:
    """Points that are nearer to the player's stones than to the other's, less the reverse.

    Two steps from every stone are looked at; shape (n, points).
    """
    own, other = placed.own, placed.other
    for _ in range(2):
        near_own, near_other = boards.geometry.spread(own), boards.geometry.spread(other)
        own, other = (
            own | (near_own & ~near_other & ~other),
            other | (near_other & ~near_own & ~own),
        )
    mine, theirs = np.bitwise_count(own), np.bitwise_count(other)
    return np.asarray(np.subtract(mine, theirs, dtype=np.float64))
