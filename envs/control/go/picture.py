"""A board to look at: wood, stones with a little light on them, and how the game stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.envs.control.go.boards import OTHER, OWN
from rlhf_gym.envs.control.go.geometry import COLUMNS
from rlhf_gym.envs.control.rendering import BAD, FAINT, INK, Canvas, Colour, Point, blend

if TYPE_CHECKING:
    from rlhf_gym.envs.control.go.rules import GoState

CELL, MARGIN, PANEL = 52, 46, 176
WOOD: Colour = (222, 184, 126)
GRAIN: Colour = (206, 164, 104)
LINE: Colour = (92, 66, 38)
BLACK: Colour = (38, 38, 42)
WHITE: Colour = (246, 244, 238)
SHADOW: Colour = (60, 40, 20, 70)


class Caption(NamedTuple):
    """What the board itself does not show."""

    agent_is_white: bool
    lead: float
    """the agent's, in points"""
    komi: float
    is_over: bool
    is_forfeited: bool
    """the agent has lost by an illegal move"""
    max_plies: int

    @property
    def standing(self) -> str:
        """Who leads, or has won, and by how much."""
        if self.is_forfeited:
            return f"{'White' if self.agent_is_white else 'Black'} forfeits"
        if self.lead == 0:
            return "draw" if self.is_over else "even"
        ahead_is_white = self.agent_is_white == (self.lead > 0)
        verb = "wins by" if self.is_over else "leads by"
        return f"{'White' if ahead_is_white else 'Black'} {verb} {abs(self.lead):g}"


def image(state: GoState, caption: Caption) -> NDArray[np.uint8]:
    """The first row's game, shape (height, width, 3)."""
    size = state.geometry.size
    side = 2 * MARGIN + (size - 1) * CELL
    canvas = Canvas(side + PANEL, side)
    _draw_board(canvas, size, side)
    for player in (OWN, OTHER):
        is_white = caption.agent_is_white == (player == OWN)
        for point in np.flatnonzero(state.geometry.contains(state.stones[0, player])):
            _draw_stone(canvas, _place(int(point), size), is_white, CELL * 0.46)
    last = int(state.last[0, OTHER])
    if 0 <= last < state.geometry.points:
        canvas.circle(_place(last, size), CELL * 0.16, outline=BAD, width=3)
    _draw_panel(canvas, side, state, caption)
    return canvas.pixels()


def text(state: GoState, caption: Caption) -> str:
    """The first row's game, `●` Black and `○` White."""
    size = state.geometry.size
    marks = np.full(state.geometry.points, "·")
    for player in (OWN, OTHER):
        is_white = caption.agent_is_white == (player == OWN)
        marks[state.geometry.contains(state.stones[0, player])] = "○" if is_white else "●"
    letters = "  " + " ".join(COLUMNS[:size])
    lines = [
        f"{size - row} {' '.join(line)} {size - row}"
        for row, line in enumerate(marks.reshape(size, size))
    ]
    agent = "○ White" if caption.agent_is_white else "● Black"
    moves = " ".join(f"{who} {_last(state, player)}" for player, who in _players())
    return "\n".join([letters, *lines, letters, f"agent: {agent}", moves, caption.standing])


def _players() -> tuple[tuple[int, str], ...]:
    return (OWN, "agent"), (OTHER, "opponent")


def _last(state: GoState, player: int) -> str:
    move = int(state.last[0, player])
    return state.geometry.name(move) if move >= 0 else "-"


def _place(point: int, size: int) -> Point:
    row, column = divmod(point, size)
    return MARGIN + column * CELL, MARGIN + row * CELL


def _draw_board(canvas: Canvas, size: int, side: int) -> None:
    canvas.rectangle((0, 0), (side, side), WOOD)
    for x in range(5, side, 11):  # the grain: a wave that no two lines share
        wave = [(x + 3 * np.sin(y / 37 + x * 1.7), float(y)) for y in range(0, side + 1, 8)]
        canvas.line(wave, (*GRAIN[:3], 110), 1)
    first, last = MARGIN, MARGIN + (size - 1) * CELL
    for at in range(size):
        along = MARGIN + at * CELL
        width = 2 if at in (0, size - 1) else 1
        canvas.line([(first, along), (last, along)], LINE, width)
        canvas.line([(along, first), (along, last)], LINE, width)
        canvas.text((along, MARGIN * 0.3), COLUMNS[at], LINE, 12, "mm")
        canvas.text((MARGIN * 0.3, along), str(size - at), LINE, 12, "mm")
    canvas.circle(_place(size * size // 2, size), 3.5, LINE)


def _draw_stone(canvas: Canvas, centre: Point, is_white: bool, radius: float) -> None:
    x, y = centre
    canvas.circle((x + radius * 0.1, y + radius * 0.14), radius, SHADOW)
    base, light = (WHITE, (255, 255, 255)) if is_white else (BLACK, (128, 128, 138))
    edge = blend(base, (0, 0, 0), 0.12)
    for step in range(8):  # lit from the upper left
        share = step / 7
        shift = radius * 0.28 * share
        colour = blend(edge, light, share**1.6)
        canvas.circle((x - shift, y - shift), radius * (1 - 0.86 * share), colour)


def _draw_panel(canvas: Canvas, side: int, state: GoState, caption: Caption) -> None:
    left = side + 22
    canvas.rectangle((side, 0), (2, side), FAINT)
    for line, (player, who) in enumerate(_players()):
        y = 42 + line * 58
        _draw_stone(canvas, (left + 13, y + 10), caption.agent_is_white == (player == OWN), 13)
        canvas.text((left + 38, y), who, INK, 14, "lm")
        taken = int(state.prisoners[0, player])
        details = f"{_last(state, player)}, {taken} taken" if taken else _last(state, player)
        canvas.text((left + 38, y + 20), details, blend(INK, FAINT, 0.45), 12, "lm")
    canvas.text((left, 168), caption.standing, INK, 14, "lm")
    canvas.text((left, 190), f"komi {caption.komi:g}", blend(INK, FAINT, 0.45), 12, "lm")
    plies = int(state.plies[0])
    canvas.bar((left, side - 40), (PANEL - 44, 8), plies / caption.max_plies, LINE)
    canvas.text((left, side - 20), f"ply {plies}", blend(INK, FAINT, 0.45), 12, "lm")
