"""Queries out, labels in: who is shown what, what counts, and what a store refuses."""

import math
import os
import sqlite3
import stat

import numpy as np
import pytest

from rlhf_gym.core.errors import InvalidArgument, InvalidData, InvalidStore, StoreUnavailable
from rlhf_gym.core.feedback import ControlSegment, Query, TextSegment
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
from rlhf_gym.core.store import EVERYONE, FeedbackStore
from rlhf_gym.core.store.schema import VERSION


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.db") as opened:
        yield opened


def texts(*completions, prompt="The film"):
    return tuple(TextSegment(prompt, completion) for completion in completions)


def pairs(count):
    return [Query(texts("good", "bad", prompt=f"Prompt {number}")) for number in range(count)]


ONE = texts("is fine.")
EVERY_LABEL = [
    (Query(texts("a", "b")), Ranking((1, 0))),
    (Query(texts("a", "b", "c", "d")), Ranking((3, 1, 0, 2), tie=False)),
    (Query(texts("a", "b", "e")), Ranking((0, 1, 2), tie=True)),
    (Query(texts("a", "b", "c"), "best"), Best(2)),
    (Query(ONE, "thumb"), Thumb(up=False)),
    (Query(ONE, "likert", levels=7), Likert(6)),
    (Query(ONE, "rating"), Rating(-1.25)),
    (Query(ONE, "choice", choices=("polite", "rude")), Choice(1)),
    (Query(ONE, "edit"), Edit("is <b>great</b>.")),
    (Query(ONE, "demonstration"), Demonstration("is \U0001f600 \u0645\u0631\u062d\u0628\u0627")),
    (Query(texts("", prompt=""), "demonstration"), Demonstration("x" * 10**6, "A prompt")),
    (Query(ONE, "review"), Accept()),
    (Query(texts("lies."), "review"), Flag(("inaccurate", "biased"))),
    (Query(texts("c", "d")), Skip("both are wrong")),
]


def test_every_kind_of_label_comes_back_as_it_was_given(store):
    ids = store.add([query for query, _ in EVERY_LABEL], provenance={"model": "lm"})
    for number, (_, label) in zip(ids, EVERY_LABEL, strict=True):
        store.answer(number, "anna", label, seconds=1.5)
    found = store.feedback()
    assert [(given.query, given.label) for given in found] == EVERY_LABEL
    assert {given.rater for given in found} == {"anna"}
    assert {given.seconds for given in found} == {1.5}
    assert found[0].provenance == {"model": "lm"}


def test_control_segments_come_back_to_the_bit(store):
    rng = np.random.default_rng(0)

    def clip():
        frames = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
        return ControlSegment(rng.normal(size=(3, 4)), rng.normal(size=(3, 2)), None, frames)

    query = Query((clip(), clip()))
    (number,) = store.add([query])
    assert store.add([query]) == [number]
    for segment, original in zip(store.query(number).query.segments, query.segments, strict=True):
        assert segment.rewards is None
        for name in ("observations", "actions", "frames"):
            ours, theirs = getattr(segment, name), getattr(original, name)
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)


def test_the_same_query_is_stored_once(store):
    first, second, third = texts("good", "bad", "ugly")
    given = [Query((first, second)), Query((second, first)), Query((first, second), "best")]
    ids = store.add([*given, given[0]])
    assert ids[3] == ids[0]
    assert len(set(ids)) == 3
    # Lengths are part of what is compared: ("ab", "c") is not ("a", "bc").
    assert len(set(store.add([Query((TextSegment("ab", "c"),), "thumb")]) + ids)) == 4
    assert len(set(store.add([Query((TextSegment("a", "bc"),), "thumb")]) + ids)) == 4
    assert store.add([Query((first, third))])[0] not in ids


def test_nobody_is_shown_what_they_have_answered(store):
    store.add(pairs(3), overlap=2)
    seen = []
    while (shown := store.next("anna")) is not None:
        seen.append(shown.id)
        store.answer(shown.id, "anna", Ranking((0, 1)))
    assert seen == [1, 2, 3]
    # Overlap 2: one other rater gets them all, a third gets none.
    for _ in range(3):
        store.answer(store.next("bob").id, "bob", Ranking((0, 1)))
    assert store.next("bob") is None
    assert store.next("carla") is None


def test_two_raters_do_not_get_the_same_query_at_once(store):
    store.add(pairs(2))
    anna, bob = store.next("anna"), store.next("bob")
    assert {anna.id, bob.id} == {1, 2}
    assert store.next("carla") is None
    # Who comes back finds the query they had.
    assert store.next("anna").id == anna.id


def test_a_claim_ends(tmp_path):
    with FeedbackStore(tmp_path / "feedback.db", claim_seconds=0) as store:
        store.add(pairs(1))
        assert store.next("anna").id == store.next("bob").id
        # Both may answer: a label that was given is kept.
        store.answer(1, "anna", Ranking((0, 1)))
        store.answer(1, "bob", Ranking((1, 0)))
        assert len(store.feedback()) == 2


def test_a_skip_leaves_the_query_for_others(store):
    store.add(pairs(1))
    store.answer(1, "anna", Skip())
    assert store.next("anna") is None
    assert store.next("bob").id == 1
    assert store.progress() == (1, 0, 1, 1, 1)
    store.answer(1, "bob", Ranking((0, 1)))
    assert store.progress() == (1, 1, 2, 1, 0)


def test_order_and_kinds(store):
    store.add(pairs(2))
    (urgent,) = store.add([Query(ONE, "thumb")], priority=1.0)
    assert store.next("anna").id == urgent
    assert store.next("bob", questions=["ranking"]).id == 1
    assert store.next("bob", questions=["likert"]) is None


def test_undo_asks_again_and_keeps_the_row(store):
    store.add(pairs(2))
    label = store.answer(1, "anna", Ranking((0, 1)))
    assert store.next("anna").id == 2
    assert store.retract(label, "anna").id == 1
    assert store.feedback() == []
    assert store.progress("anna").open == 2
    again = store.answer(1, "anna", Ranking((1, 0)))
    assert [(given.id, given.label) for given in store.feedback()] == [(again, Ranking((1, 0)))]
    with pytest.raises(InvalidArgument, match="no label of 'anna' in force"):
        store.retract(label, "anna")
    with pytest.raises(InvalidArgument, match="no label of 'bob' in force"):
        store.retract(again, "bob")
    with store.connection.writing() as sqlite, pytest.raises(sqlite3.IntegrityError):
        sqlite.execute("delete from labels")


def test_a_request_sent_twice_is_stored_once(store):
    store.add(pairs(1))
    first = store.answer(1, "anna", Ranking((0, 1)), ticket="abc")
    assert store.answer(1, "anna", Ranking((0, 1)), ticket="abc") == first
    with pytest.raises(InvalidData, match="has answered query 1 already"):
        store.answer(1, "anna", Ranking((0, 1)))
    assert len(store.feedback()) == 1


def test_gold_and_everyone(store):
    (number,) = store.add(pairs(1), gold=[Ranking((0, 1))], overlap=EVERYONE)
    for rater in ("anna", "bob", "carla"):
        assert store.next(rater).gold == Ranking((0, 1))
        store.answer(number, rater, Ranking((1, 0)))
    assert store.query(number).answers == 3
    with pytest.raises(InvalidArgument, match="gold=2"):
        store.add(pairs(1), gold=[None, None])
    with pytest.raises(InvalidData, match="asks for a ranking"):
        store.add(pairs(1), gold=[Thumb(up=True)])


def test_a_text_is_not_compared_with_itself(store):
    one, other = TextSegment("The film", "is fine."), TextSegment("The film", "is dull.")
    with pytest.raises(InvalidData, match=r"queries\[1\]='is fine.': this text is in it twice"):
        store.add([Query((one, other)), Query((one, other, one), "best")])
    assert store.progress().queries == 0


def test_raters_and_sessions(store):
    store.add(pairs(2))
    session = store.begin_session("anna", "a browser")
    store.answer(1, "anna", Ranking((0, 1)), session=session)
    store.end_session(session)
    store.set_weight("anna", 2.5)
    store.answer(2, "bob", Ranking((0, 1)))
    assert store.raters() == {"anna": 2.5, "bob": 1.0}
    assert [given.weight for given in store.feedback()] == [2.5, 1.0]
    assert [given.rater for given in store.feedback(raters=["bob"])] == ["bob"]
    assert [given.rater for given in store.feedback(after=1)] == ["bob"]


def test_bad_answers(store):
    store.add(pairs(1))
    with pytest.raises(InvalidArgument, match="query_id=7"):
        store.answer(7, "anna", Ranking((0, 1)))
    with pytest.raises(InvalidData, match="asks for a ranking"):
        store.answer(1, "anna", Thumb(up=True))
    with pytest.raises(InvalidArgument, match="rater=' '"):
        store.answer(1, " ", Ranking((0, 1)))
    with pytest.raises(InvalidArgument, match="session=3"):
        store.answer(1, "anna", Ranking((0, 1)), session=3)
    for seconds in (-1.0, math.nan, math.inf):
        with pytest.raises(InvalidArgument, match="seconds="):
            store.answer(1, "anna", Ranking((0, 1)), seconds=seconds)
    with pytest.raises(InvalidArgument, match="weight="):
        store.set_weight("anna", -1.0)
    with pytest.raises(InvalidArgument, match="overlap=0"):
        store.add(pairs(1), overlap=0)
    with pytest.raises(InvalidArgument, match="provenance="):
        store.add(pairs(5), provenance={"model": object()})
    with pytest.raises(InvalidData, match="not a text"):
        store.add([Query((TextSegment("a", "\ud800"),), "thumb")])
    # What failed has left nothing behind.
    assert store.progress() == (1, 0, 0, 0, 1)
    assert store.raters() == {}


def test_a_store_is_opened_again(tmp_path):
    path = tmp_path / "deep" / "feedback.db"
    with FeedbackStore(path) as store:
        store.add(pairs(1))
        store.answer(1, "anna", Ranking((0, 1)))
    with FeedbackStore(path) as store:
        assert len(store.feedback()) == 1


def test_foreign_damaged_and_newer_files(tmp_path):
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database " * 1000)
    with pytest.raises(InvalidStore, match=r"garbage.db.*Restore"):
        FeedbackStore(garbage)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as sqlite:
        sqlite.execute("create table songs (name text)")
    with pytest.raises(InvalidStore, match="no feedback store"):
        FeedbackStore(foreign)
    newer = tmp_path / "newer.db"
    FeedbackStore(newer).close()
    with sqlite3.connect(newer) as sqlite:
        sqlite.execute(f"pragma user_version = {VERSION + 1}")
    with pytest.raises(InvalidStore, match=f"its version is {VERSION + 1}.*Update"):
        FeedbackStore(newer)


def test_a_damaged_page_is_noticed(tmp_path):
    path = tmp_path / "feedback.db"
    with FeedbackStore(path) as store:
        store.add(pairs(500))
    content = bytearray(path.read_bytes())
    content[4096 : len(content)] = bytes(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(InvalidStore, match="damaged"):
        FeedbackStore(path).next("anna")


def test_a_locked_store(tmp_path):
    path = tmp_path / "feedback.db"
    with FeedbackStore(path) as store, FeedbackStore(path, timeout=0.05) as other:
        store.add(pairs(1))
        with store.connection.writing():
            with pytest.raises(StoreUnavailable, match=r"writing for 0.05 s.*try again"):
                other.answer(1, "anna", Ranking((0, 1)))
            # Readers go on.
            assert other.progress().queries == 1
        other.answer(1, "anna", Ranking((0, 1)))


def test_a_full_disk_loses_nothing(store):
    store.add(pairs(1))
    with store.connection.writing() as sqlite:
        pages = sqlite.execute("pragma page_count").fetchone()[0]
    with store.connection.reading() as sqlite:
        sqlite.execute(f"pragma max_page_count = {pages}")
    huge = Query((TextSegment("a", "x" * 10**6),), "thumb")
    with pytest.raises(StoreUnavailable, match="disk is full"):
        store.add([huge])
    assert store.progress().queries == 1
    with store.connection.reading() as sqlite:
        sqlite.execute("pragma max_page_count = 100000")
    store.answer(1, "anna", Ranking((0, 1)))
    assert len(store.feedback()) == 1


def test_no_permission(tmp_path):
    if os.geteuid() == 0:
        # Nothing is forbidden to root; a folder in the file's place is.
        (tmp_path / "feedback.db").mkdir()
    else:
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StoreUnavailable, match="Check the path"):
        FeedbackStore(tmp_path / "feedback.db")


def test_a_claim_must_last_some_time(tmp_path):
    with pytest.raises(InvalidArgument, match="claim_seconds"):
        FeedbackStore(tmp_path / "feedback.db", claim_seconds=-1)
