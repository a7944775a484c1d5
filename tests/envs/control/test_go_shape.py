"""The teacher's opinion of moves, by hand; and how strong the opponents are."""

import numpy as np
import pytest

from rlhf_gym.envs.control.go.boards import OTHER, OWN, Boards
from rlhf_gym.envs.control.go.opponents import OPPONENTS, choose
from rlhf_gym.envs.control.go.shape import Shape, ShapeTaste, shape_of


def shape_after(diagram: str, point: int) -> Shape:
    boards = Boards.from_diagrams([diagram])
    moves = np.array([point])
    return shape_of(boards, OWN, moves, boards.place(OWN, moves))


def opinion(diagram: str, point: int) -> float:
    return float(shape_after(diagram, point).judged_by(ShapeTaste())[0])


def test_lone_stones() -> None:
    empty = "..... ..... ..... ..... ....."
    assert opinion(empty, 12) == pytest.approx(0.15)  # 4 liberties, 1 above 3
    assert opinion(empty, 2) == pytest.approx(0.0)  # 3 at the edge
    assert opinion(empty, 0) == pytest.approx(-0.15)  # 2 in the corner
    assert opinion(empty, 25) == 0.0  # a pass


def test_an_empty_triangle_is_bad_and_a_full_one_is_not() -> None:
    # own stones 6 and 7 (B4, C4), played 11 (B3): the square of 6, 7, 11, 12 lacks 12
    assert shape_after("..... .XX.. ..... ..... .....", 11).empty_triangles.tolist() == [1]
    assert shape_after("..... .XX.. ..O.. ..... .....", 11).empty_triangles.tolist() == [0]
    # two stones in a row make none
    assert shape_after("..... .XX.. ..... ..... .....", 8).empty_triangles.tolist() == [0]
    # 6 and 7 have 6 liberties, with 11 there are 7: -0.5 + 0.15
    assert opinion("..... .XX.. ..... ..... .....", 11) == pytest.approx(-0.35)


def test_joining_groups_counts_groups_not_stones() -> None:
    # 12 is beside 7, 11 and 13, three groups
    assert shape_after("..... ..X.. .X.X. ..... .....", 12).connections.tolist() == [2]
    # 6 is beside 5 and 1, which are one group by way of 0
    assert shape_after("XX... X.... ..... ..... .....", 6).connections.tolist() == [0]


def test_self_atari_but_not_if_it_captures() -> None:
    # A5 beside O at B5, whose liberties are many: one liberty left, A4
    lost = shape_after(".O... ..... ..... ..... .....", 0)
    assert lost.self_atari.tolist() == [True]
    # 1 liberty after, 3 - 2 below a lone stone's: -1 - 0.3
    assert opinion(".O... ..... ..... ..... .....", 0) == pytest.approx(-1.3)
    # A5 captures B5, whose only liberty it is, and has that one liberty then, as A4 is O
    won = shape_after(".OX.. OX... O.... ..... .....", 0)
    assert won.self_atari.tolist() == [False]


def test_filling_an_eye_is_bad_and_earns_no_praise_for_what_it_joins() -> None:
    filled = shape_after(".X... XX... ..... ..... .....", 0)
    assert filled.own_eye.tolist() == [True]
    assert opinion(".X... XX... ..... ..... .....", 0) == pytest.approx(-1.0)
    # B3 joins four stones that were apart, but it was their eye, and it makes four empty triangles:
    # -1 - 4 * 0.5
    assert opinion("..... .X... X.X.. .X... .....", 11) == pytest.approx(-3.0)


def test_the_taste_is_the_users() -> None:
    shape = shape_after("..... ..... ..... ..... .....", 12)
    assert shape.judged_by(ShapeTaste(liberty=2.0))[0] == pytest.approx(2.0)


def win_rate(black: str, white: str, games: int = 200, size: int = 5) -> float:
    """Of Black, who moves first, with 0.5 komi."""
    points = size * size
    boards = Boards(**Boards.empty_fields(games, size, 3 * points))
    live, passes = np.ones(games, dtype=bool), np.zeros(games, dtype=int)
    rng = np.random.default_rng(0)
    lead = np.zeros(games)
    for ply in range(3 * points):
        player = ply % 2
        lead = boards.area(OWN) - boards.area(OTHER) - 0.5
        ahead = lead > 0 if player == OWN else lead < 0
        opponent = OPPONENTS[(black, white)[player]]
        legal, noise = boards.legal_points(player), rng.random((games, points))
        moves = choose(opponent, boards, player, legal, noise, (passes == 1) & ahead)
        moves[~live] = points
        boards.put_down(player, boards.place(player, moves), live)
        passes = np.where(moves == points, passes + 1, 0)
        live &= passes < 2
    assert not live.any()  # all games ended by passes, none by the limit
    return float(((boards.area(OWN) - boards.area(OTHER) - 0.5) > 0).mean())


def test_each_opponent_beats_the_one_before_with_either_colour() -> None:
    assert win_rate("capturer", "random") > 0.7
    assert win_rate("random", "capturer") < 0.35
    assert win_rate("shape", "capturer") > 0.85
    assert win_rate("capturer", "shape") < 0.2
    assert win_rate("shape", "random") > 0.95


def test_opponents_take_what_they_can_and_leave_their_eyes_alone() -> None:
    boards = Boards.from_diagrams(
        [".X... XO... .X... ..... .....", ".O.OO OOOOO OOOOO OOOOO OOOOO"]
    )
    legal = np.stack([boards.legal_points(OWN)[0], boards.legal_points(OTHER)[1]])
    for name in ("capturer", "shape"):
        noise, may_end = np.zeros((2, 25)), np.zeros(2, dtype=bool)
        assert choose(OPPONENTS[name], boards, OWN, legal, noise, may_end)[0] == 7  # C4 captures
        move = choose(OPPONENTS[name], boards, OTHER, legal, noise, may_end)[1]
        assert move == 25  # both empty points are eyes


def test_a_pass_that_wins_is_taken() -> None:
    boards = Boards.from_diagrams(["..... ..... ..... ..... ....."])
    legal, noise = boards.legal_points(OWN), np.zeros((1, 25))
    assert choose(OPPONENTS["shape"], boards, OWN, legal, noise, np.array([True]))[0] == 25
    assert choose(OPPONENTS["shape"], boards, OWN, legal, noise, np.array([False]))[0] != 25
