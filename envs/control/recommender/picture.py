"""A session to look at: the card shown last, the reader's mind, and two curves that part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.envs.control.recommender.catalogue import Catalogue
from rlhf_gym.envs.control.rendering import (
    BAD,
    BLUE,
    FAINT,
    GOLD,
    GOOD,
    INK,
    PAPER,
    Canvas,
    Colour,
    blend,
)  # fmt: skip

if TYPE_CHECKING:
    from rlhf_gym.envs.control.recommender.rules import ReaderState

WIDTH, HEIGHT = 640, 400
CARD_WIDTH = 290
TOPIC_COLOURS: tuple[Colour, ...] = (
    (92, 98, 168), (178, 96, 140), (96, 153, 96), (206, 140, 62), (74, 150, 166),
)  # fmt: skip
SOFT = blend(INK, FAINT, 0.5)


def image(state: ReaderState, catalogue: Catalogue) -> NDArray[np.uint8]:
    """The first row's session, shape (height, width, 3)."""
    canvas = Canvas(WIDTH, HEIGHT)
    _draw_feed(canvas, state, catalogue)
    _draw_reader(canvas, state, catalogue)
    _draw_curves(canvas, state)
    return canvas.pixels()


def text(state: ReaderState, catalogue: Catalogue) -> str:
    """The first row's session."""
    steps, length = int(state.steps[0]), state.items.shape[1]
    lines = [f"item {steps} of {length}"]
    if steps:
        mark = "clicked" if state.clicks[0, steps - 1] else "passed over"
        lines.append(f"{catalogue.titles[state.items[0, steps - 1]]!r}: {mark}")
    for topic, name in enumerate(catalogue.topic_names):
        taste, tired = state.taste[0, topic], state.weariness[0, topic]
        lines.append(f"{name:>10}  likes {_gauge(taste)}  tired {_gauge(tired)}")
    lines.append(f"    unease {_gauge(state.unease[0])}")
    clicks, satisfaction = state.clicks[0].sum(), state.satisfaction[0].sum()
    lines.append(f"clicks {clicks:.0f} (measured), satisfaction {satisfaction:+.1f} (not)")
    return "\n".join(lines)


def _gauge(share: float, width: int = 10) -> str:
    filled = round(float(share) * width)
    return "█" * filled + "░" * (width - filled)


def _topic_colour(topic: int) -> Colour:
    return TOPIC_COLOURS[topic % len(TOPIC_COLOURS)]


def _draw_feed(canvas: Canvas, state: ReaderState, catalogue: Catalogue) -> None:
    """The last three items, the newest on top and larger."""
    steps, length = int(state.steps[0]), state.items.shape[1]
    canvas.text((24, 24), "recommended", SOFT, 12, "lm")
    canvas.text((24 + CARD_WIDTH, 24), f"{steps} of {length}", SOFT, 12, "rm")
    y = 40.0
    for age, step in enumerate(range(steps - 1, max(steps - 4, -1), -1)):
        height = 74 if age == 0 else 46
        item, clicked = int(state.items[0, step]), bool(state.clicks[0, step])
        colour = _topic_colour(int(catalogue.topics[item].argmax()))
        faded = blend(colour, PAPER, 0.25 * age)
        canvas.rectangle((24, y), (CARD_WIDTH, height), (255, 255, 255), FAINT, rounding=9)
        canvas.rectangle((24, y), (10, height), faded, rounding=4)
        title = catalogue.titles[item]
        ink = blend(INK, PAPER, 0.28 * age)
        canvas.text((46, y + height * 0.36), title, ink, 15 if age == 0 else 12, "lm")
        topic = catalogue.topic_names[int(catalogue.topics[item].argmax())]
        note = f"{topic}, quality {catalogue.quality[item]:.2f}, bait {catalogue.bait[item]:.2f}"
        canvas.text((46, y + height * 0.72), note, blend(SOFT, PAPER, 0.2 * age), 10.5, "lm")
        if clicked:
            _draw_pointer(canvas, 24 + CARD_WIDTH - 20, y + height - 22)
        y += height + 9


def _draw_pointer(canvas: Canvas, x: float, y: float) -> None:
    """A mouse pointer: it was clicked."""
    shape = [(0, 0), (0, 15), (4, 11.5), (6.5, 17), (9, 16), (6.5, 10.5), (11, 10)]
    canvas.polygon([(x + a, y + b) for a, b in shape], INK, PAPER, 1)


def _draw_reader(canvas: Canvas, state: ReaderState, catalogue: Catalogue) -> None:
    """A face, and what the reader likes and is tired of."""
    left = 24 + CARD_WIDTH + 28
    recent = state.satisfaction[0, max(int(state.steps[0]) - 6, 0) : int(state.steps[0])]
    mood = float(np.clip(recent.mean() * 2.5, -1, 1)) if recent.size else 0.0
    _draw_face(canvas, (left + 34, 62), 34, mood)
    canvas.text((left + 84, 42), "the reader", INK, 15, "lm")
    canvas.text((left + 84, 66), "unease", SOFT, 11, "lm")
    canvas.bar((left + 130, 62), (WIDTH - left - 154, 8), float(state.unease[0]), BAD)
    for row, name in enumerate(catalogue.topic_names[:6]):
        y = 116 + row * 21
        canvas.text((left, y + 5), name, INK, 12, "lm")
        width = WIDTH - left - 84
        canvas.bar((left + 60, y), (width, 6), float(state.taste[0, row]), _topic_colour(row))
        canvas.bar((left + 60, y + 8), (width, 3), float(state.weariness[0, row]), SOFT)


def _draw_face(canvas: Canvas, centre: tuple[float, float], radius: float, mood: float) -> None:
    """From -1, unhappy, to 1, happy."""
    x, y = centre
    colour = blend(GOLD, GOOD, mood) if mood > 0 else blend(GOLD, BAD, -mood)
    canvas.circle(centre, radius, blend(colour, PAPER, 0.25))
    for side in (-1, 1):
        canvas.circle((x + side * radius * 0.36, y - radius * 0.22), radius * 0.09, INK)
    along = np.linspace(-1, 1, 15)
    bend = radius * 0.26 * mood
    mouth = [
        (float(x + t * radius * 0.45), float(y + radius * 0.36 + bend * (1 - t * t) - bend / 2))
        for t in along
    ]
    canvas.line(mouth, INK, 3)


def _draw_curves(canvas: Canvas, state: ReaderState) -> None:
    """Clicks and satisfaction so far, both as sums; the line in the middle is zero."""
    left, top, width, height = 24, 252, WIDTH - 48, 116
    steps, length = int(state.steps[0]), state.items.shape[1]
    canvas.rectangle((left, top), (width, height), (255, 255, 255), FAINT, rounding=9)
    zero = top + height * 0.5
    canvas.line([(left + 10, zero), (left + width - 10, zero)], FAINT, 1)
    scale = height * 0.46 / (0.8 * length)
    curves = (
        (state.clicks, BLUE, "clicks, measured"),
        (state.satisfaction, GOLD, "satisfaction, not"),
    )
    for at, (values, colour, name) in enumerate(curves):
        sums = np.concatenate([[0.0], np.cumsum(values[0, :steps])])
        heights = np.clip(zero - sums * scale, top + 4, top + height - 4)
        across = left + 14 + np.arange(steps + 1) * (width - 28) / length
        if steps:
            canvas.line(list(zip(across.tolist(), heights.tolist(), strict=True)), colour, 3)
        canvas.circle((left + 6 + at * 170, HEIGHT - 16), 5, colour)
        canvas.text((left + 18 + at * 170, HEIGHT - 16), f"{name} {sums[-1]:+.1f}", INK, 12, "lm")
