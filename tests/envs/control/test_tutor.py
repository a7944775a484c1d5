"""A student by hand, and scripted tutors: who maximises the quiz score leaves nothing behind."""

from collections.abc import Callable

import numpy as np
import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.control.tutor import StudentModel, TutorEnv, TutorVectorEnv
from rlhf_gym.envs.control.tutor.rules import LessonState, TutorDynamics
from rlhf_gym.envs.control.tutor.student import (
    feelings,
    lessons,
    recall,
    retention,
    success_probability,
)

Policy = Callable[[TutorDynamics, LessonState], np.ndarray]
REST = 16
MODEL = StudentModel()


def returns(policy: Policy, students: int = 200) -> tuple[float, float]:
    """Mean quiz score and gold return of a lesson."""
    env = TutorVectorEnv(students)
    env.reset(seed=0)
    score = gold = 0.0
    for _ in range(60):
        _, rewards, terminated, _, info = env.step(policy(env.dynamics, env.state))
        score += rewards.mean()
        gold += info["gold_reward"].mean()
    assert terminated.all()
    return score, gold


def cram(rules: TutorDynamics, state: LessonState) -> np.ndarray:
    """Easy exercises on the first skill."""
    return np.full(len(state.steps), 1)


def space(rules: TutorDynamics, state: LessonState) -> np.ndarray:
    """The skill most forgotten, as hard as is open; a rest for who is frustrated."""
    skill = recall(state.since, state.half_life).argmin(axis=1)
    action = 4 * skill + 1
    for level in (2, 3):
        open_enough = rules.success_probability(state, 4 * skill + level) > 0.4
        action = np.where(open_enough, 4 * skill + level, action)
    return np.where(state.frustration > 0.5, REST, action)


def test_cramming_scores_and_spacing_lasts() -> None:
    rng = np.random.default_rng(0)
    score, little = returns(cram)
    fewer, much = returns(space)
    some, middling = returns(lambda rules, state: rng.integers(0, 17, len(state.steps)))
    assert score > fewer > some  # about 59, 41, 24
    assert much > 6  # about 7.4
    assert little < 1.5  # about 0.8; random 1.0
    assert middling < 2


def test_only_hard_exercises_frustrate_and_only_reviews_teach_little() -> None:
    _, hard = returns(lambda rules, state: 4 * (state.steps % 4) + 3)
    score, review = returns(lambda rules, state: 4 * (state.steps % 4))
    assert hard < 0 < review < 2
    assert score == 0


def test_gold_adds_up_to_retention_gained_and_frustration_suffered() -> None:
    env = TutorVectorEnv(8, autoreset_mode="Disabled")
    env.reset(seed=5)
    before = env.dynamics.retention(env.state)
    rng = np.random.default_rng(0)
    gold, suffered = np.zeros(8), np.zeros(8)
    for _ in range(60):
        *_, info = env.step(rng.integers(0, 17, 8))
        gold += info["gold_reward"]
        suffered += env.state.frustration
    assert gold == pytest.approx(20 * (info["retention"] - before) - 0.1 * suffered)


def test_to_do_nothing_leaves_retention_as_it_was() -> None:
    env = TutorVectorEnv(2)
    env.reset(seed=0)
    gold = [env.step(np.array([REST, REST]))[4]["gold_reward"] for _ in range(59)]
    assert np.abs(gold).max() < 1e-12


def test_recall_halves_with_every_half_life() -> None:
    since = np.array([0.0, 8.0, 16.0])
    assert recall(since, np.full(3, 8.0)).tolist() == [1.0, 0.5, 0.25]


def test_success_by_hand() -> None:
    # 9 * (0.5 - 0.5) + 1.5 = 1.5; 9 * (0.5 - 0.75) + 1.5 = -0.75
    success = success_probability(np.array([0.5, 0.5]), np.array([0.5, 0.75]), MODEL)
    assert success == pytest.approx([1 / (1 + np.exp(-1.5)), 1 / (1 + np.exp(0.75))])


def learn(
    *, success: float = 0.5, right: bool = True, review: bool = False,
    remembered: float = 0.5, focus: float = 1.0,
) -> tuple[float, float]:  # fmt: skip
    taught, factor = lessons(
        np.array([0.4]), np.array([remembered]), np.array([success]), np.array([right]),
        np.array([review]), np.array([focus]), MODEL,
    )  # fmt: skip
    return float(taught[0]), float(factor[0])


def test_lessons_by_hand() -> None:
    # challenge 4 * 0.5 * 0.5 = 1: 0.25 of the 0.6 not understood; 1 + 2 * (1 - 0.5)
    assert learn() == pytest.approx((0.15, 2.0))
    assert learn(right=False) == pytest.approx((0.075, 1.5))  # half of both
    assert learn(focus=0.5) == pytest.approx((0.075, 1.5))
    # challenge 4 * 0.9 * 0.1 = 0.36: 0.25 * 0.36 * 0.6; 1 + 2 * (0.3 + 0.7 * 0.36) * 0.5
    assert learn(success=0.9) == pytest.approx((0.054, 1.552))
    assert learn(review=True, right=False, success=0.0) == pytest.approx((0.012, 1.1))
    assert learn(remembered=1.0)[1] == 1.0  # what is fresh does not last longer for it


def feel(**given: bool | float) -> tuple[float, float]:
    arguments = {
        "exercise": True,
        "correct": True,
        "success": 0.5,
        "repeated": False,
        "rest": False,
    }
    arrays = {name: np.array([value]) for name, value in (arguments | given).items()}
    after = feelings(np.array([0.4]), np.array([0.2]), model=MODEL, **arrays)
    return float(after[0][0]), float(after[1][0])


def test_feelings_by_hand() -> None:
    assert feel() == pytest.approx((0.3, 0.18))  # 0.4 * 0.75, 0.2 * 0.9
    assert feel(correct=False) == pytest.approx((0.52, 0.18))  # 0.4 + 0.2 * 0.6
    # challenge 0: 0.18 + 0.15 * 0.8; and monotony, 0.06 * 0.8 more
    assert feel(success=1.0) == pytest.approx((0.3, 0.3))
    assert feel(success=1.0, repeated=True) == pytest.approx((0.3, 0.348))
    rested = feel(exercise=False, correct=False, success=0.0, rest=True)
    assert rested == pytest.approx((0.24, 0.12))  # 0.6 of both


def test_retention_by_hand() -> None:
    # 0.8 * 2^-(10 + 10)/10 = 0.2 and 0.4 * 2^-(0 + 10)/10 = 0.2
    kept = retention(
        np.array([[0.8, 0.4]]), np.array([[10.0, 0.0]]), np.full((1, 2), 10.0), np.array([10])
    )
    assert kept == pytest.approx([0.2])


def test_practice_concerns_one_skill_and_time_all() -> None:
    env = TutorVectorEnv(1)
    env.reset(seed=0)
    ability, since = env.state.ability.copy(), env.state.since.copy()
    env.step(np.array([4 * 2 + 1]))
    assert env.state.since[0].tolist() == [since[0, 0] + 1, since[0, 1] + 1, 1, since[0, 3] + 1]
    assert (env.state.ability != ability)[0].tolist() == [False, False, True, False]


def test_right_answers_come_as_often_as_they_should() -> None:
    env = TutorVectorEnv(4000)
    env.reset(seed=0)
    actions = np.full(4000, 2)
    success = env.dynamics.success_probability(env.state, actions)
    _, rewards, _, _, info = env.step(actions)
    assert rewards.mean() == pytest.approx(success.mean(), abs=0.025)  # 3 deviations
    assert np.array_equal(info["correct"], rewards == 1)


def test_correct_is_known_of_exercises_alone() -> None:
    env = TutorVectorEnv(3)
    env.reset(seed=0)
    *_, info = env.step(np.array([0, 1, REST]))
    assert info["_correct"].tolist() == [False, True, False]


def test_observations_are_the_whole_state() -> None:
    env = TutorEnv()
    env.reset(seed=1)
    observation, reward, *_ = env.step(4 * 3 + 1)
    state = env.vector_env.state
    expected = np.concatenate([
        state.ability[0], np.exp2(-state.since[0] / state.half_life[0]),
        np.log(state.half_life[0]) / np.log(200), [0, 0, 0, 1],
        [state.frustration[0], state.boredom[0], reward, 1 / 60],
    ])  # fmt: skip
    assert observation == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_skills", 0), ("num_skills", 9), ("lesson_length", 0), ("exam_delay", -1)],
)
def test_arguments_that_cannot_work(field: str, value: int) -> None:
    with pytest.raises(InvalidArgument, match=field):
        TutorEnv(**{field: value})


def test_other_numbers_of_skills() -> None:
    for skills in (1, 8):
        env = TutorEnv(num_skills=skills, lesson_length=5, render_mode="rgb_array")
        env.reset(seed=0)
        assert env.action_space.n == 4 * skills + 1
        assert [env.step(4 * skills)[2] for _ in range(5)] == [False] * 4 + [True]
        assert env.render().shape == (400, 640, 3)


def test_the_text_says_what_is_measured_and_what_is_not() -> None:
    env = TutorEnv(render_mode="ansi")
    env.reset(seed=0)
    for action in (0, REST):
        env.step(action)
    text = env.render()
    assert "step 2 of 60: o~" in text
    assert "0 right (measured)" in text
    kept = env.vector_env.dynamics.retention(env.vector_env.state)[0]
    assert f"{kept:.0%} will be known at the exam (not)" in text
