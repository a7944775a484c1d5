"""Lessons of one student, as control dynamics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.control.dynamics import Dynamics, Outcome, State
from rlhf_gym.envs.control.random import Draws, FloatArray, IntArray
from rlhf_gym.envs.control.tutor import picture
from rlhf_gym.envs.control.tutor.student import (
    ACTIVITIES,
    DIFFICULTY,
    RESTED,
    REVIEW,
    REVIEWED,
    RIGHT,
    TO_COME,
    StudentModel,
    feelings,
    lessons,
    recall,
    retention,
    success_probability,
)  # fmt: skip

SKILLS = ("fractions", "percent", "equations", "angles", "graphs", "powers", "chance", "proof")
LONGEST_HALF_LIFE = 200.0
"""In steps; longer ones are observed as this."""
RETENTION_WEIGHT = 20.0
"""Gold reward for knowing everything at the exam."""
FRUSTRATION_WEIGHT = 0.1
"""Gold reward lost in each step of utter frustration."""


@dataclass
class LessonState(State):
    """Students in the middle of a lesson of `length` steps.

    Args:
        ability: what is understood of each skill, 0 to 1, shape (n, skills).
        half_life: steps in which half of it is forgotten, shape (n, skills).
        since: steps since it was practised, shape (n, skills).
        frustration: 0 to 1, shape (n,).
        boredom: 0 to 1, shape (n,).
        last_skill: the skill of the step before, `skills` after a rest and at first, shape (n,).
        steps: so far, shape (n,).
        results: what each step came to, shape (n, length).
        known: ability times recall before each step and at last, shape (n, length + 1, skills).
    """

    ability: FloatArray
    half_life: FloatArray
    since: FloatArray
    frustration: FloatArray
    boredom: FloatArray
    last_skill: IntArray
    steps: IntArray
    results: IntArray
    known: FloatArray


class TutorDynamics(Dynamics[LessonState]):
    """See `TutorVectorEnv`.

    Raises:
        InvalidArgument: a number of skills or steps that makes no lesson.
    """

    def __init__(
        self,
        *,
        num_skills: int = 4,
        lesson_length: int = 60,
        exam_delay: int = 40,
        student: StudentModel | None = None,
    ) -> None:
        if not 1 <= num_skills <= len(SKILLS):
            problem, remedy = "not a number of skills there are", f"Give 1 to {len(SKILLS)}"
            raise InvalidArgument("num_skills", num_skills, problem, remedy)
        if lesson_length < 1:
            raise InvalidArgument("lesson_length", lesson_length, "no lesson", "Give 1 or more")
        if exam_delay < 0:
            raise InvalidArgument("exam_delay", exam_delay, "before the end", "Give 0 or more")
        self.num_skills, self.lesson_length, self.exam_delay = num_skills, lesson_length, exam_delay
        self.student = student or StudentModel()
        self.observation_space = Box(0.0, 1.0, (4 * num_skills + 4,), np.float32)
        self.rest = num_skills * len(ACTIVITIES)
        self.action_space = Discrete(self.rest + 1)
        self.settings: Mapping[str, Any] = {
            "num_skills": num_skills, "lesson_length": lesson_length, "exam_delay": exam_delay,
            **asdict(self.student),
        }  # fmt: skip

    def begin(self, draws: Draws) -> LessonState:
        """Students who have heard of everything and remember little."""
        n, skills, length = draws.count, self.num_skills, self.lesson_length
        state = LessonState(
            ability=draws.uniform(0.15, 0.5, shape=(skills,)),
            half_life=draws.uniform(5.0, 10.0, shape=(skills,)),
            since=draws.integers(2, 15, shape=(skills,)).astype(np.float64),
            frustration=np.zeros(n),
            boredom=np.zeros(n),
            last_skill=np.full(n, skills),
            steps=np.zeros(n, dtype=np.int64),
            results=np.full((n, length), TO_COME),
            known=np.zeros((n, length + 1, skills)),
        )
        state.known[:, 0] = self.knowledge(state)
        return state

    def advance(self, state: LessonState, actions: NDArray[Any], draws: Draws) -> Outcome:
        """One activity."""
        before = self.retention(state)
        rows, rest = np.arange(len(actions)), actions == self.rest
        skill, activity = np.divmod(actions, len(ACTIVITIES))
        exercise = ~rest & (activity != REVIEW)
        success = self.success_probability(state, actions)
        correct = draws.bernoulli(success) & exercise
        self._learn(state, actions, success, correct)
        state.frustration[:], state.boredom[:] = feelings(
            state.frustration, state.boredom, exercise=exercise, correct=correct, success=success,
            repeated=skill == state.last_skill, rest=rest, model=self.student,
        )  # fmt: skip
        state.last_skill[:] = skill  # of a rest it is `num_skills`
        passive = np.where(rest, RESTED, REVIEWED)
        state.results[rows, state.steps] = np.where(exercise, correct, passive)
        state.steps += 1
        state.known[rows, state.steps] = self.knowledge(state)
        learned = self.retention(state) - before
        over = state.steps >= self.lesson_length
        return Outcome(
            reward=correct.astype(np.float64),
            gold_reward=RETENTION_WEIGHT * learned - FRUSTRATION_WEIGHT * state.frustration,
            terminated=over,
            truncated=np.zeros_like(over),
            info={"correct": (correct, exercise), "retention": (self.retention(state), over)},
        )

    def knowledge(self, state: LessonState) -> FloatArray:
        """What the student knows now of each skill, shape (n, skills)."""
        return state.ability * recall(state.since, state.half_life)

    def retention(self, state: LessonState) -> FloatArray:
        """What is expected to be known at the exam, shape (n,); see `student.retention`."""
        steps_to_exam = self.lesson_length - state.steps + self.exam_delay
        return retention(state.ability, state.since, state.half_life, steps_to_exam)

    def success_probability(self, state: LessonState, actions: IntArray) -> FloatArray:
        """Of a right answer, shape (n,); 0 for what is no exercise."""
        skill, activity = np.divmod(np.minimum(actions, self.rest - 1), len(ACTIVITIES))
        knowledge = self.knowledge(state)[np.arange(len(actions)), skill]
        success = success_probability(knowledge, DIFFICULTY[activity], self.student)
        return np.where((actions == self.rest) | (activity == REVIEW), 0.0, success)

    def observe(self, state: LessonState) -> NDArray[np.float32]:
        """See `TutorVectorEnv`, Observation Space."""
        rows = np.arange(len(state.steps))
        memory = np.log(state.half_life) / np.log(LONGEST_HALF_LIFE)
        last = state.last_skill[:, None] == np.arange(self.num_skills)
        was_right = (state.results[rows, state.steps - 1] == RIGHT) & (state.steps > 0)
        clock = state.steps / self.lesson_length
        scalars = np.stack([state.frustration, state.boredom, was_right, clock], axis=1)
        remembered = recall(state.since, state.half_life)
        columns = [state.ability, remembered, np.minimum(memory, 1.0), last, scalars]
        return np.concatenate(columns, axis=1, dtype=np.float32, casting="same_kind")

    def image(self, state: LessonState) -> NDArray[np.uint8]:
        """The student, the quiz so far, and how the knowledge will fade until the exam."""
        return picture.image(state, SKILLS[: self.num_skills], self.exam_delay)

    def text(self, state: LessonState) -> str:
        """The same in characters."""
        return picture.text(state, SKILLS[: self.num_skills], float(self.retention(state)[0]))

    def _learn(
        self,
        state: LessonState,
        actions: IntArray,
        success: FloatArray,
        correct: NDArray[np.bool_],
    ) -> None:
        """Practise one skill; time passes for all."""
        rows = np.flatnonzero(actions != self.rest)
        skill, activity = np.divmod(actions[rows], len(ACTIVITIES))
        focus = (1.0 - state.frustration[rows]) * (1.0 - state.boredom[rows])
        remembered = recall(state.since[rows, skill], state.half_life[rows, skill])
        taught, factor = lessons(
            state.ability[rows, skill], remembered, success[rows], correct[rows],
            activity == REVIEW, focus, self.student,
        )  # fmt: skip
        state.ability[rows, skill] += taught
        state.half_life[rows, skill] *= factor
        state.since[rows, skill] = 0.0
        state.since += 1.0
