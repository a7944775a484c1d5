"""Records become judgements; what is no judgement is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlhf_gym.core.errors import InvalidData
from rlhf_gym.core.supervised.preference_records import judgement, read_judgements, read_responses


def test_the_columns_say_what_a_record_is(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "subset": "x"},
        {"prompt": "p", "ranking": ["a", "b", "c"]},
        {"prompt": "p", "completion": "a", "label": True},
        {"text": "a", "label": 0},
        {"completion": "a", "rating": 3},
        {"chosen": "a", "rejected": "b", "tie": True},
    ]
    file = tmp_path / "feedback.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    first, second, third, fourth, fifth, sixth = read_judgements(file)
    assert (first.kind, first.prompt, first.responses) == ("comparison", "p", ("a", "b"))
    assert not first.tie
    assert second.responses == ("a", "b", "c")
    assert (third.kind, third.prompt, third.value) == ("thumbs", "p", 1.0)
    assert (fourth.kind, fourth.responses, fourth.value) == ("thumbs", ("a",), 0.0)
    assert (fifth.kind, fifth.value) == ("rating", 3.0)
    assert sixth.tie
    assert sixth.stopped == ()


def test_rows_may_name_what_belongs_together() -> None:
    record: dict[str, Any] = {"prompt": "p", "chosen": "a", "rejected": "b"}
    assert judgement(record, "here").group == "p"
    assert judgement({**record, "group": 17}, "here").group == "17"
    assert judgement({"text": "a", "label": 1}, "here").group == "a"


def test_unfinished_responses_are_known() -> None:
    record: dict[str, Any] = {"chosen": "a", "rejected": "b", "stopped": [True, False]}
    assert judgement(record, "here").stopped == (True, False)
    assert judgement({"text": "a", "rating": 2, "stopped": False}, "here").stopped == (False,)


def test_columns_are_renamed(tmp_path: Path) -> None:
    file = tmp_path / "sst.tsv"
    file.write_text("sentence\tlabel\nvery good\t1\nvery bad\t0\n")
    good, bad = read_judgements(file, columns={"sentence": "text"})
    assert (good.responses, good.value) == (("very good",), 1.0)
    assert bad.value == 0.0
    assert good.group == "very good"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "p"}, "no judgement in it"),
        ({"prompt": "p", "chosen": "a"}, "rejected=None: here: not a text"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt=3: here: not a text"),
        ({"chosen": "a", "rejected": "a"}, "both sides are the same"),
        ({"ranking": ["a"]}, "not a list of two or more texts"),
        ({"ranking": ["a", "b", "a"]}, "ranking='a': here: this text is in it twice"),
        ({"ranking": "ab"}, "not a list of two or more texts"),
        ({"text": "a", "label": 2}, "Rename the column to 'rating'"),
        ({"text": "a", "rating": "high"}, "rating='high': here: no finite number"),
        ({"text": "a", "rating": math.nan}, "no finite number"),
        ({"label": 1}, "text=None: here: not a text"),
        ({"chosen": "a", "rejected": "b", "stopped": [True]}, "each of 2 responses"),
        ({"text": "a", "label": 1, "stopped": 1}, "true or false"),
    ],
)
def test_bad_records_are_named(record: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidData) as caught:
        judgement(record, "here")
    assert message in str(caught.value)


def test_a_bad_record_is_named_by_number(tmp_path: Path) -> None:
    file = tmp_path / "thumbs.jsonl"
    file.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": "maybe"}\n')
    with pytest.raises(InvalidData, match="record 2"):
        read_judgements(file)


def test_responses_without_judgement_are_read_too(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text('{"prompt": "the film", "completion": "was good"}\n{"text": "bad"}\n')
    first, second = read_responses(file)
    assert (first.prompt, first.responses) == ("the film", ("was good",))
    assert (second.prompt, second.responses) == ("", ("bad",))
    file.write_text('{"prompt": "the film"}\n')
    with pytest.raises(InvalidData, match="record 1"):
        read_responses(file)
