"""Queries, the labels that answer them, and the records they become."""

import math

import numpy as np
import pytest

from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.feedback import (
    ControlSegment,
    Query,
    TextSegment,
    check_label,
    demonstration_records,
    preference_records,
)
from rlhf_gym.core.labels import (
    Accept,
    Best,
    Choice,
    Demonstration,
    Edit,
    Flag,
    Likert,
    Ranking,
    Rating,
    Skip,
    Thumb,
)
from rlhf_gym.core.supervised.preference_data import judgement

A, B, C = (TextSegment("The film", text) for text in ("is fine.", "is dull.", "is long."))


def pair(chosen, rejected, **extra):
    return {"prompt": "The film", "chosen": chosen, "rejected": rejected, **extra}


@pytest.mark.parametrize(
    ("query", "label", "expected"),
    [
        (Query((A, B)), Ranking((0, 1)), [pair("is fine.", "is dull.")]),
        (Query((A, B)), Ranking((1, 0)), [pair("is dull.", "is fine.")]),
        (Query((A, B)), Ranking((0, 1), tie=True), [pair("is fine.", "is dull.", tie=True)]),
        (Query((A, B)), Skip("both wrong"), []),
        (Query((A, A)), Ranking((0, 1)), []),
        (
            Query((A, B, C)),
            Ranking((2, 0, 1)),
            [{"prompt": "The film", "ranking": ["is long.", "is fine.", "is dull."]}],
        ),
        (
            Query((A, B, C)),
            Ranking((0, 1, 2), tie=True),
            [
                pair("is fine.", "is dull.", tie=True),
                pair("is fine.", "is long.", tie=True),
                pair("is dull.", "is long.", tie=True),
            ],
        ),
        (
            Query((A, B, C), "best"),
            Best(1),
            [pair("is dull.", "is fine."), pair("is dull.", "is long.")],
        ),
        (
            Query((A,), "thumb"),
            Thumb(False),
            [{"prompt": "The film", "completion": "is fine.", "label": False}],
        ),
        (
            Query((A,), "likert"),
            Likert(4),
            [{"prompt": "The film", "completion": "is fine.", "rating": 4.0, "scale": "5 levels"}],
        ),
        (
            Query((A,), "rating"),
            Rating(-0.5),
            [{"prompt": "The film", "completion": "is fine.", "rating": -0.5}],
        ),
        (Query((B,), "edit"), Edit("is slow."), [pair("is slow.", "is dull.")]),
    ],
)
def test_labels_become_records_that_the_reward_model_stage_reads(query, label, expected):
    records = preference_records(query, label)
    assert records == expected
    for record in records:
        judgement(record, "here")


def test_a_demonstration_becomes_a_record_for_sft():
    query = Query((TextSegment("The film", ""),), "demonstration")
    expected = [{"prompt": "The film", "completion": "is fine."}]
    assert demonstration_records(query, Demonstration("is fine.")) == expected
    assert preference_records(query, Demonstration("is fine.")) == []


@pytest.mark.parametrize(
    ("query", "label", "expected"),
    [
        (Query((A,), "edit"), Edit("is great."), [("The film", "is great.")]),
        (Query((A,), "review"), Accept(), [("The film", "is fine.")]),
        (Query((A,), "review"), Edit("is great."), [("The film", "is great.")]),
        (Query((A,), "review"), Flag(("toxic",)), []),
        (Query((A,), "demonstration"), Demonstration("ends.", "The plot"), [("The plot", "ends.")]),
        (Query((A,), "demonstration"), Demonstration("", "A prompt alone"), []),
        (Query((A, B)), Ranking((0, 1)), []),
        (Query((A,), "review"), Skip(), []),
    ],
)
def test_what_becomes_a_demonstration(query, label, expected):
    found = [(r["prompt"], r["completion"]) for r in demonstration_records(query, label)]
    assert found == expected


@pytest.mark.parametrize(
    ("query", "label", "problem"),
    [
        (Query((A, B)), Best(0), "asks for a ranking"),
        (Query((A, B)), Ranking((0,)), "order of the segments 0 to 1"),
        (Query((A, B)), Ranking((0, 0)), "order of the segments 0 to 1"),
        (Query((A, B), "best"), Best(2), "segments 0 to 1"),
        (Query((A, B), "best"), Best(-1), "segments 0 to 1"),
        (Query((A,), "likert", levels=5), Likert(5), "levels 0 to 4"),
        (Query((A,), "rating"), Rating(math.nan), "finite"),
        (Query((A,), "choice", choices=("kind", "rude")), Choice(2), "choices 0 to 1"),
        (Query((A,), "review"), Flag(()), "no reason"),
        (Query((A,), "review"), Thumb(True), "asks for a review"),
        (Query((A,), "demonstration"), Demonstration(""), "nothing is written"),
    ],
)
def test_a_label_must_answer_its_query(query, label, problem):
    with pytest.raises(InvalidData, match=problem):
        preference_records(query, label)
    check_label(query, Skip())


@pytest.mark.parametrize(
    ("segments", "question", "problem"),
    [
        ((A,), "ranking", "two or more segments"),
        ((A,), "best", "two or more segments"),
        ((A, B), "thumb", "one segment"),
        ((), "thumb", "one segment"),
        ((), "ranking", "two or more segments"),
        ((A, TextSegment("The plot", "is fine.")), "ranking", "different prompts"),
    ],
)
def test_a_query_must_fit_its_question(segments, question, problem):
    with pytest.raises(InvalidData, match=problem):
        Query(segments, question)


def test_bad_questions_and_scales():
    with pytest.raises(InvalidArgument, match="question='vote'"):
        Query((A, B), "vote")
    with pytest.raises(InvalidArgument, match="levels=1"):
        Query((A,), "likert", levels=1)
    for question, choices in (("choice", ()), ("choice", ("kind", "kind")), ("thumb", ("a", "b"))):
        with pytest.raises(InvalidArgument, match="choices="):
            Query((A,), question, choices=choices)


def test_control_segments():
    segment = ControlSegment(np.zeros((3, 4)), np.zeros((3, 2)), np.ones(3))
    assert len(segment) == 3
    with pytest.raises(InvalidData, match="no text"):
        preference_records(Query((segment, segment)), Ranking((0, 1)))
    for lengths in ((3, 2, 3), (3, 3, 2), (0, 0, 0)):
        arrays = [np.zeros(n) for n in lengths]
        with pytest.raises(InvalidData, match="one entry per step"):
            ControlSegment(*arrays)
