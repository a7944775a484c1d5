"""Rows of the store's tables, written and read inside somebody's transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.feedback import Query, TextSegment
from rlhf_gym.core.labels import Label
from rlhf_gym.core.store.content import (
    Item,
    label_from_json,
    label_to_json,
    query_digest,
    to_item,
    to_segment,
)
from rlhf_gym.core.store.records import StoredQuery


def rater_number(sqlite: sqlite3.Connection, name: str) -> int:
    """Number of a rater, who becomes known if new.

    Raises:
        InvalidArgument: an empty name.
    """
    if not name.strip():
        raise InvalidArgument("rater", name, "no name", "Give a name, so that labels have an owner")
    sqlite.execute(
        "insert into raters (name, created) values (?, ?) on conflict do nothing",
        (name, time.time()),
    )
    return int(sqlite.execute("select id from raters where name = ?", (name,)).fetchone()["id"])


def provenance_number(sqlite: sqlite3.Connection, details: Mapping[str, Any] | None) -> int | None:
    """Number of a provenance, stored if new; None for none.

    Raises:
        InvalidArgument: what JSON cannot hold.
    """
    if not details:
        return None
    try:
        text = json.dumps(details, sort_keys=True, ensure_ascii=False)
    except TypeError as error:
        raise InvalidArgument(
            "provenance", dict(details), str(error), "Give numbers, strings, lists and dictionaries"
        ) from error
    sqlite.execute("insert into provenance (details) values (?) on conflict do nothing", (text,))
    row = sqlite.execute("select id from provenance where details = ?", (text,)).fetchone()
    return int(row["id"])


def add_query(
    sqlite: sqlite3.Connection,
    query: Query,
    overlap: int,
    priority: float,
    gold: Label | None,
    provenance_id: int | None,
) -> int:
    """Number of a query, stored with its items if new."""
    items = [to_item(segment) for segment in query.segments]
    digest = query_digest(query, items)
    known = sqlite.execute("select id from queries where digest = ?", (digest,)).fetchone()
    if known is not None:
        return int(known["id"])
    cursor = sqlite.execute(
        """
        insert into queries
            (digest, question, levels, choices, overlap, priority, gold, provenance_id, created)
        values (?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        (
            digest,
            query.question,
            query.levels,
            json.dumps(query.choices, ensure_ascii=False),
            overlap,
            priority,
            None if gold is None else json.dumps(label_to_json(gold), ensure_ascii=False),
            provenance_id,
            time.time(),
        ),
    )
    number = int(cursor.lastrowid or 0)
    for position, item in enumerate(items):
        sqlite.execute(
            """
            insert into items (digest, kind, prompt, completion, arrays) values (?, ?, ?, ?, ?)
            on conflict do nothing
            """,
            item,
        )
        sqlite.execute(
            "insert into query_items select ?, ?, id from items where digest = ?",
            (number, position, item.digest),
        )
    return number


def query_number(sqlite: sqlite3.Connection, query: Query) -> int | None:
    """Number of a query; None if it is not stored."""
    digest = query_digest(query, [to_item(segment) for segment in query.segments])
    row = sqlite.execute("select id from queries where digest = ?", (digest,)).fetchone()
    return None if row is None else int(row["id"])


def read_query(sqlite: sqlite3.Connection, query_id: int) -> StoredQuery:
    """One query with its segments.

    Raises:
        InvalidArgument: no such number.
    """
    row = sqlite.execute(
        """
        select q.*, p.details from queries q left join provenance p on p.id = q.provenance_id
        where q.id = ?
        """,
        (query_id,),
    ).fetchone()
    if row is None:
        raise InvalidArgument("query_id", query_id, "no such query", "Give a number from the store")
    items: Iterable[sqlite3.Row] = sqlite.execute(
        """
        select digest, kind, prompt, completion, arrays
        from query_items join items on items.id = item_id where query_id = ? order by position
        """,
        (query_id,),
    )
    query = Query(
        tuple(to_segment(Item(*item)) for item in items),
        row["question"],
        row["levels"],
        tuple(json.loads(row["choices"])),
    )
    return StoredQuery(
        row["id"],
        query,
        row["overlap"],
        row["answers"],
        None if row["gold"] is None else label_from_json(*json.loads(row["gold"])),
        {} if row["details"] is None else json.loads(row["details"]),
    )


def read_question(sqlite: sqlite3.Connection, query_id: int) -> Query:
    """What a query asks, with blank segments: enough to check an answer, and no clip is unpacked.

    Raises:
        InvalidArgument: no such number.
    """
    row = sqlite.execute(
        """
        select question, levels, choices,
            (select count(*) from query_items where query_id = id) as segments
        from queries where id = ?
        """,
        (query_id,),
    ).fetchone()
    if row is None:
        raise InvalidArgument("query_id", query_id, "no such query", "Give a number from the store")
    blank = (TextSegment("", ""),) * row["segments"]
    return Query(blank, row["question"], row["levels"], tuple(json.loads(row["choices"])))


def add_label(
    sqlite: sqlite3.Connection,
    query_id: int,
    rater_id: int,
    label: Label,
    *,
    seconds: float | None = None,
    session: int | None = None,
    ticket: str | None = None,
    created: float | None = None,
) -> int:
    """Number of a new label.

    Args:
        sqlite: in a transaction.
        query_id: what it answers; checked by the caller.
        rater_id: who gave it.
        label: the answer.
        seconds: time taken.
        session: in which session.
        ticket: the client's own name for its request.
        created: seconds since 1970, UTC; now by default.

    Raises:
        sqlite3.IntegrityError: the rater has answered already, or there is no such session.
    """
    kind, answer = label_to_json(label)
    cursor = sqlite.execute(
        """
        insert into labels (query_id, rater_id, session_id, kind, answer, seconds, ticket, created)
        values (?, ?, ?, ?, ?, ?, ?, ?)
        """,
        (
            query_id,
            rater_id,
            session,
            kind,
            answer,
            seconds,
            ticket,
            time.time() if created is None else created,
        ),
    )
    return int(cursor.lastrowid or 0)
