"""The pizza from above, on its board, beside what the machine measures."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.envs.control.pizza import kitchen
from rlhf_gym.envs.control.pizza.kitchen import (
    BASIL,
    CHEESE,
    CHILLI,
    INGREDIENTS,
    MUSHROOMS,
    OLIVES,
    SALAMI,
    SAUCE,
    Pizza,
)
from rlhf_gym.envs.control.pizza.tastes import MEASURED_PORTIONS, MEASURED_THICKNESS
from rlhf_gym.envs.control.rendering import (
    BLUE,
    FAINT,
    GOLD,
    INK,
    PAPER,
    Canvas,
    Colour,
    Point,
    blend,
)

WIDTH, HEIGHT = 480, 320
CENTRE = (160.0, 160.0)
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))

BOARD: Colour = (176, 130, 84)
GRAIN: Colour = (160, 114, 70)
DOUGH: Colour = (244, 226, 186)
GOLDEN: Colour = (214, 150, 72)
BURNT: Colour = (52, 34, 26)
TOMATO: Colour = (200, 62, 40)
MOZZARELLA: Colour = (252, 238, 190)


def draw(pizza: Pizza, max_steps: int, *, show_gold: bool) -> NDArray[np.uint8]:
    """A picture of a state of one row, shape (320, 480, 3)."""
    canvas = Canvas(WIDTH, HEIGHT, PAPER)
    _draw_board(canvas)
    # Thick dough is small: what is rolled thin goes out to the edge of the board.
    thickness = float(pizza.thickness[0])
    radius = 92 + 36 * (kitchen.THICKEST - thickness) / (kitchen.THICKEST - kitchen.THINNEST)
    rim = 12 + 9 * thickness / kitchen.THICKEST
    _draw_dough(canvas, pizza, radius, rim)
    _draw_spreads(canvas, pizza, radius - rim)
    _draw_toppings(canvas, pizza, radius - rim - 11)
    _draw_panel(canvas, pizza, max_steps, show_gold)
    return canvas.pixels()


def describe(pizza: Pizza, max_steps: int, *, show_gold: bool) -> str:
    """A state of one row in a few lines."""
    laid = [
        f"{name} {portion:.1f}"
        for name, portion in zip(INGREDIENTS, pizza.portions[0], strict=True)
        if portion > 0.05
    ]
    lines = [
        f"step {pizza.steps[0]:2d} of {max_steps}",
        f"dough   kneaded {pizza.kneaded[0]:.1f}, crust {pizza.thickness[0]:.1f} cm",
        f"on it   {', '.join(laid) or 'nothing'}",
        f"oven    {pizza.temperature[0]:.0f} C, {_look(float(pizza.browning[0]))}, "
        f"{100 * pizza.cooked[0]:.0f} % cooked",
        f"measure {pizza.measured[0]:.1f} points",
    ]
    if show_gold:
        lines.append(f"taste   {pizza.delicious[0]:.1f} points")
    return "\n".join(lines)


def _look(browning: float) -> str:
    for limit, look in ((0.1, "white"), (0.4, "pale"), (0.75, "golden"), (0.95, "dark")):
        if browning < limit:
            return look
    return "burnt"


def _draw_board(canvas: Canvas) -> None:
    canvas.rectangle((8, 8), (304, 304), BOARD, rounding=22)
    for line in range(1, 9):
        y = 8 + 304 * line / 9
        wave = [(8 + 304 * s / 24, y + 2.5 * math.sin(s / 3 + 1.7 * line)) for s in range(25)]
        canvas.line(wave, GRAIN, 1.2)


def _draw_dough(canvas: Canvas, pizza: Pizza, radius: float, rim: float) -> None:
    browning = float(pizza.browning[0])
    crust = _browned(browning, DOUGH)
    x, y = CENTRE
    canvas.ellipse((x + 3, y + 5), (radius + 1, radius + 1), (60, 36, 16, 90))
    canvas.circle(CENTRE, radius, blend(crust, BURNT, 0.22))
    canvas.circle((x - 1, y - 1), radius - 1.5, crust)
    for blister in range(26):  # brown where it rose highest
        angle = blister * GOLDEN_ANGLE * 3
        centre = _polar(angle, radius - rim * (0.35 + 0.3 * _noise(blister)))
        spot = _browned(browning * (1.1 + 0.5 * _noise(blister + 50)), DOUGH)
        canvas.circle(centre, rim * (0.2 + 0.22 * _noise(blister + 9)), (*spot[:3], 170))
    canvas.circle(CENTRE, radius - rim, blend(_browned(0.6 * browning, DOUGH), GOLDEN, 0.08))


def _draw_spreads(canvas: Canvas, pizza: Pizza, radius: float) -> None:
    """Sauce as one sheet that grows denser, cheese as blots that melt into one another."""
    sauce, cheese = float(pizza.portions[0, SAUCE]), float(pizza.portions[0, CHEESE])
    browning = float(pizza.browning[0])
    if sauce > 0.05:
        reach = radius * min(0.55 + 0.15 * sauce, 1.0 + 0.012 * sauce)
        canvas.circle(CENTRE, reach, (*blend(TOMATO, BURNT, 0.5 * browning)[:3], 235))
        for at, centre in _spiral(34, reach - 6):
            shade = blend(TOMATO, (150, 30, 22), _noise(at))
            canvas.circle(centre, 5 + 5 * _noise(at + 3), (*shade[:3], 120))
    melted = min(2.0 * float(pizza.cooked[0]), 1.0)
    colour = blend(_browned(0.45 * browning, MOZZARELLA), (248, 218, 130), 0.4 * melted)
    blots = [
        (at, centre, (6.5 + 5 * _noise(at + 20)) * (1 + 0.55 * melted))
        for at, centre in _spiral(round(10 * cheese), radius - 13)
    ]
    edge = blend(colour, GOLDEN, 0.45 * melted)
    for layer, grown in ((edge, 1.2), (colour, 0.0)):  # all edges first: blots run together
        for at, centre, size in blots:
            radii = (size + grown, (size + grown) * (0.75 + 0.3 * _noise(at)))
            canvas.ellipse(centre, radii, layer)
    if browning > 0.3:
        for at, centre, size in blots:
            spot = _browned(browning * (0.85 + 0.4 * _noise(at + 40)), MOZZARELLA)
            place = _polar(7.0 * at, 0.55 * size, centre)
            canvas.circle(place, size * (0.1 + 0.16 * _noise(at + 70)), (*spot[:3], 160))


def _draw_toppings(canvas: Canvas, pizza: Pizza, radius: float) -> None:
    """Pieces on one spiral over the whole pizza, so that no topping hides another."""
    counts = {kind: round(3.4 * float(pizza.portions[0, kind])) for kind in range(MUSHROOMS, 7)}
    order = [
        kind
        for _, kind in sorted(
            ((piece + 0.5) / count, kind)
            for kind, count in counts.items()
            for piece in range(count)
        )
    ]
    dark = 0.45 * float(pizza.browning[0])
    wilted = float(pizza.wilted[0]) > 0.05
    places = list(_spiral(len(order), radius))
    # Every seventh place, round and round: equal pieces do not lie side by side.
    for at, kind in enumerate(order):
        index, centre = places[at * 7 % len(order)] if len(order) % 7 else places[at]
        angle = 2 * math.pi * _noise(index + 13 * kind)
        if kind == MUSHROOMS:
            _draw_mushroom(canvas, centre, angle, dark)
        elif kind == OLIVES:
            canvas.circle(centre, 6.6, blend((52, 46, 58), BURNT, dark))
            canvas.circle(centre, 2.7, blend(TOMATO, GOLDEN, 0.35))
        elif kind == SALAMI:
            canvas.circle(centre, 14.0, blend((132, 34, 30), BURNT, dark))
            canvas.circle(centre, 12.6, blend((184, 62, 50), BURNT, dark))
            for _, (dx, dy) in _spiral(7, 10, centre=centre, phase=angle):
                canvas.circle((dx, dy), 1.5, blend((236, 178, 158), BURNT, dark))
        elif kind == CHILLI:
            _draw_chilli(canvas, centre, angle, dark)
        elif kind == BASIL:
            _draw_leaf(canvas, centre, angle, wilted)


def _draw_mushroom(canvas: Canvas, centre: Point, angle: float, dark: float) -> None:
    flesh, edge = blend((240, 228, 208), BURNT, 0.7 * dark), blend((150, 118, 92), BURNT, dark)
    down = angle + math.pi / 2
    stem = [_polar(down, 0, centre), _polar(down, 11.5, centre)]
    canvas.line(stem, edge, 7.6)
    canvas.line(stem, flesh, 5.2)
    cap = [_polar(angle + math.pi + math.pi * s / 12, 10.5, centre) for s in range(13)]
    canvas.polygon(cap, flesh, edge, 1.4)


def _draw_chilli(canvas: Canvas, centre: Point, angle: float, dark: float) -> None:
    pod = [_polar(angle + 0.5 * math.sin(s / 3), 2.8 * s - 10, centre) for s in range(8)]
    canvas.line(pod, blend((214, 30, 26), BURNT, dark), 4.2)
    canvas.line(pod[:2], (86, 140, 60), 4.2)


def _draw_leaf(canvas: Canvas, centre: Point, angle: float, wilted: bool) -> None:
    green = (92, 96, 52) if wilted else (74, 142, 62)
    size = 9.0 if wilted else 14.0
    side = [(size * math.cos(a), 0.5 * size * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 20)]
    turned = [
        _polar(angle + math.atan2(y, x), math.hypot(x, y) * (1 if x < 0 else 0.94), centre)
        for x, y in side
    ]
    canvas.polygon(turned, green)
    vein = blend(green, PAPER, 0.35)
    canvas.line([_polar(angle, -size, centre), _polar(angle, size, centre)], vein, 0.9)


def _draw_panel(canvas: Canvas, pizza: Pizza, max_steps: int, show_gold: bool) -> None:
    left, width = 330.0, 136.0
    canvas.text((left, 14), "the machine measures", size=13)
    crust = float(pizza.thickness[0])
    rows = [
        (f"crust {crust:.1f} cm", crust / kitchen.THICKEST, MEASURED_THICKNESS / kitchen.THICKEST),
        (f"sauce {pizza.portions[0, SAUCE]:.1f}", float(pizza.portions[0, SAUCE]) / 10,
         MEASURED_PORTIONS / 10),
        (f"cheese {pizza.portions[0, CHEESE]:.1f}", float(pizza.portions[0, CHEESE]) / 10,
         MEASURED_PORTIONS / 10),
    ]  # fmt: skip
    for at, (label, share, aim) in enumerate(rows):
        y = 40.0 + 32 * at
        canvas.text((left, y), label, size=11)
        canvas.bar((left, y + 15), (width, 9), share, BLUE)
        canvas.line([(left + width * aim, y + 12), (left + width * aim, y + 27)], INK, 1.2)
    canvas.text((left, 144), "points", size=11)
    canvas.text((left + width, 138), f"{pizza.measured[0]:.1f}", size=18, anchor="ra")

    canvas.line([(left, 168), (left + width, 168)], FAINT, 1)
    degrees = float(pizza.temperature[0])
    heat = (degrees - kitchen.COOLEST) / (kitchen.HOTTEST - kitchen.COOLEST)
    canvas.text((left, 178), f"oven {degrees:.0f} °C", size=11)
    canvas.bar((left, 193), (width, 9), heat, blend((222, 176, 84), (204, 60, 36), heat))
    canvas.text((left, 210), f"cooked {100 * pizza.cooked[0]:.0f} %", size=11)
    canvas.bar((left, 225), (width, 9), float(pizza.cooked[0]), _browned(0.5, DOUGH))

    canvas.line([(left, 248), (left + width, 248)], FAINT, 1)
    canvas.text((left, 258), "the guest's taste", size=11)
    taste = f"{pizza.delicious[0]:.1f}" if show_gold else "?"
    canvas.text((left + width, 254), taste, GOLD, size=18, anchor="ra")
    canvas.text((left, 288), f"step {pizza.steps[0]} of {max_steps}", size=11)
    canvas.bar((left, 303), (width, 5), float(pizza.steps[0]) / max_steps, INK)


def _browned(browning: float, raw: Colour) -> Colour:
    """From raw over golden (0.6) to black (1.2)."""
    if browning < 0.6:
        return blend(raw, GOLDEN, browning / 0.6)
    return blend(GOLDEN, BURNT, (browning - 0.6) / 0.6)


def _spiral(
    count: int, radius: float, centre: Point = CENTRE, phase: float = 0.4
) -> Iterator[tuple[int, Point]]:
    """Points spread evenly over a disc, as the seeds of a sunflower: index, point."""
    for at in range(count):
        yield at, _polar(at * GOLDEN_ANGLE + phase, radius * math.sqrt((at + 0.5) / count), centre)


def _polar(angle: float, radius: float, centre: Point = CENTRE) -> Point:
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)


def _noise(index: int) -> float:
    """A number from 0 to 1 that looks random and is always the same, so that nothing flickers."""
    return (index * 0.754877666 + 0.31 * (index % 5)) % 1.0
