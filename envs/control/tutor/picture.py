"""A lesson to look at: the student, the quiz so far, and what will be left at the exam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.envs.control.rendering import BAD, GOLD, GOOD, Canvas, Colour, blend
from rlhf_gym.envs.control.tutor.student import RESTED, REVIEWED, RIGHT, TO_COME, WRONG, recall

if TYPE_CHECKING:
    from rlhf_gym.envs.control.tutor.rules import LessonState

WIDTH, HEIGHT = 640, 400
BOARD: Colour = (44, 72, 62)
FRAME: Colour = (150, 108, 66)
CHALK: Colour = (238, 240, 230)
DUST: Colour = (128, 150, 138)
SKILL_COLOURS: tuple[Colour, ...] = (
    (240, 196, 92), (232, 128, 120), (136, 196, 232), (170, 214, 130),
    (206, 160, 224), (240, 164, 96), (128, 214, 196), (224, 222, 150),
)  # fmt: skip
MARKS = "x+o~ "
LEFT, TOP, CHART_WIDTH, CHART_HEIGHT = 54, 128, 430, 170


def image(state: LessonState, skills: Sequence[str], exam_delay: int) -> NDArray[np.uint8]:
    """The first row's lesson, shape (height, width, 3)."""
    canvas = Canvas(WIDTH, HEIGHT, FRAME)
    canvas.rectangle((10, 10), (WIDTH - 20, HEIGHT - 20), BOARD, rounding=6)
    upset, bored = float(state.frustration[0]), float(state.boredom[0])
    _draw_student(canvas, (70, 68), 38, upset, bored)
    for row, (name, value, colour) in enumerate(
        (("frustration", upset, SKILL_COLOURS[1]), ("boredom", bored, SKILL_COLOURS[2]))
    ):
        y = 56 + row * 26
        canvas.text((130, y), name, CHALK, 13, "lm")
        canvas.bar((220, y - 4), (150, 8), value, colour)
    _draw_quiz(canvas, state)
    _draw_knowledge(canvas, state, skills, exam_delay)
    return canvas.pixels()


def text(state: LessonState, skills: Sequence[str], retention: float) -> str:
    """The first row's lesson."""
    steps, length = int(state.steps[0]), state.results.shape[1]
    lines = [f"step {steps} of {length}: {''.join(MARKS[result] for result in state.results[0])}"]
    lines.append("(+ right, x wrong, o review, ~ rest)")
    for skill, name in enumerate(skills):
        known, half_life = state.known[0, steps, skill], state.half_life[0, skill]
        lines.append(f"{name:>11} {_gauge(known)} half forgotten in {half_life:.0f} steps")
    lines.append(f"frustration {_gauge(state.frustration[0])}")
    lines.append(f"    boredom {_gauge(state.boredom[0])}")
    right = int((state.results[0] == RIGHT).sum())
    lines.append(f"{right} right (measured), {retention:.0%} will be known at the exam (not)")
    return "\n".join(lines)


def _gauge(share: float, width: int = 10) -> str:
    filled = round(float(share) * width)
    return "█" * filled + "░" * (width - filled)


def _draw_student(
    canvas: Canvas, centre: tuple[float, float], radius: float, upset: float, bored: float
) -> None:
    """A face: the mouth turns with frustration, the eyes close with boredom."""
    x, y = centre
    canvas.circle(centre, radius, blend(blend(GOLD, CHALK, 0.35), BAD, upset))
    for side in (-1, 1):
        eye = (x + side * radius * 0.36, y - radius * 0.15)
        canvas.ellipse(eye, (radius * 0.11, radius * (0.15 - 0.12 * bored)), BOARD)
        inner = (x + side * radius * 0.2, y - radius * (0.5 - 0.12 * upset))
        outer = (x + side * radius * 0.55, y - radius * (0.42 + 0.1 * upset))
        canvas.line([inner, outer], BOARD, 3)
    bend = radius * 0.5 * (0.5 - upset) * (1 - 0.7 * bored)
    along = np.linspace(-1, 1, 15).tolist()
    mouth = [
        (x + t * radius * 0.42, y + radius * 0.45 + bend * (1 - t * t) - bend / 2) for t in along
    ]
    canvas.line(mouth, BOARD, 3)


def _draw_quiz(canvas: Canvas, state: LessonState) -> None:
    """One mark per step, and the score."""
    results = state.results[0]
    right = int((results == RIGHT).sum())
    exercises = right + int((results == WRONG).sum())
    canvas.text((WIDTH - 34, 46), f"{right}", CHALK, 34, "rm")
    canvas.text((WIDTH - 34, 78), f"right of {exercises}", DUST, 12, "rm")
    colours = {RIGHT: blend(GOOD, CHALK, 0.3), REVIEWED: SKILL_COLOURS[2], RESTED: DUST}
    spacing = (WIDTH - 2 * LEFT) / max(len(results), 1)
    for step, result in enumerate(results.tolist()):
        at = (LEFT + (step + 0.5) * spacing, 352.0)
        if result == TO_COME:
            canvas.circle(at, 1.2, DUST)
        elif result == WRONG:
            (x, y), r = at, min(spacing * 0.34, 4)
            canvas.line([(x - r, y - r), (x + r, y + r)], BAD, 2.2)
            canvas.line([(x - r, y + r), (x + r, y - r)], BAD, 2.2)
        else:
            canvas.circle(at, min(spacing * 0.36, 4.2), colours[result])
    canvas.text((LEFT, 374), "right", colours[RIGHT], 11, "lm")
    canvas.text((LEFT + 44, 374), "wrong", BAD, 11, "lm")
    canvas.text((LEFT + 94, 374), "review", colours[REVIEWED], 11, "lm")
    canvas.text((LEFT + 146, 374), "rest", colours[RESTED], 11, "lm")


def _draw_knowledge(
    canvas: Canvas, state: LessonState, skills: Sequence[str], exam_delay: int
) -> None:
    """What was known of each skill so far, and faint, how it will be forgotten until the exam."""
    steps, length = int(state.steps[0]), state.results.shape[1]
    span = length + exam_delay
    bottom = TOP + CHART_HEIGHT

    def place(step: float, known: float) -> tuple[float, float]:
        return LEFT + CHART_WIDTH * step / span, bottom - CHART_HEIGHT * known

    for share in (0.0, 0.5, 1.0):
        canvas.line([place(0, share), place(span, share)], blend(BOARD, DUST, 0.35), 1)
        canvas.text((LEFT - 8, place(0, share)[1]), f"{share:.0%}", DUST, 10, "rm")
    canvas.line([place(length, 0), place(length, 1)], blend(BOARD, DUST, 0.6), 1)
    canvas.text((place(length, 0)[0], bottom + 14), "end of lesson", DUST, 10.5, "mm")
    canvas.line([place(span, 0), place(span, 1)], CHALK, 2)
    canvas.text((place(span, 0)[0], bottom + 14), "exam", CHALK, 11, "mm")
    label_heights = _spread_labels(state, span - steps, bottom)
    for skill, name in enumerate(skills):
        colour = SKILL_COLOURS[skill]
        past = [place(t, float(state.known[0, t, skill])) for t in range(steps + 1)]
        if steps:
            canvas.line(past, colour, 3)
        canvas.circle(past[-1], 4.5, colour)
        ahead = np.arange(span - steps + 1)
        since, half_life = state.since[0, skill], state.half_life[0, skill]
        fading = state.ability[0, skill] * recall(since + ahead, half_life)
        points = [place(steps + t, float(known)) for t, known in zip(ahead, fading, strict=True)]
        canvas.line(points, (*colour[:3], 120), 1.6)
        canvas.circle(points[-1], 3.5, colour)
        label = f"{name} {fading[-1]:.0%}"
        canvas.text((LEFT + CHART_WIDTH + 14, label_heights[skill]), label, colour, 12, "lm")


def _spread_labels(state: LessonState, steps_to_exam: int, bottom: float) -> list[float]:
    """Heights of the skills' labels beside their ends, none over another."""
    later = state.since[0] + steps_to_exam
    final = state.ability[0] * recall(later, state.half_life[0])
    heights = np.zeros(len(final))
    lowest = bottom + 2.0
    for skill in np.argsort(final):  # from the bottom up
        heights[skill] = min(bottom - CHART_HEIGHT * final[skill], lowest)
        lowest = heights[skill] - 16.0
    return [float(height) for height in heights]
