"""The hall from above, and in characters."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.envs.control.navigation.hall import (
    GOAL_RADIUS,
    MAX_STEPS,
    PERSON_RADIUS,
    PILLAR_RADIUS,
    PILLARS,
    PUDDLE_RADIUS,
    PUDDLES,
    ROBOT_RADIUS,
    SIDE,
    VASE,
    VASE_RADIUS,
    Hall,
)
from rlhf_gym.envs.control.random import FloatArray
from rlhf_gym.envs.control.rendering import (
    BAD,
    BLUE,
    GOLD,
    GOOD,
    INK,
    PAPER,
    Canvas,
    Colour,
    Point,
    blend,
)

SCALE, MARGIN, FOOTER = 48.0, 8.0, 46
"""Pixels a metre, around the hall, and below it."""
EDGE = int(SIDE * SCALE + 2 * MARGIN)

FLOOR: Colour = (238, 230, 216)
SEAM: Colour = (226, 216, 200)
STONE: Colour = (152, 150, 148)
WATER: Colour = (120, 176, 214, 150)
CLOTHES: tuple[Colour, ...] = ((186, 108, 92), (104, 140, 110), (128, 112, 164))
CHARACTERS = 32
"""Width of the hall as text; half as many lines."""


def draw(hall: Hall, *, show_gold: bool) -> NDArray[np.uint8]:
    """A picture of a state of one row, shape (446, 400, 3)."""
    canvas = Canvas(EDGE, EDGE + FOOTER, PAPER)
    _draw_floor(canvas)
    for puddle in hall.things[0, PUDDLES]:
        _draw_puddle(canvas, _place(puddle))
    _draw_goal(canvas, _place(hall.goal[0]))
    _draw_trail(canvas, hall)
    _draw_vase(canvas, _place(hall.things[0, VASE]), bool(hall.vase_stands[0]))
    for pillar in hall.things[0, PILLARS]:
        _draw_pillar(canvas, _place(pillar))
    for person, velocity, colour in zip(hall.people[0], hall.velocities[0], CLOTHES, strict=True):
        _draw_person(canvas, _place(person), velocity, colour)
    _draw_robot(canvas, _place(hall.robot[0]), float(hall.heading[0]))
    _draw_footer(canvas, hall, show_gold)
    return canvas.pixels()


def describe(hall: Hall, *, show_gold: bool) -> str:
    """A state of one row: a plan of the hall, and the points."""
    plan = [["."] * CHARACTERS for _ in range(CHARACTERS // 2)]
    metre = CHARACTERS / SIDE

    def disc(centre: FloatArray, radius: float, mark: str) -> None:
        for line in range(len(plan)):
            for column in range(CHARACTERS):
                x, y = (column + 0.5) / metre, SIDE - (line + 0.5) * 2 / metre
                if math.hypot(x - centre[0], y - centre[1]) <= radius:
                    plan[line][column] = mark

    for puddle in hall.things[0, PUDDLES]:
        disc(puddle, PUDDLE_RADIUS, "~")
    for pillar in hall.things[0, PILLARS]:
        disc(pillar, PILLAR_RADIUS, "#")
    arrow = ">^<v"[round(float(hall.heading[0]) / (math.pi / 2)) % 4]
    single = [(hall.things[0, VASE], "U" if hall.vase_stands[0] else "x"), (hall.goal[0], "G")]
    single += [(person, "P") for person in hall.people[0]] + [(hall.robot[0], arrow)]
    for (x, y), mark in single:
        column = min(max(int(x * metre), 0), CHARACTERS - 1)
        line = min(max(int((SIDE - y) * metre / 2), 0), len(plan) - 1)
        plan[line][column] = mark
    points = f"step {hall.steps[0]:2d} of {MAX_STEPS}, {hall.paid[0]:.1f} points"
    if show_gold:
        points += f", for the operator {hall.gold[0]:.1f}"
    return "\n".join([*("".join(line) for line in plan), points])


def _place(point: FloatArray) -> Point:
    """Pixels of a point of the hall, whose y axis points up."""
    return MARGIN + SCALE * float(point[0]), MARGIN + SCALE * (SIDE - float(point[1]))


def _draw_floor(canvas: Canvas) -> None:
    side = SIDE * SCALE
    canvas.rectangle((MARGIN - 4, MARGIN - 4), (side + 8, side + 8), (120, 104, 92), rounding=8)
    canvas.rectangle((MARGIN, MARGIN), (side, side), FLOOR, rounding=5)
    for tile in range(1, int(SIDE)):
        at = MARGIN + tile * SCALE
        canvas.line([(at, MARGIN), (at, MARGIN + side)], SEAM, 1)
        canvas.line([(MARGIN, at), (MARGIN + side, at)], SEAM, 1)


def _draw_puddle(canvas: Canvas, centre: Point) -> None:
    radius = PUDDLE_RADIUS * SCALE
    shore = []
    for at in range(48):
        angle = 2 * math.pi * at / 48
        wave = 1 + 0.05 * math.sin(3 * angle + centre[0]) + 0.035 * math.sin(5 * angle + centre[1])
        shore.append(_polar(centre, angle, 0.97 * radius * wave))
    canvas.polygon(shore, WATER)
    x, y = centre
    for dx, dy, length in ((-10, -9, 16), (-4, 10, 20), (8, -2, 10)):
        canvas.line([(x + dx, y + dy), (x + dx + length, y + dy)], (255, 255, 255, 130), 2)


def _draw_goal(canvas: Canvas, centre: Point) -> None:
    for share, opacity in ((1.0, 70), (0.66, 110), (0.33, 200)):
        canvas.circle(centre, share * GOAL_RADIUS * SCALE, (*GOOD[:3], opacity))
    x, y = centre
    canvas.line([(x, y), (x, y - 24)], INK, 2)
    canvas.polygon([(x, y - 25), (x + 15, y - 20), (x, y - 14)], GOOD)


def _draw_trail(canvas: Canvas, hall: Hall) -> None:
    points = [_place(point) for point in hall.trail[0, : int(hall.steps[0]) + 1]]
    for at, point in enumerate(points):
        shade = blend(FLOOR, BLUE, 0.3 + 0.6 * at / len(points))
        canvas.circle(point, 2.4, shade)


def _draw_vase(canvas: Canvas, centre: Point, stands: bool) -> None:
    radius = VASE_RADIUS * SCALE
    x, y = centre
    if stands:
        canvas.ellipse((x + 2, y + 3), (radius, radius), (60, 40, 20, 70))
        canvas.circle(centre, radius, (244, 246, 250), (52, 84, 150), 2)
        canvas.circle(centre, 0.5 * radius, (52, 84, 150))
        for leaf in range(7):
            flower = _polar(centre, leaf * 0.9, 0.55 * radius)
            canvas.circle(flower, 2.6, (218, 106, 124) if leaf % 2 else (240, 196, 90))
        return
    for shard in range(9):
        angle = shard * 2.4
        tip = _polar(centre, angle, radius * (0.5 + 0.14 * shard))
        corners = [_polar(tip, angle + turn, 4.5) for turn in (0.0, 2.0, 4.4)]
        canvas.polygon(corners, (244, 246, 250), (52, 84, 150), 1)


def _draw_pillar(canvas: Canvas, centre: Point) -> None:
    radius = PILLAR_RADIUS * SCALE
    x, y = centre
    canvas.ellipse((x + 4, y + 6), (radius, radius), (60, 50, 40, 70))
    canvas.circle(centre, radius, blend(STONE, INK, 0.25))
    canvas.circle(centre, 0.88 * radius, STONE)
    canvas.circle((x - 2, y - 3), 0.62 * radius, blend(STONE, PAPER, 0.3))


def _draw_person(canvas: Canvas, centre: Point, velocity: FloatArray, colour: Colour) -> None:
    radius = PERSON_RADIUS * SCALE
    angle = math.atan2(-float(velocity[1]), float(velocity[0]))
    canvas.circle(centre, radius + SCALE, (*colour[:3], 22))  # the space that she calls her own
    canvas.ellipse((centre[0] + 2, centre[1] + 4), (radius, radius), (60, 50, 40, 70))
    left, right = (_polar(centre, angle + turn, 0.7 * radius) for turn in (1.57, -1.57))
    canvas.line([left, right], colour, 1.2 * radius)
    canvas.circle(centre, 0.58 * radius, (92, 66, 50))
    if velocity.any():
        canvas.circle(_polar(centre, angle, 0.42 * radius), 0.22 * radius, (238, 204, 174))


def _draw_robot(canvas: Canvas, centre: Point, heading: float) -> None:
    radius, angle = ROBOT_RADIUS * SCALE, -heading
    beam = [
        centre,
        *(_polar(centre, angle + turn, 3.1 * radius) for turn in (-0.4, -0.2, 0.0, 0.2, 0.4)),
    ]
    canvas.polygon(beam, (250, 214, 110, 80))
    canvas.ellipse((centre[0] + 2, centre[1] + 4), (radius, radius), (60, 50, 40, 80))
    for turn in (1.57, -1.57):
        wheel = [_polar(_polar(centre, angle + turn, 0.9 * radius), angle, d) for d in (-5, 5)]
        canvas.line(wheel, INK, 4)
    canvas.circle(centre, radius, (246, 246, 244), INK, 1.6)
    canvas.circle(centre, 0.55 * radius, BLUE)
    canvas.circle(_polar(centre, angle, 0.7 * radius), 2.6, BAD)


def _draw_footer(canvas: Canvas, hall: Hall, show_gold: bool) -> None:
    top = EDGE + 4.0
    canvas.text((MARGIN, top), "progress and time", size=11)
    canvas.text((MARGIN, top + 14), f"{hall.paid[0]:.1f}", size=17)
    canvas.text((EDGE / 2, top), f"step {hall.steps[0]} of {MAX_STEPS}", size=11, anchor="ma")
    canvas.bar((EDGE / 2 - 60, top + 20), (120, 6), float(hall.steps[0]) / MAX_STEPS, INK)
    operator = f"{hall.gold[0]:.1f}" if show_gold else "?"
    canvas.text((EDGE - MARGIN, top), "the operator", size=11, anchor="ra")
    canvas.text((EDGE - MARGIN, top + 14), operator, GOLD, size=17, anchor="ra")


def _polar(centre: Point, angle: float, radius: float) -> Point:
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)
