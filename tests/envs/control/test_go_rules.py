"""Go's rules on positions set up by hand: `X` is the player who owns the boards, `O` the other."""

import numpy as np
import pytest

from rlhf_gym.envs.control.go.boards import OTHER, OWN, Boards, find_groups
from rlhf_gym.envs.control.go.geometry import geometry


def board(diagram: str) -> Boards:
    return Boards.from_diagrams([diagram])


def play(boards: Boards, *moves: tuple[int, str]) -> int:
    """Legal moves by name on a single board; how many stones the last one captured."""
    names = {boards.geometry.name(p): p for p in range(boards.geometry.points + 1)}
    for player, name in moves:
        point = names[name]
        assert name == "pass" or boards.legal_points(player)[0, point], name
        placed = boards.play(player, np.array([point]))
    return int(np.bitwise_count(placed.captured)[0])


def can_play(boards: Boards, player: int, name: str) -> bool:
    points = boards.geometry.points
    names = [boards.geometry.name(point) for point in range(points)]
    return bool(boards.legal_points(player)[0, names.index(name)])


def lines(text: str) -> str:
    return "\n".join(text.split())


def test_points_have_the_names_players_give_them() -> None:
    seven = geometry(7)
    assert [seven.name(point) for point in (0, 6, 42, 48, 49)] == ["A7", "G7", "A1", "G1", "pass"]


def test_neighbourhoods_end_at_the_edge() -> None:
    five = geometry(5)
    # point 4 is the upper right corner: beside 3 and 9, not 5, which begins the next row
    assert five.spread(five.bit[4]) == five.bit[3] | five.bit[9]
    assert five.spread(five.bit[20]) == five.bit[15] | five.bit[21]
    assert np.bitwise_count(five.spread(five.bit[:-1])).sum() == 80  # 2 * 40 lines between points
    assert np.bitwise_count(five.edge) == 16
    assert five.squares[12].astype(bool).all()  # the middle is part of four squares
    assert five.squares[0].astype(bool).sum() == 1  # a corner of one


def test_a_stone_without_liberties_is_captured() -> None:
    boards = board(".X... XO... .X... ..... .....")
    assert play(boards, (OWN, "C4")) == 1
    assert boards.diagram(0) == lines(".X... X.X.. .X... ..... .....")


def test_several_groups_are_captured_at_once() -> None:
    # C5 is the last liberty of A5-B5 (2 stones), of D5-E5 (2 stones) and of C4 (1 stone)
    boards = board("OO.OO XXOXX ..X.. ..... .....")
    assert play(boards, (OWN, "C5")) == 5
    assert boards.diagram(0) == lines("..X.. XX.XX ..X.. ..... .....")


def test_a_group_is_captured_whole_and_its_capturer_merges() -> None:
    boards = board("OOX.. OX... .X... X.... .....")
    assert play(boards, (OWN, "A3")) == 3
    assert boards.diagram(0) == lines("..X.. .X... XX... X.... .....")
    # A2, A3, B3 and B4 are one group now; C5 is apart
    group = boards.groups[0, 10]
    assert group == boards.geometry.bit[[6, 10, 11, 15]].sum()
    assert boards.liberties[0, 6] == 6  # A4, B5, C4, C3, B2 (beside two of them), A1
    assert boards.groups[0, 2] == boards.geometry.bit[2]


def test_snapback() -> None:
    boards = board("XO..X XOOOX .XXX. ..... .....")
    assert play(boards, (OWN, "C5"), (OTHER, "D5")) == 1  # the stone that was thrown in
    assert play(boards, (OWN, "C5")) == 5
    assert boards.diagram(0) == lines("X.X.X X...X .XXX. ..... .....")


def test_ko_may_be_retaken_only_after_a_move_elsewhere() -> None:
    boards = board(".XO.. XO.O. .XO.. ..... .....")
    assert play(boards, (OWN, "C4")) == 1
    assert not can_play(boards, OTHER, "B4")
    play(boards, (OTHER, "E1"), (OWN, "A1"))
    assert can_play(boards, OTHER, "B4")
    assert play(boards, (OTHER, "B4")) == 1


def test_superko_forbids_sending_two_and_returning_one() -> None:
    boards = board(".O.X. OXXX. OO... ..... .....")
    assert play(boards, (OTHER, "C5"), (OWN, "A5")) == 2
    # B5 captures one stone and is no simple ko, as two were captured; but the position was there
    assert not can_play(boards, OTHER, "B5")
    play(boards, (OTHER, "E1"), (OWN, "E3"))
    assert can_play(boards, OTHER, "B5")


def test_a_pass_does_not_lift_the_ko() -> None:
    boards = board(".XO.. XO.O. .XO.. ..... .....")
    play(boards, (OWN, "C4"), (OTHER, "pass"), (OWN, "pass"))
    assert not can_play(boards, OTHER, "B4")


def test_suicide_is_forbidden_of_one_stone_and_of_many() -> None:
    boards = board(".X... X.... ..... ..... .....")
    assert not can_play(boards, OTHER, "A5")
    assert can_play(boards, OWN, "A5")
    boards = board("X.O.. OOO.. ..... ..... .....")
    assert not can_play(boards, OWN, "B5")
    assert can_play(boards, OTHER, "B5")


def test_what_captures_is_no_suicide() -> None:
    boards = board(".OX.. OX... X.... ..... .....")
    assert play(boards, (OWN, "A5")) == 2
    assert boards.diagram(0) == lines("X.X.. .X... X.... ..... .....")


def test_stones_are_not_put_on_stones() -> None:
    boards = board("XO... ..... ..... ..... .....")
    assert not boards.legal_points(OWN)[0, :2].any()
    assert boards.legal_points(OWN)[0, 2:].all()


@pytest.mark.parametrize(
    ("diagram", "own", "other"),
    [
        ("..... ..... ..... ..... .....", 0, 0),  # empty points reach no stone
        ("..... ..... ..X.. ..... .....", 25, 0),
        # walls in columns B and D: A and E are territory, C is between both
        (".X.O. .X.O. .X.O. .X.O. .X.O.", 10, 10),
        # seki: X has 13 stones, O 10, both need C4 and C2, which are neutral
        ("XXXOO XX.OO XXXOO XX.OO XXXOO", 13, 10),
        # the O in the middle has not been captured: nobody removes it, the points beside it
        # reach both; X has 16 stones around
        ("XXXXX X...X X.O.X X...X XXXXX", 16, 1),
    ],
)
def test_area(diagram: str, own: int, other: int) -> None:
    boards = board(diagram)
    assert boards.area(OWN)[0] == own
    assert boards.area(OTHER)[0] == other


def test_in_a_seki_who_moves_first_loses_all() -> None:
    boards = board("XXXOO XX.OO XXXOO XX.OO XXXOO")
    assert play(boards, (OWN, "C4"), (OTHER, "C2")) == 14


def test_eyes() -> None:
    # A5: corner, its diagonal own. C5: edge, one enemy diagonal (B4... is X, D4 is O): false.
    boards = board(".X.X. XX.O. X.X.. .X... .....")
    eyes = boards.geometry.contains(boards.eyes(OWN))[0]
    names = [boards.geometry.name(int(point)) for point in np.flatnonzero(eyes)]
    # B3 is in the middle, surrounded by B4, A3, C3, B2; its diagonals A4 X, C4 ., A2 ., C2 .
    assert names == ["A5", "B3"]


def test_many_boards_are_played_at_once_and_apart() -> None:
    boards = Boards.from_diagrams(
        [".X... XO... .X... ..... .....", "..... ..... ..... ..... ....."]
    )
    placed = boards.play(OWN, np.array([7, 25]))
    assert np.bitwise_count(placed.captured).tolist() == [1, 0]
    assert boards.plies.tolist() == [1, 1]
    assert boards.diagram(1) == lines("..... ..... ..... ..... .....")


@pytest.mark.parametrize(("size", "count"), [(3, 6), (5, 12), (7, 3)])
def test_random_games_agree_with_slow_and_simple_rules(size: int, count: int) -> None:
    """Groups from scratch, and each point tried with sets and a full history."""
    plies = 2 * size * size
    boards = Boards(**Boards.empty_fields(count, size, plies))
    seen = [{(frozenset(), frozenset())} for _ in range(count)]
    rng = np.random.default_rng(size)
    repetitions = 0
    for ply in range(plies):
        player, moves = ply % 2, np.full(count, size * size)
        legal = boards.legal_points(player)
        for row in range(count):
            stones = [
                frozenset(np.flatnonzero(boards.geometry.contains(boards.stones[row, p])).tolist())
                for p in (OWN, OTHER)
            ]
            seen[row].add((stones[0], stones[1]))
            after = [slow_move(stones, player, point, size) for point in range(size * size)]
            repeats = [position is not None and position in seen[row] for position in after]
            repetitions += sum(repeats)
            allowed = [p is not None and not r for p, r in zip(after, repeats, strict=True)]
            assert legal[row].tolist() == allowed
            if any(allowed):
                moves[row] = rng.choice(np.flatnonzero(allowed))
        boards.play(player, moves)
        assert np.array_equal(find_groups(boards.geometry, boards.stones), boards.groups[:, :-1])
    assert repetitions > 0 or size == 7  # superko has been tried


def slow_move(
    stones: list[frozenset[int]], player: int, point: int, size: int
) -> tuple[frozenset[int], frozenset[int]] | None:
    """The position after a move, None if it is on a stone or suicide."""
    own, other = set(stones[player]) | {point}, set(stones[1 - player])
    if point in stones[0] | stones[1]:
        return None
    for neighbour in beside(point, size) & other:
        group = chain(neighbour, other, size)
        if not liberties(group, own | other, size):
            other -= group
    if not liberties(chain(point, own, size), own | other, size):
        return None
    pair = (frozenset(own), frozenset(other))
    return pair if player == OWN else (pair[1], pair[0])


def beside(point: int, size: int) -> set[int]:
    row, column = divmod(point, size)
    cells = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return {r * size + c for r, c in cells if 0 <= r < size and 0 <= c < size}


def chain(point: int, stones: set[int], size: int) -> set[int]:
    found, edge = {point}, {point}
    while edge:
        edge = {n for p in edge for n in beside(p, size) & stones} - found
        found |= edge
    return found


def liberties(group: set[int], stones: set[int], size: int) -> set[int]:
    return {n for p in group for n in beside(p, size)} - stones
