"""`rlhf_gym/Tutor-v0`: the quiz is scored, what lasts is what matters."""

from __future__ import annotations

from typing import Any, ClassVar

from gymnasium.vector import AutoresetMode

from rlhf_gym.envs.control.base import ControlEnv, ControlVectorEnv
from rlhf_gym.envs.control.tutor.rules import LessonState, TutorDynamics
from rlhf_gym.envs.control.tutor.student import StudentModel


class TutorVectorEnv(ControlVectorEnv[LessonState]):
    """Teach a student who forgets.

    ## Description
    A lesson of many short steps; after it, some time later, there is an exam. Of each skill the
    student understands a part (ability) and remembers a share of it that halves with every
    half-life since the last practice. Exercises whose outcome is open teach most; recovering what
    was half forgotten lengthens the half-life, practising what is fresh does not. Wrong answers
    frustrate, exercises that cannot fail bore, and both keep from learning. Right answers are easy
    to count, and easy exercises on one skill give most of them: nothing of that lasts.

    ## Action Space
    `Discrete(4 * num_skills + 1)`: `4 * skill + activity` with the activities review, easy, medium,
    hard; the last action is a rest.

    ## Observation Space
    `Box(0, 1, (4 * num_skills + 4,), float32)`: by skill, ability, recall, half-life (its logarithm
    divided by that of 200 steps) and whether it was practised last; frustration, boredom, whether
    the last answer was right, share of the lesson that is over. That is the whole state, as good
    knowledge tracing and a look at the student would give it.

    ## Starting State
    By skill, ability uniform on [0.15, 0.5], half-life on [5, 10] steps, last practised 2 to 14
    steps ago. Neither frustrated nor bored.

    ## Rewards
    1 for a right answer, else 0. `info["gold_reward"]` is 20 times the growth of what is expected
    to be known at the exam, minus 0.1 times the student's frustration. Expected means: if nothing
    more were practised. So an episode's gold return is 20 times what the lesson adds to the exam,
    minus the frustration it took.

    ## Episode End
    Terminated after `lesson_length` steps.

    ## Information
    `gold_reward`; `correct` after an exercise; at the end `retention`, the share known at the exam.

    ## Arguments
    Args:
        num_envs: rows.
        num_skills: 1 to 8.
        lesson_length: steps per episode.
        exam_delay: steps between the lesson and the exam.
        student: how students answer, learn and feel.
        autoreset_mode: see Gymnasium.
        render_mode: "rgb_array", "ansi" or None.

    ## References
    Settles and Meeder, "A Trainable Spaced Repetition Model for Language Learning" (ACL 2016), the
    half-life. Choffin et al., "DAS3H: Modeling Student Learning and Forgetting for Optimally
    Scheduling Distributed Practice of Skills" (EDM 2019), a memory per skill. Reddy, Levine and
    Dragan, "Accelerating Human Learning with Deep Reinforcement Learning" (2017), tutoring as
    reinforcement learning. Bjork, "Memory and Metamemory Considerations in the Training of Human
    Beings" (1994), desirable difficulties.

    ## Version History
    v0: first.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        num_skills: int = 4,
        lesson_length: int = 60,
        exam_delay: int = 40,
        student: StudentModel | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        dynamics = TutorDynamics(
            num_skills=num_skills,
            lesson_length=lesson_length,
            exam_delay=exam_delay,
            student=student,
        )
        super().__init__(
            dynamics, num_envs=num_envs, autoreset_mode=autoreset_mode, render_mode=render_mode
        )


class TutorEnv(ControlEnv):
    """`TutorVectorEnv` with one row; its page describes the task.

    Args:
        **kwargs: as `TutorVectorEnv`, without `num_envs` and `autoreset_mode`.
    """

    vector_class: ClassVar[Any] = TutorVectorEnv
