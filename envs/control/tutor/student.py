"""A student who learns, forgets, is frustrated and bored: pure functions on arrays.

Source: Settles and Meeder, "A Trainable Spaced Repetition Model for Language Learning" (ACL 2016):
recall halves with every half-life since the last practice, and practice lengthens the half-life.
Choffin et al., "DAS3H" (EDM 2019): one such memory per skill, and exercises of a difficulty. Bjork,
"Memory and Metamemory Considerations in the Training of Human Beings" (1994): what makes practice
harder, spacing and difficulty, makes it last; Cepeda et al., "Distributed Practice in Verbal Recall
Tasks" (2006): by how much spacing does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlhf_gym.envs.control.random import BoolArray, FloatArray, IntArray

REVIEW, EASY, MEDIUM, HARD = range(4)
"""What can be done with a skill: read about it once more, or an exercise."""
WRONG, RIGHT, REVIEWED, RESTED, TO_COME = range(5)
"""What a step of a lesson came to."""
ACTIVITIES = ("review", "easy", "medium", "hard")
DIFFICULTY = np.array([np.nan, 0.25, 0.5, 0.75])
"""Knowledge at which an exercise is about even; reviews have none."""


@dataclass(frozen=True)
class StudentModel:
    """How a student answers, learns and feels; a step is one activity, say five minutes."""

    sharpness: float = 9.0
    """log-odds of a correct answer per unit of knowledge above the difficulty"""
    benefit: float = 1.5
    """log-odds of a correct answer where knowledge is just the difficulty"""
    learning: float = 0.25
    """share of what is not yet understood that the best exercise teaches"""
    review_learning: float = 0.02
    """the same for reading"""
    lengthening: float = 2.0
    """growth of the half-life by the best exercise on what was nearly forgotten"""
    review_lengthening: float = 0.2
    """the same by reading"""
    lesson_of_errors: float = 0.5
    """what a wrong answer teaches, as a share of a right one"""
    frustration: float = 0.2
    """how much a wrong answer frustrates, as a share of the way to despair"""
    relief: float = 0.25
    """share of frustration that a right answer takes away"""
    boredom: float = 0.15
    """how much an exercise that cannot fail bores, as a share of the way to stupor"""
    monotony: float = 0.06
    """how much the same skill again bores"""
    refreshment: float = 0.4
    """share of frustration and boredom that a rest takes away"""


def recall(since: FloatArray, half_life: FloatArray) -> FloatArray:
    """Share of what was understood that is remembered, steps after the last practice."""
    return np.asarray(np.exp2(-since / half_life))


def success_probability(
    knowledge: FloatArray, difficulty: FloatArray, model: StudentModel
) -> FloatArray:
    """Of a right answer; `knowledge` is ability times recall."""
    odds = model.sharpness * (knowledge - difficulty) + model.benefit
    return np.asarray(1.0 / (1.0 + np.exp(-odds)))


def challenge(success: FloatArray) -> FloatArray:
    """How much an exercise demands: 1 where it is open, 0 where it is sure to go one way."""
    return np.asarray(4.0 * success * (1.0 - success))


def lessons(
    ability: FloatArray,
    remembered: FloatArray,
    success: FloatArray,
    correct: BoolArray,
    is_review: BoolArray,
    focus: FloatArray,
    model: StudentModel,
) -> tuple[FloatArray, FloatArray]:
    """What one activity does to its skill; all arrays of shape (n,).

    Args:
        ability: what was understood before.
        remembered: recall before.
        success: probability of a right answer.
        correct: it was right.
        is_review: it was no exercise.
        focus: 1 for a student neither frustrated nor bored.
        model: the student.

    Returns:
        By how much ability grows, and by what factor the half-life.
    """
    demand = challenge(success)
    share = np.where(correct, 1.0, model.lesson_of_errors)
    taught = np.where(is_review, model.review_learning, model.learning * demand * share)
    # The more was forgotten, the more its recovery strengthens memory: the spacing effect.
    forgotten = 1.0 - remembered
    effort = model.lengthening * share * (0.3 + 0.7 * demand)
    longer = np.where(is_review, model.review_lengthening, effort)
    return focus * taught * (1.0 - ability), 1.0 + focus * longer * forgotten


def feelings(
    frustration: FloatArray,
    boredom: FloatArray,
    *,
    exercise: BoolArray,
    correct: BoolArray,
    success: FloatArray,
    repeated: BoolArray,
    rest: BoolArray,
    model: StudentModel,
) -> tuple[FloatArray, FloatArray]:
    """Frustration and boredom after an activity; all arrays of shape (n,).

    Args:
        frustration: before, 0 to 1.
        boredom: before, 0 to 1.
        exercise: it was an exercise.
        correct: with a right answer.
        success: that had this probability.
        repeated: the skill was that of the step before.
        rest: it was a rest.
        model: the student.
    """
    wrong, right = exercise & ~correct, exercise & correct
    upset = frustration + wrong * model.frustration * (1.0 - frustration)
    upset = upset * (1.0 - right * model.relief) * (1.0 - rest * model.refreshment)
    dull = model.boredom * exercise * (1.0 - challenge(success)) + model.monotony * repeated
    refreshed = np.where(rest, model.refreshment, 0.1)
    return upset, boredom * (1.0 - refreshed) + dull * (1.0 - boredom)


def retention(
    ability: FloatArray, since: FloatArray, half_life: FloatArray, steps_to_exam: IntArray
) -> FloatArray:
    """What is expected to be known at the exam if nothing is practised before; mean over skills.

    Args:
        ability: shape (n, skills).
        since: steps since the last practice, shape (n, skills).
        half_life: in steps, shape (n, skills).
        steps_to_exam: shape (n,).
    """
    later = since + steps_to_exam[:, None]
    return np.asarray((ability * recall(later, half_life)).mean(axis=-1))
