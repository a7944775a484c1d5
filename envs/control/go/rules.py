"""Games of Go against a scripted opponent, as control dynamics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.control.dynamics import Dynamics, Outcome
from rlhf_gym.envs.control.go import picture
from rlhf_gym.envs.control.go.boards import OTHER, OWN, Boards
from rlhf_gym.envs.control.go.geometry import Ints, geometry
from rlhf_gym.envs.control.go.opponents import OPPONENTS, choose
from rlhf_gym.envs.control.go.shape import ShapeTaste, shape_of
from rlhf_gym.envs.control.random import BoolArray, Draws, FloatArray

Colour = Literal["black", "white", "random"]
IllegalMove = Literal["lose", "pass"]

SIZES = (5, 7)
PLIES_PER_POINT = 3
"""The default move limit; hardly a game between players who do not fill their eyes gets there."""
SHAPE_WEIGHT = 0.1
"""What the teacher's opinion of a move weighs against winning (1)."""
NO_MOVE = -1


@dataclass
class GoState(Boards):
    """Games in progress; the agent is `OWN`.

    Args:
        white: the agent plays White, shape (n,).
        passes: passes in a row, up to now, shape (n,).
        legal: where the agent may play, shape (n, points).
        last: the last move of each player, `points` a pass, `NO_MOVE` none; shape (n, 2).
        prisoners: stones each player has captured, shape (n, 2).
        forfeited: the agent has lost by an illegal move, shape (n,).
    """

    white: BoolArray
    passes: Ints
    legal: BoolArray
    last: Ints
    prisoners: Ints
    forfeited: BoolArray


class GoDynamics(Dynamics[GoState]):
    """See `GoVectorEnv` for arguments and rules.

    Raises:
        InvalidArgument: an argument that is none of those named there.
    """

    render_fps = 2

    def __init__(
        self,
        *,
        size: int = 5,
        opponent: str = "random",
        komi: float = 0.5,
        colour: Colour = "black",
        illegal_move: IllegalMove = "lose",
        max_plies: int | None = None,
        taste: ShapeTaste | None = None,
    ) -> None:
        _check_choice("size", size, SIZES)
        _check_choice("opponent", opponent, tuple(OPPONENTS))
        _check_choice("colour", colour, ("black", "white", "random"))
        _check_choice("illegal_move", illegal_move, ("lose", "pass"))
        self.geometry = geometry(size)
        points = self.geometry.points
        if not np.isfinite(komi):
            raise InvalidArgument("komi", komi, "not a number of points", "Give, say, 0.5")
        if max_plies is None:
            max_plies = PLIES_PER_POINT * points
        if max_plies < 2:
            raise InvalidArgument("max_plies", max_plies, "no room for a game", "Give 2 or more")
        self.opponent = OPPONENTS[opponent]
        self.komi, self.colour, self.illegal_move = float(komi), colour, illegal_move
        self.max_plies = max_plies
        self.taste = taste or ShapeTaste()
        self.observation_space = Box(0.0, 1.0, (4 * points + 3,), np.float32)
        self.action_space = Discrete(points + 1)
        self.settings: Mapping[str, Any] = {
            "size": size, "opponent": opponent, "komi": self.komi, "colour": colour,
            "illegal_move": illegal_move, "max_plies": max_plies, "taste": repr(self.taste),
        }  # fmt: skip

    def begin(self, draws: Draws) -> GoState:
        """Empty boards; where the agent is White, the opponent has moved."""
        n, points = draws.count, self.geometry.points
        state = GoState(
            **GoState.empty_fields(n, self.geometry.size, self.max_plies),
            white=np.full(n, self.colour == "white"),
            passes=np.zeros(n, dtype=np.int64),
            legal=np.ones((n, points), dtype=np.bool_),
            last=np.full((n, 2), NO_MOVE),
            prisoners=np.zeros((n, 2), dtype=np.int64),
            forfeited=np.zeros(n, dtype=np.bool_),
        )
        if self.colour == "random":
            state.white = draws.bernoulli(0.5)
        if self.colour != "black":
            self._answer(state, state.white, draws)
            state.legal = state.legal_points(OWN)
        return state

    def advance(self, state: GoState, actions: NDArray[Any], draws: Draws) -> Outcome:
        """The agent's move and the opponent's answer."""
        points = self.geometry.points
        refused = ~self.action_masks(state)[state.indices, actions]
        moves = np.where(refused, points, actions)
        opinion = self._move(state, moves)
        state.forfeited |= refused & (self.illegal_move == "lose")
        self._answer(state, ~self._is_over(state), draws)
        over = self._is_over(state)
        state.legal[:] = state.legal_points(OWN)

        lead = self.lead(state)
        result = np.where(state.forfeited, -1.0, np.sign(lead)) * over
        return Outcome(
            reward=result,
            gold_reward=result + SHAPE_WEIGHT * opinion,
            terminated=over,
            truncated=np.zeros_like(over),
            info={"lead": (lead, over), "illegal_move": refused, "shape": opinion},
        )

    def lead(self, state: GoState) -> FloatArray:
        """The agent's area less the opponent's, komi counted, in points; shape (n,)."""
        komi = np.where(state.white, self.komi, -self.komi)
        return np.asarray(state.area(OWN) - state.area(OTHER) + komi, dtype=np.float64)

    def action_masks(self, state: GoState) -> BoolArray:
        """Legal points, and the pass, which always is; shape (n, points + 1)."""
        return np.pad(state.legal, ((0, 0), (0, 1)), constant_values=True)

    def observe(self, state: GoState) -> NDArray[np.float32]:
        """See `GoVectorEnv`, Observation Space."""
        board = self.geometry
        planes = [
            *(board.contains(state.stones[:, player]) for player in (OWN, OTHER)),
            state.legal,
            state.liberties[:, :-1] == 1,
        ]
        passed = state.last[:, OTHER] == board.points
        clock = state.plies / self.max_plies
        scalars = np.stack([state.white, passed, clock], axis=1)
        return np.concatenate([*planes, scalars], axis=1, dtype=np.float32, casting="unsafe")

    def image(self, state: GoState) -> NDArray[np.uint8]:
        """The board and the state of the game."""
        return picture.image(state, self._caption(state))

    def text(self, state: GoState) -> str:
        """The board with coordinates; the agent's stones are what the caption says."""
        return picture.text(state, self._caption(state))

    def _move(self, state: GoState, moves: Ints) -> FloatArray:
        """The agent's move; what the teacher thinks of its shape, shape (n,)."""
        placed = state.place(OWN, moves)
        opinion = shape_of(state, OWN, moves, placed).judged_by(self.taste)
        everywhere = np.ones(len(moves), dtype=np.bool_)
        state.put_down(OWN, placed, everywhere)
        self._note(state, OWN, moves, everywhere)
        state.prisoners[:, OWN] += np.bitwise_count(placed.captured)
        return opinion

    def _answer(self, state: GoState, rows: BoolArray, draws: Draws) -> None:
        """The opponent's move where `rows` is True."""
        noise = draws.uniform(shape=(self.geometry.points,))
        may_end = rows & (state.passes == 1)
        if may_end.any():
            may_end &= self.lead(state) < 0
        legal = state.legal_points(OTHER)
        moves = choose(self.opponent, state, OTHER, legal, noise, may_end)
        moves = np.where(rows, moves, self.geometry.points)
        placed = state.place(OTHER, moves)
        state.put_down(OTHER, placed, rows)
        self._note(state, OTHER, moves, rows)
        state.prisoners[:, OTHER] += np.bitwise_count(placed.captured)

    def _note(self, state: GoState, player: int, moves: Ints, rows: BoolArray) -> None:
        passed = moves == self.geometry.points
        state.passes[rows] = np.where(passed, state.passes + 1, 0)[rows]
        state.last[rows, player] = moves[rows]

    def _is_over(self, state: GoState) -> BoolArray:
        by_rule = (state.passes >= 2) | (state.plies >= self.max_plies)
        return by_rule | state.forfeited

    def _caption(self, state: GoState) -> picture.Caption:
        return picture.Caption(
            agent_is_white=bool(state.white[0]),
            lead=float(self.lead(state)[0]),
            komi=self.komi,
            is_over=bool(self._is_over(state)[0]),
            is_forfeited=bool(state.forfeited[0]),
            max_plies=self.max_plies,
        )


def _check_choice(field: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        names = ", ".join(map(str, choices))
        raise InvalidArgument(field, value, "not one of those there are", f"Choose from {names}")
