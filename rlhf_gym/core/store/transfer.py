"""Files in, files out: preferences and demonstrations in the columns the ecosystem uses."""

from __future__ import annotations

import math
import os
import re
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rlhf_gym.core.data import PathLike, located_records, write_jsonl
from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.feedback import Query, TextSegment, demonstration_records, preference_records
from rlhf_gym.core.labels import Demonstration, Label, Likert, Ranking, Rating, Thumb
from rlhf_gym.core.store.records import Feedback
from rlhf_gym.core.store.rows import (
    add_label,
    add_query,
    provenance_number,
    query_number,
    rater_number,
    read_query,
)
from rlhf_gym.core.store.store import FeedbackStore
from rlhf_gym.core.supervised.preference_records import judgement

Kind = Literal["preferences", "demonstrations"]

_READ = frozenset(
    {"prompt", "chosen", "rejected", "tie", "ranking", "completion", "text", "label", "rating"}
)
"""Columns that become segments and labels; all others are kept as provenance."""

_LEVELS = re.compile(r"(\d+) levels")
"""The `scale` of exported Likert levels, see `preference_records`."""


class ImportReport(NamedTuple):
    """What came out of a file.

    Attributes:
        labels: stored now.
        known: records whose label was in the store already.
        problems: what is wrong with each record that was left out, by line.
    """

    labels: int
    known: int
    problems: list[InvalidData]


def import_feedback(
    store: FeedbackStore,
    path: PathLike,
    *,
    rater: str | None = None,
    columns: Mapping[str, str] | None = None,
    overlap: int = 1,
) -> ImportReport:
    """Read labels from a file: pairs, rankings, thumbs, ratings, demonstrations, or all together.

    The columns are those of the reward-model and SFT stages; every other column is kept with the
    query, under `record` in its provenance. A true `skip` leaves the record out. A record that
    cannot be read is named in the report and the others are kept. A file imported twice adds
    nothing the second time.

    Args:
        store: where to.
        path: a file or folder, as `read_records` takes it.
        rater: who gave the labels; by default whom the column `rater` names, otherwise the file.
            A rater who is new to the store has the `weight` of their first record.
        columns: names to change, `{name in the file: name wanted}`.
        overlap: how many raters shall answer each query, this one included.

    Raises:
        InvalidData: no such path, or not one record of it can be read.
    """
    source = os.fspath(path)
    labels = known = 0
    problems: list[InvalidData] = []
    with store.connection.writing() as sqlite:
        for where, record in located_records(path, columns=columns, malformed=problems):
            if record.get("skip"):
                continue
            try:
                query, label = _as_stored(sqlite, *feedback_of(record, where))
                details = {"source": Path(source).name, "where": where, "record": _others(record)}
                origin = provenance_number(sqlite, details)
                query_id = add_query(sqlite, query, overlap, 0.0, None, origin)
                _check_scale(sqlite, query_id, record, where)
            except InvalidData as error:
                problems.append(error)
                continue
            name = rater or _name(record, "rater") or Path(source).name
            rater_id = _rater(sqlite, name, _positive(record.get("weight")))
            seconds = _positive(record.get("seconds"))
            try:
                add_label(sqlite, query_id, rater_id, label, seconds=seconds)
                labels += 1
            except sqlite3.IntegrityError:
                known += 1
        if not labels + known:
            first = str(problems[0]).rstrip(".") if problems else "it is empty"
            raise InvalidData(
                "path", source, f"no label could be read: {first}", "Give a file with labels"
            )
    return ImportReport(labels, known, problems)


def feedback_of(record: Mapping[str, Any], where: str) -> tuple[Query, Label]:
    """One record as a query and its answer.

    Args:
        record: its columns, as the reward-model and SFT stages read them.
        where: where it stands, for messages.

    Raises:
        InvalidData: no label in it, or values that do not fit.
    """
    judged = {"chosen", "ranking", "label", "rating"} & record.keys()
    if not judged and "completion" in record:
        return _demonstration(record, where)
    found = judgement(record, where)
    segments = tuple(TextSegment(found.prompt, text) for text in found.responses)
    if found.kind == "comparison":
        return Query(segments), Ranking(tuple(range(len(segments))), found.tie)
    if found.kind == "thumbs":
        return Query(segments, "thumb"), Thumb(found.value > 0.5)
    levels = int(match[1]) if (match := _LEVELS.fullmatch(found.scale)) else 0
    if found.value in range(levels) and levels > 1:
        return Query(segments, "likert", levels), Likert(int(found.value))
    return Query(segments, "rating"), Rating(found.value)


def export_feedback(
    store: FeedbackStore, path: PathLike, *, kind: Kind = "preferences", raters: Iterable[str] = ()
) -> int:
    """Write the labels in force that are of a kind, with rater, weight and time.

    What a file said of its records that the reward-model stage reads (`scale`, `stopped`, `group`,
    `meaning`, `scores`) comes along.

    Args:
        store: where from.
        path: .jsonl, .jsonl.gz or .parquet.
        kind: "preferences" for the reward-model stage and TRL, "demonstrations" for SFT.
        raters: only these; all by default.

    Returns:
        How many records were written.

    Raises:
        InvalidArgument: a file of another format, or a rater whom the store does not know.
    """
    target, names = Path(path), tuple(raters)
    known = store.raters()
    for name in names:
        if name not in known:
            raise InvalidArgument(
                "raters", name, "not in this store", f"Choose among {', '.join(known) or 'none'}"
            )
    convert = {"preferences": preference_records, "demonstrations": demonstration_records}[kind]
    records = [
        {**_from_file(given, record), **record, **_about(given)}
        for given in store.feedback(raters=names)
        if isinstance(given.query.segments[0], TextSegment)
        for record in convert(given.query, given.label)
    ]
    if target.suffix == ".parquet":
        _write_parquet(target, records)
        return len(records)
    if not target.name.endswith((".jsonl", ".jsonl.gz")):
        raise InvalidArgument(
            "path", str(path), "no format to write", "Name it .jsonl, .jsonl.gz or .parquet"
        )
    return write_jsonl(target, records)


def _demonstration(record: Mapping[str, Any], where: str) -> tuple[Query, Label]:
    prompt, completion = record.get("prompt"), record["completion"]
    for column, value in (("prompt", prompt), ("completion", completion)):
        if not isinstance(value, str) or not value:
            raise InvalidData(column, value, f"{where}: not a text", "Give a string in this column")
    return Query((TextSegment(str(prompt), ""),), "demonstration"), Demonstration(completion)


def _as_stored(sqlite: sqlite3.Connection, query: Query, label: Label) -> tuple[Query, Label]:
    """The same in the order in which the store has this pair, if it has it the other way round.

    Files name the better one first: taken as two questions, raters could never disagree.
    """
    if not isinstance(label, Ranking) or len(query.segments) != 2:
        return query, label
    turned = Query(query.segments[::-1])
    if query_number(sqlite, query) is not None or query_number(sqlite, turned) is None:
        return query, label
    return turned, Ranking(label.order if label.tie else label.order[::-1], label.tie)


def _check_scale(
    sqlite: sqlite3.Connection, query_id: int, record: Mapping[str, Any], where: str
) -> None:
    """Refuse a rating of a text that was rated on another scale: a query has one.

    Raises:
        InvalidData: it was.
    """
    stored = read_query(sqlite, query_id)
    if stored.query.question != "rating":
        return
    scale, known = _name(record, "scale"), _name(_file_record(stored.provenance), "scale")
    if scale != known:
        raise InvalidData(
            "scale",
            scale,
            f"{where}: this text was rated on the scale {known!r} before",
            "Import ratings of the same texts on two scales into two stores",
        )


def _rater(sqlite: sqlite3.Connection, name: str, weight: float | None) -> int:
    """Number of a rater, who has this weight if new."""
    known = sqlite.execute("select id from raters where name = ?", (name,)).fetchone()
    if known is not None:
        return int(known["id"])
    number = rater_number(sqlite, name)
    if weight is not None:
        sqlite.execute("update raters set weight = ? where id = ?", (weight, number))
    return number


def _file_record(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """The columns that came with a record of a file; none for queries from elsewhere."""
    record = provenance.get("record")
    return record if isinstance(record, dict) else {}


def _from_file(given: Feedback, record: Mapping[str, Any]) -> dict[str, Any]:
    """What the file of an imported query said that the reward-model stage reads."""
    said = _file_record(given.provenance)
    columns = {name: said[name] for name in ("scale", "group", "meaning") if name in said}
    for name in ("stopped", "scores"):
        value = said.get(name)
        if not isinstance(value, list):
            if value is not None and "completion" in record:
                columns[name] = value
        elif isinstance(given.label, Ranking) and len(value) == len(given.label.order):
            # Said of the segments in their order; the columns name the best first.
            if not given.label.tie or len(value) == 2:
                columns[name] = [value[i] for i in given.label.order]
        elif "completion" in record:
            columns[name] = value
    return columns


def _name(record: Mapping[str, Any], column: str) -> str:
    value = record.get(column)
    return "" if value is None or _is_nan(value) else str(value).strip()


def _positive(value: object) -> float | None:
    """A finite number, 0 or more, or None."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def _others(record: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that are neither segment nor label, as JSON can hold them."""
    return {
        name: value if isinstance(value, str | int | float | bool | list | dict) else str(value)
        for name, value in record.items()
        if name not in _READ and value is not None and not _is_nan(value)
    }


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _about(given: Feedback) -> dict[str, Any]:
    return {
        "rater": given.rater,
        "weight": given.weight,
        "seconds": given.seconds,
        "created": given.created,
        "query_id": given.query_id,
    }


def _write_parquet(target: Path, records: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    # All columns of all kinds, so that a column which the first record lacks is not lost.
    columns = list(dict.fromkeys(name for record in records for name in record))
    table = pyarrow.table({name: [record.get(name) for record in records] for name in columns})
    pyarrow.parquet.write_table(table, partial)
    partial.replace(target)
