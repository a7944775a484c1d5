"""Records of feedback, as files hold them, read as judgements.

Pairs, rankings, thumbs and ratings share one form: a comparison lists responses from best to worst
(a pair is a ranking of two); thumbs and ratings give one response a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlhf_gym.core.data import PathLike, read_records
from rlhf_gym.core.errors import InvalidData

Kind = Literal["comparison", "thumbs", "rating"]

_KIND_OF_COLUMN: tuple[tuple[str, Kind], ...] = (
    ("chosen", "comparison"),
    ("ranking", "comparison"),
    ("rating", "rating"),
    ("label", "thumbs"),
)
_THUMBS = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}


@dataclass(frozen=True)
class Judgement:
    """What somebody said about one or more responses to a prompt.

    Attributes:
        kind: a comparison, a thumb up or down, or a rating.
        prompt: what the responses answer; empty for plain texts.
        responses: from best to worst in a comparison, else exactly one.
        value: 1 or 0 for a thumb, any number for a rating, NaN for a comparison.
        tie: all responses of the comparison were judged equally good.
        stopped: False for a response that was cut off by its budget and so has no EOS; empty if
            all of them ended.
        group: what must not stand on both sides of a split; by default the prompt, or else the
            text.
        rater: who said it; empty if nobody is named.
        weight: how much it counts, 0 or more.
        worth: what each response is really worth, best first, where that is known (a teacher's
            true rewards); only reports look at it.
        meaning: judgements of the same meaning ask the same in other words; empty for none.
        scale: ratings of the same scale are of one size: levels 1 to 5 are none of marks 0 to 10.
    """

    kind: Kind
    prompt: str
    responses: tuple[str, ...]
    value: float = math.nan
    tie: bool = False
    stopped: tuple[bool, ...] = ()
    group: str = ""
    rater: str = ""
    weight: float = 1.0
    worth: tuple[float, ...] = ()
    meaning: str = ""
    scale: str = ""

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.prompt or self.responses[0])


def read_judgements(
    path: PathLike, *, columns: Mapping[str, str] | None = None, limit: int | None = None
) -> list[Judgement]:
    """Read pairs, rankings, thumbs and ratings; each record's columns say which it is.

    - `chosen`, `rejected`: a pair; with a true `tie`, neither is better
    - `ranking`: responses from best to worst
    - `rating`: a number for the `completion` (or `text`)
    - `label`: 0 or 1, false or true, for the `completion` (or `text`)

    Each takes a `prompt` too, and `stopped`: for each response, best first, whether it came to an
    end (otherwise it is read without EOS), and `group`: rows of the same group, by default the same
    prompt, are never on two sides of a split. `rater` says whose judgement it is and `weight` how
    much it counts; a true `skip` leaves the row out; `scores` are what the responses are really
    worth; rows of one `meaning` ask the same in other words; ratings of one `scale` have one size.
    Other columns are ignored.

    Args:
        path: a file, folder or hub data set, as `read_records` takes it.
        columns: names to change, `{name in the file: name wanted}`.
        limit: read this many records at most.

    Raises:
        InvalidData: a record that is none of these, or whose values do not fit its columns.
    """
    records = read_records(path, columns=columns, limit=limit)
    return [
        judgement(record, f"record {i} of {path}")
        for i, record in enumerate(records, 1)
        if not record.get("skip")
    ]


def judgement(record: Mapping[str, Any], where: str) -> Judgement:
    """One record as a judgement.

    Args:
        record: its columns, as in `read_judgements`.
        where: where the record stands, for messages.

    Raises:
        InvalidData: see `read_judgements`.
    """
    prompt = _prompt(record, where)
    column, kind = _kind(record, where)
    responses: tuple[str, ...]
    if column == "chosen":
        responses = _text(record, "chosen", where), _text(record, "rejected", where)
    elif column == "ranking":
        responses = _ranking(record["ranking"], where)
    else:
        responses = (_response(record, where),)
    value = math.nan
    if kind != "comparison":
        value = (_thumb if kind == "thumbs" else _rating)(record[column], where)
    tie = bool(record.get("tie", False))
    if column == "chosen" and responses[0] == responses[1] and not tie:
        raise InvalidData(
            "rejected", responses[1], f"{where}: both sides are the same", "Leave the pair out"
        )
    if column == "ranking" and len(set(responses)) < len(responses) and not tie:
        twice = next(text for text in responses if responses.count(text) > 1)
        raise InvalidData(
            "ranking", twice, f"{where}: this text is in it twice", "Name each text once"
        )
    return Judgement(
        kind,
        prompt,
        responses,
        value,
        tie=tie and kind == "comparison",
        stopped=_stopped(record, len(responses), where),
        group=_name(record, "group"),
        rater=_name(record, "rater"),
        weight=_weight(record, where),
        worth=_worth(record, len(responses)),
        meaning=_name(record, "meaning"),
        scale=_name(record, "scale"),
    )


def read_responses(path: PathLike, *, columns: Mapping[str, str] | None = None) -> list[Judgement]:
    """Read responses that nobody judged: `completion` (with a `prompt`) or `text`; no value."""
    records = read_records(path, columns=columns)
    return [
        Judgement(
            "rating",
            _prompt(record, where),
            (_response(record, where),),
            stopped=_stopped(record, 1, where),
        )
        for where, record in ((f"record {i} of {path}", r) for i, r in enumerate(records, 1))
    ]


def _kind(record: Mapping[str, Any], where: str) -> tuple[str, Kind]:
    for column, kind in _KIND_OF_COLUMN:
        if record.get(column) is not None:
            return column, kind
    raise InvalidData(
        "column",
        tuple(record),
        f"{where}: no judgement in it",
        "Needed are chosen and rejected, or ranking, or completion (or text) with label or rating; "
        "rename the file's columns to these",
    )


def _prompt(record: Mapping[str, Any], where: str) -> str:
    return "" if record.get("prompt") is None else _text(record, "prompt", where)


def _response(record: Mapping[str, Any], where: str) -> str:
    return _text(record, "completion" if "completion" in record else "text", where)


def _text(record: Mapping[str, Any], column: str, where: str) -> str:
    value = record.get(column)
    if not isinstance(value, str):
        raise InvalidData(column, value, f"{where}: not a text", "Give a string in this column")
    return value


def _ranking(value: Any, where: str) -> tuple[str, ...]:
    fits = isinstance(value, Sequence) and not isinstance(value, str)
    if not fits or len(value) < 2 or not all(isinstance(text, str) for text in value):
        raise InvalidData(
            "ranking",
            value,
            f"{where}: not a list of two or more texts",
            "List the responses from best to worst",
        )
    return tuple(value)


def _stopped(record: Mapping[str, Any], count: int, where: str) -> tuple[bool, ...]:
    value = record.get("stopped")
    if value is None:
        return ()
    flags = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(flags) != count or not all(isinstance(flag, bool) for flag in flags):
        raise InvalidData(
            "stopped",
            value,
            f"{where}: not true or false for each of {count} responses",
            "Leave the column out, or give one boolean per response",
        )
    return flags


def _name(record: Mapping[str, Any], column: str) -> str:
    return "" if record.get(column) is None else str(record[column])


def _weight(record: Mapping[str, Any], where: str) -> float:
    value = record.get("weight")
    if value is None:
        return 1.0
    weight = _number(value)
    if not 0 <= weight < math.inf:
        raise InvalidData(
            "weight", value, f"{where}: no weight", "Give a finite number, 0 or more; 1 is usual"
        )
    return weight


def _worth(record: Mapping[str, Any], count: int) -> tuple[float, ...]:
    """True values of the responses; a column of that name with anything else in it is ignored."""
    value = record.get("scores")
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != count:
        return ()
    worth = tuple(_number(number) for number in value)
    return worth if all(math.isfinite(number) for number in worth) else ()


def _thumb(value: Any, where: str) -> float:
    label = _THUMBS.get(str(value).strip().lower())
    if label is None:
        raise InvalidData(
            "label",
            value,
            f"{where}: neither 0 nor 1, false nor true",
            "Rename the column to 'rating' if it is a number on a scale",
        )
    return label


def _rating(value: Any, where: str) -> float:
    number = _number(value)
    if not math.isfinite(number):
        raise InvalidData("rating", value, f"{where}: no finite number", "Give a number")
    return number


def _number(value: Any) -> float:
    """What it is as a number; NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
