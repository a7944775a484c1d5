"""Feedback from files and into files."""

import json
import os
from pathlib import Path

import pytest

from rlhf_gym.core.data import read_records
from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.feedback import ControlSegment, Query, TextSegment
from rlhf_gym.core.labels import Demonstration, Edit, Likert, Ranking, Rating, Skip, Thumb
from rlhf_gym.core.store import FeedbackStore
from rlhf_gym.core.store.transfer import export_feedback, import_feedback
from rlhf_gym.core.supervised.preference_records import read_judgements

RECORDS = [
    {"prompt": "The film", "chosen": "is fine.", "rejected": "is dull.", "votes": [1, 2, 1]},
    {"prompt": "The film", "chosen": "is long.", "rejected": "is slow.", "tie": True},
    {"prompt": "The plot", "ranking": ["ends.", "begins.", "stops."]},
    {"prompt": "The plot", "completion": "ends.", "label": False},
    {"prompt": "The plot", "completion": "ends.", "rating": 2.5},
    {"prompt": "The cast", "completion": "is great."},
    {"prompt": "The cast", "completion": "is good."},
]


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.db") as opened:
        yield opened


def write(path, lines):
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")
    return path


def test_every_kind_of_record_is_read(store, tmp_path):
    report = import_feedback(store, write(tmp_path / "labels.jsonl", RECORDS))
    assert report == (7, 0, [])
    labels = [given.label for given in store.feedback()]
    assert labels == [
        Ranking((0, 1)),
        Ranking((0, 1), tie=True),
        Ranking((0, 1, 2)),
        Thumb(up=False),
        Rating(2.5),
        Demonstration("is great."),
        Demonstration("is good."),
    ]
    first = store.feedback()[0]
    assert first.rater == "labels.jsonl"
    assert first.provenance["record"] == {"votes": [1, 2, 1]}
    assert first.provenance["where"] == "line 1"


def test_a_ranking_of_one_text_twice_is_left_out(store, tmp_path):
    twice = {"prompt": "The plot", "ranking": ["ends.", "begins.", "ends."]}
    report = import_feedback(store, write(tmp_path / "labels.jsonl", [RECORDS[2], twice]))
    assert report.labels == 1
    (problem,) = report.problems
    assert "line 2: this text is in it twice" in str(problem)


def test_a_second_import_adds_nothing(store, tmp_path):
    path = write(tmp_path / "labels.jsonl", RECORDS)
    import_feedback(store, path)
    assert import_feedback(store, path) == (0, 7, [])
    # Another rater's labels are labels of their own.
    assert import_feedback(store, path, rater="anna") == (7, 0, [])


def test_bad_lines_are_named_and_the_others_kept(store, tmp_path):
    lines = [
        RECORDS[0],
        '{"prompt": "The film", "chosen": ',
        "[1, 2]",
        {"prompt": "The film", "chosen": "same", "rejected": "same"},
        {"prompt": "The film"},
        {"prompt": 3, "completion": "is great."},
        {"prompt": "\ud800", "chosen": "a", "rejected": "b"},
        RECORDS[4],
    ]
    report = import_feedback(store, write(tmp_path / "labels.jsonl", lines))
    assert report.labels == 3  # half a character is read as U+FFFD
    assert store.feedback()[1].query.segments[0].prompt == "\ufffd"
    problems = [str(problem) for problem in report.problems]
    for number, problem in zip(range(2, 7), problems, strict=True):
        assert f"line {number}" in problem
    with pytest.raises(InvalidData, match="no label could be read"):
        import_feedback(store, write(tmp_path / "bad.jsonl", lines[1:3]))
    assert "bad.jsonl" not in store.raters()


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.parquet"])
def test_what_is_exported_trains_a_reward_model_and_imports_again(store, tmp_path, name):
    import_feedback(store, write(tmp_path / "labels.jsonl", RECORDS))
    store.add([Query((TextSegment("The cast", "is bad."),), "edit")])
    shown = store.next("anna")
    store.answer(shown.id, "anna", Edit("is odd."), seconds=3.0)
    assert export_feedback(store, tmp_path / name) == 6
    assert export_feedback(store, tmp_path / f"sft-{name}", kind="demonstrations") == 3
    judged = read_judgements(tmp_path / name)
    assert [judgement.responses for judgement in judged[:2]] == [
        ("is fine.", "is dull."),
        ("is long.", "is slow."),
    ]
    assert judged[1].tie
    last = read_records(tmp_path / name)[-1]
    assert (last["chosen"], last["rejected"], last["rater"]) == ("is odd.", "is bad.", "anna")
    assert last["seconds"] == 3.0
    with FeedbackStore(tmp_path / "second.db") as second:
        report = import_feedback(second, tmp_path / name)
        assert (report.labels, report.problems) == (6, [])
        labels = [given.label for given in second.feedback()]
        assert labels[:5] == [given.label for given in store.feedback()][:5]


def test_export_leaves_out_skips_clips_and_other_raters(store, tmp_path):
    clip = ControlSegment([[0.0]], [[0.0]])
    ids = store.add([Query((TextSegment("a", "b"),), "thumb"), Query((clip, clip))])
    store.answer(ids[0], "anna", Skip())
    store.answer(ids[0], "bob", Thumb(up=True))
    store.answer(ids[1], "bob", Ranking((0, 1)))
    assert export_feedback(store, tmp_path / "anna.jsonl", raters=["anna"]) == 0
    assert export_feedback(store, tmp_path / "all.jsonl") == 1
    with pytest.raises(InvalidArgument, match="no format to write"):
        export_feedback(store, tmp_path / "all.xlsx")


DATA = os.environ.get("RLHF_GYM_DATA")


@pytest.mark.skipif(not DATA, reason="needs RLHF_GYM_DATA")
@pytest.mark.parametrize(
    ("name", "labels", "repeated"),
    [
        ("pandalm/pairs.jsonl", 592, 0),
        ("llmbar/pairs.jsonl", 718, 0),
        ("hhh_alignment/pairs.jsonl", 172, 0),
        ("dpo_mix_demo/pairs.jsonl", 234, 0),
        # Eleven demonstrations stand in it twice, word for word.
        ("instructions/demonstrations.jsonl", 1134, 11),
    ],
)
def test_real_sets_need_no_touch(store, name, labels, repeated):
    report = import_feedback(store, Path(str(DATA)) / name)
    assert report == (labels, repeated, [])


def test_an_export_imported_into_another_store_says_the_same(store, tmp_path):
    lines = [
        {"prompt": "p", "completion": "a", "rating": 3, "scale": "5 levels", "rater": "anna"},
        {"prompt": "p", "completion": "b", "rating": 9, "scale": "marks", "rater": "bob"},
        {"prompt": "p", "chosen": "x", "rejected": "y", "rater": "anna", "seconds": 4.0}
        | {"stopped": [True, False], "scores": [2, 1], "meaning": "m"},
        {"prompt": "p", "chosen": "y", "rejected": "x", "rater": "bob", "weight": 2},
        {"prompt": "p", "chosen": "x", "rejected": "y", "tie": True, "rater": "cleo"},
        {"prompt": "q", "chosen": "x", "rejected": "y", "skip": True},
    ]
    import_feedback(store, write(tmp_path / "labels.jsonl", lines))
    given = store.feedback()
    assert [g.label for g in given[:2]] == [Likert(3), Rating(9.0)]
    # One question, on which they disagree.
    assert len({g.query_id for g in given[2:]}) == 1
    assert [g.label for g in given[2:4]] == [Ranking((0, 1)), Ranking((1, 0))]
    assert [g.rater for g in given] == ["anna", "bob", "anna", "bob", "cleo"]
    assert given[2].seconds == 4.0
    # Of a rater who was not known: the weight of the first record that names them.
    assert store.raters() == {"anna": 1.0, "bob": 1.0, "cleo": 1.0}

    export_feedback(store, tmp_path / "out.jsonl")
    first, second = read_judgements(tmp_path / "out.jsonl")[2:4]
    assert (first.stopped, first.worth, first.meaning) == ((True, False), (2, 1), "m")
    assert (second.stopped, second.worth, second.meaning) == ((False, True), (1, 2), "m")
    with FeedbackStore(tmp_path / "copy.db") as copy:
        import_feedback(copy, tmp_path / "out.jsonl")
        export_feedback(copy, tmp_path / "again.jsonl")
    assert read_judgements(tmp_path / "out.jsonl") == read_judgements(tmp_path / "again.jsonl")
    assert [j.scale for j in read_judgements(tmp_path / "again.jsonl")][:2] == ["5 levels", "marks"]


def test_the_weight_of_a_new_rater_is_that_of_the_file(store, tmp_path):
    record = {"prompt": "p", "chosen": "x", "rejected": "y", "rater": "anna", "weight": 3}
    import_feedback(store, write(tmp_path / "labels.jsonl", [record]))
    assert store.raters() == {"anna": 3.0}
    store.set_weight("anna", 0.5)
    import_feedback(store, tmp_path / "labels.jsonl")
    assert store.raters() == {"anna": 0.5}


def test_a_text_has_one_scale(store, tmp_path):
    rated = {"prompt": "p", "completion": "a", "rater": "anna"}
    lines = [rated | {"rating": 3, "scale": "stars"}, rated | {"rating": 9, "scale": "marks"}]
    report = import_feedback(store, write(tmp_path / "labels.jsonl", lines))
    assert report.labels == 1
    assert "'stars'" in str(report.problems[0])


def test_an_unknown_rater_is_named(store, tmp_path):
    import_feedback(store, write(tmp_path / "labels.jsonl", RECORDS), rater="anna")
    with pytest.raises(InvalidArgument, match="anna"):
        export_feedback(store, tmp_path / "out.jsonl", raters=["ana"])
