"""Agreement, gold questions and the pull towards length, on labels worked out by hand."""

import math

import pytest

from rlhf_gym.core.feedback import Query, TextSegment
from rlhf_gym.core.labels import (
    Accept,
    Best,
    Demonstration,
    Edit,
    Flag,
    Likert,
    Ranking,
    Rating,
    Skip,
    Thumb,
)
from rlhf_gym.core.store import EVERYONE, FeedbackStore
from rlhf_gym.core.store.report import answer_table, answer_value, summarise

FIRST, SECOND, TIE = Ranking((0, 1)), Ranking((1, 0)), Ranking((0, 1), tie=True)


@pytest.fixture
def feedback(tmp_path):
    """Three pairs; the first text is always the longer one, and the right answer."""
    with FeedbackStore(tmp_path / "feedback.db") as store:
        ids = store.add(
            [
                Query((TextSegment(f"Prompt {n}", "long"), TextSegment(f"Prompt {n}", "no")))
                for n in range(3)
            ],
            overlap=EVERYONE,
            gold=[FIRST] * 3,
        )
        given = {
            "anna": (FIRST, FIRST, SECOND),
            "bob": (FIRST, SECOND, TIE),
            "carla": (Skip(), FIRST, None),
        }
        for rater, labels in given.items():
            for query, label in zip(ids, labels, strict=True):
                if label is not None:
                    store.answer(query, rater, label, seconds=2.0 if rater == "bob" else None)
        yield store.feedback()


def test_by_hand(feedback):
    report = summarise(feedback)
    (agreement,) = report.agreements
    # anna 1 1 0, bob 1 0 .5, carla . 1 . : the skip is no answer.
    assert (agreement.question, agreement.labels, agreement.shared) == ("ranking", 7, 3)
    # anna and bob agree on one of three; anna gives (0: 1/3, 1: 2/3), bob a third each of three
    # values: expected 1/9 + 2/9 = 1/3, kappa 0. anna and carla share one query and agree.
    assert agreement.kappas[("anna", "bob")] == pytest.approx(0.0)
    assert agreement.kappas[("anna", "carla")] == 1.0
    by_name = {rater.name: rater for rater in report.raters}
    # anna: 1 of 3 with bob, 1 of 1 with carla. bob: 1 of 3 and 0 of 1. carla: 1 of 2.
    assert by_name["anna"].agreement.value == pytest.approx(2 / 4)
    assert by_name["bob"].agreement.value == pytest.approx(1 / 4)
    assert by_name["carla"].agreement.value == pytest.approx(1 / 2)
    assert by_name["anna"].gold.value == pytest.approx(2 / 3)
    assert by_name["bob"].gold.value == pytest.approx(1 / 3)
    assert by_name["carla"].gold.value == 1.0
    assert (by_name["carla"].labels, by_name["carla"].skips) == (2, 1)
    assert by_name["bob"].seconds == 2.0
    assert math.isnan(by_name["anna"].seconds)
    # Without the tie and the skip: FIRST five... anna 2 of 3, bob 1 of 2, carla 1 of 1.
    assert report.longer_wins.value == pytest.approx(4 / 6)


def test_table(feedback):
    table, queries, raters = answer_table(feedback)
    assert (queries, raters) == ([1, 2, 3], ["anna", "bob", "carla"])
    assert table[1].tolist() == [1.0, 0.0, 1.0]
    assert table[2, :2].tolist() == [0.0, 0.5]
    assert math.isnan(table[0, 2])


def test_equal_answers_have_equal_numbers():
    labels = [
        FIRST,
        SECOND,
        TIE,
        Ranking((0, 1, 2)),
        Ranking((0, 2, 1)),
        Ranking((2, 0, 1)),
        Ranking((1, 0, 2)),
    ]
    assert len({answer_value(label) for label in labels}) == len(labels)
    assert answer_value(Best(2)) == 2.0
    assert answer_value(Thumb(up=True)) == 1.0
    assert answer_value(Likert(3)) == 3.0
    assert answer_value(Rating(-0.5)) == -0.5
    assert answer_value(Skip()) is answer_value(Edit("text")) is None


def test_nothing_to_report():
    assert summarise([]) == ([], [], None)


def test_texts_and_reviews_are_counted(tmp_path):
    about = (TextSegment("The film", "is great."),)
    asked = [Query(about, kind) for kind in ("edit", "review")]
    asked.append(Query((TextSegment("The film", ""),), "demonstration"))
    with FeedbackStore(tmp_path / "feedback.db") as store:
        edit, review, demonstration = store.add(asked, overlap=2)
        store.answer(edit, "anna", Edit("is good."))
        store.answer(edit, "bob", Skip())
        store.answer(review, "anna", Accept())
        store.answer(review, "bob", Flag(("toxic",)))
        store.answer(demonstration, "anna", Demonstration("is long."))
        report = summarise(store.feedback())
    counts = {a.question: (a.labels, a.shared) for a in report.agreements}
    assert counts == {"edit": (1, 0), "review": (2, 1), "demonstration": (1, 0)}
    assert all(math.isnan(agreement.alpha) for agreement in report.agreements)
