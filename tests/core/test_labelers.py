"""The six teachers of B-Pref, each judged by what makes it that teacher."""

import math
from collections import Counter

import numpy as np
import pytest

from rlhf_gym.core.errors import InvalidArgument, InvalidReward
from rlhf_gym.core.feedback import ControlSegment, Query, TextSegment, check_label
from rlhf_gym.core.labelers import (
    TEACHERS,
    Teacher,
    TeacherConfig,
    make_teacher,
    recorded_rewards,
    text_rewards,
)
from rlhf_gym.core.labels import Best, Likert, Ranking, Rating, Skip, Thumb


def segment(*rewards):
    steps = np.zeros(len(rewards))
    return ControlSegment(steps, steps, np.array(rewards, dtype=float))


def query(*segments, question="ranking", **options):
    return Query(tuple(segment(*np.atleast_1d(s)) for s in segments), question, **options)


def teacher(seed=0, **weaknesses):
    return Teacher(recorded_rewards, TeacherConfig(**weaknesses), seed=seed, name="t")


def one(labeler, asked):
    (label,) = labeler.label([asked])
    check_label(asked, label)
    return label


def share(labeler, asked, wanted, n=4000):
    """How often a label is given; four standard errors of it are at most .032."""
    return Counter(labeler.label([asked] * n))[wanted] / n


def test_the_oracle_ranks_by_return():
    oracle = make_teacher("oracle", recorded_rewards, seed=0)
    assert oracle.name == "oracle"
    assert one(oracle, query((1, 2), (4, 0))) == Ranking((1, 0))
    assert one(oracle, query(1, 5, 3, 2)) == Ranking((1, 2, 3, 0))
    assert one(oracle, query(1, 5, 3, question="best")) == Best(1)
    assert one(oracle, query(2, 2)) == Ranking((0, 1), tie=True)
    assert one(oracle, query(0.3, question="thumb")) == Thumb(True)
    assert one(oracle, query(-0.3, question="thumb")) == Thumb(False)
    assert one(oracle, query((0.3, 0.4), question="rating")) == Rating(0.7)


def test_the_mistaken_one_errs_in_a_tenth_of_its_answers():
    asked = query(0, 1)
    mistaken = make_teacher("mistake", recorded_rewards, seed=0)
    assert share(mistaken, asked, Ranking((0, 1))) == pytest.approx(0.1, abs=0.02)
    assert share(mistaken, query(0, 3, 2, question="best"), Best(2)) == pytest.approx(0.1, abs=0.02)
    assert share(mistaken, query(1, question="thumb"), Thumb(False)) == pytest.approx(0.1, abs=0.02)
    # each of the two neighbouring pairs of a ranking is swapped as often
    ranked = query(3, 2, 1)
    assert share(mistaken, ranked, Ranking((1, 0, 2))) == pytest.approx(0.05, abs=0.015)
    assert share(mistaken, ranked, Ranking((0, 2, 1))) == pytest.approx(0.05, abs=0.015)


def test_the_stochastic_one_follows_the_likelihoods():
    stochastic = make_teacher("stochastic", recorded_rewards, seed=0)
    # sigmoid(1) = .731; thumbs too
    assert share(stochastic, query(1, 0), Ranking((0, 1))) == pytest.approx(0.731, abs=0.03)
    assert share(stochastic, query(1, question="thumb"), Thumb(True)) == pytest.approx(
        0.731, abs=0.03
    )
    # Plackett-Luce with weights 3, 2, 1: 3/6 * 2/3 = 1/3
    ranked = query(math.log(3), math.log(2), 0)
    assert share(stochastic, ranked, Ranking((0, 1, 2))) == pytest.approx(1 / 3, abs=0.03)
    # twice as rational: sigmoid(2) = .881
    assert share(teacher(rationality=2.0), query(1, 0), Ranking((0, 1))) == pytest.approx(
        0.881, abs=0.03
    )


def test_the_skipping_one_needs_something_good():
    skipping = make_teacher("skip", recorded_rewards, seed=0, scale=10.0)
    # a tenth of 10
    assert isinstance(one(skipping, query(0.9, 0.5)), Skip)
    assert one(skipping, query(0.5, 1.0)) == Ranking((1, 0))
    assert isinstance(one(skipping, query(0.9, question="thumb")), Skip)


def test_the_myopic_one_prefers_what_came_last():
    # .9^2 * 1 = .81 against .9 * .85 = .765 and .82
    assert one(
        make_teacher("oracle", recorded_rewards, seed=0), query((1, 0, 0), (0, 0, 0.82))
    ) == (Ranking((0, 1)))
    myopic = make_teacher("myopic", recorded_rewards, seed=0)
    assert one(myopic, query((1, 0, 0), (0, 0, 0.82))) == Ranking((1, 0))
    assert one(myopic, query((1, 0, 0), (0, 0.85, 0))) == Ranking((0, 1))


def test_the_equal_one_calls_small_differences_a_tie():
    equal = make_teacher("equal", recorded_rewards, seed=0, scale=10.0)
    assert one(equal, query(3.0, 3.9)).tie
    assert not one(equal, query(3.0, 4.1)).tie
    assert not one(equal, query(3.0, 3.9, 4.1)).tie


def test_levels():
    levels = teacher(cuts=(-1.0, 0.0, 2.0))
    for value, level in ((-2, 0), (-0.5, 1), (1, 2), (3, 3)):
        assert one(levels, query(value, question="likert", levels=4)) == Likert(level)
    # the middle cut decides thumbs
    assert one(levels, query(0.1, question="thumb")) == Thumb(True)
    assert one(levels, query(-0.1, question="thumb")) == Thumb(False)
    wrong = teacher(cuts=(-1.0, 0.0, 2.0), mistakes=1.0)
    assert one(wrong, query(-2, question="likert", levels=4)) == Likert(1)
    assert one(wrong, query(3, question="likert", levels=4)) == Likert(2)
    labels = Counter(wrong.label([query(-0.5, question="likert", levels=4)] * 400))
    assert set(labels) == {Likert(0), Likert(2)}
    with pytest.raises(InvalidArgument, match="4 cuts"):
        one(levels, query(1, question="likert", levels=5))


def test_a_function_of_texts_is_asked_once_for_all():
    calls = []

    def length(prompts, completions):
        calls.append((prompts, completions))
        return [len(text) for text in completions]

    oracle = make_teacher("oracle", text_rewards(length), seed=0)
    queries = [
        Query((TextSegment("a", "long"), TextSegment("a", "longer"))),
        Query((TextSegment("b", "x"),), "rating"),
    ]
    assert oracle.label(queries) == [Ranking((1, 0)), Rating(1.0)]
    assert calls == [(["a", "a", "b"], ["long", "longer", "x"])]
    assert oracle.label([]) == []


def test_same_seed_same_labels_and_state_resumes():
    asked = [query(0.2, 0)] * 50
    first, second = teacher(seed=1, rationality=1.0), teacher(seed=1, rationality=1.0)
    assert first.label(asked) == second.label(asked)
    assert first.label(asked) != teacher(seed=2, rationality=1.0).label(asked)
    resumed = teacher(seed=9, rationality=1.0)
    resumed.load_state_dict(second.state_dict())
    second_half = second.label(asked)
    assert resumed.label(asked) == second_half


def test_the_global_generator_is_left_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    teacher(rationality=1.0, mistakes=0.5).label([query(0, 1)] * 10)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_all_six_are_there():
    assert set(TEACHERS) == {"oracle", "mistake", "stochastic", "skip", "myopic", "equal"}
    with pytest.raises(InvalidArgument, match=r"labeler='expert'.*oracle"):
        make_teacher("expert", recorded_rewards, seed=0)
    for scale in (0.0, -1.0, math.nan):
        with pytest.raises(InvalidArgument, match="scale"):
            make_teacher("oracle", recorded_rewards, seed=0, scale=scale)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rationality", 0.0),
        ("discount", 0.0),
        ("discount", 1.1),
        ("mistakes", -0.1),
        ("mistakes", 1.1),
        ("skip_below", math.nan),
        ("equal_within", -1.0),
        ("cuts", ()),
        ("cuts", (1.0, 0.0)),
    ],
)
def test_bad_weaknesses(field, value):
    with pytest.raises(InvalidArgument, match=field):
        TeacherConfig(**{field: value})


def test_bad_questions_and_rewards():
    with pytest.raises(InvalidArgument, match="neither reads nor writes"):
        one(teacher(), query(1, question="edit"))
    asked = Query((TextSegment("a", "b"), TextSegment("a", "c")))
    for returned in ([np.ones(1)], [np.ones(1), np.array([math.nan])], [np.ones(1), np.ones(0)]):
        bad = Teacher(lambda _, returned=returned: returned, TeacherConfig(), seed=0, name="bad")
        with pytest.raises(InvalidReward):
            one(bad, asked)
    with pytest.raises(InvalidArgument, match="no rewards"):
        one(teacher(), asked)
    with pytest.raises(InvalidArgument, match="text segments"):
        one(make_teacher("oracle", text_rewards(lambda p, c: [0.0]), seed=0), query(1, 2))
