"""The tables of a feedback store, as the steps from an empty file to the newest version.

A released step is never changed; a change is a new step at the end. The number of steps a file has
seen is its version (`PRAGMA user_version`). docs/feedback-store.md explains the tables.
"""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x524C4846
"""In the header of the file, "RLHF" in ASCII: tells a feedback store from any other SQLite file."""

_FIRST = (
    """
    create table raters (
        id integer primary key,
        name text not null unique check (name <> ''),
        weight real not null default 1 check (weight >= 0),
        created real not null
    ) strict
    """,
    """
    create table sessions (
        id integer primary key,
        rater_id integer not null references raters,
        client text not null,
        started real not null,
        ended real
    ) strict
    """,
    """
    create table provenance (
        id integer primary key,
        details text not null unique
    ) strict
    """,
    # `digest` is of the content, so the same completion is stored once.
    """
    create table items (
        id integer primary key,
        digest blob not null unique,
        kind text not null check (kind in ('text', 'control')),
        prompt text,
        completion text,
        arrays blob,
        check (case kind
               when 'text' then prompt is not null and completion is not null and arrays is null
               else prompt is null and completion is null and arrays is not null end)
    ) strict
    """,
    # `answers` counts the labels that are in force and no skips; triggers keep it.
    """
    create table queries (
        id integer primary key,
        digest blob not null unique,
        question text not null,
        levels integer not null,
        choices text not null,
        overlap integer not null check (overlap >= 1),
        priority real not null,
        gold text,
        provenance_id integer references provenance,
        created real not null,
        answers integer not null default 0
    ) strict
    """,
    """
    create table query_items (
        query_id integer not null references queries,
        position integer not null,
        item_id integer not null references items,
        primary key (query_id, position)
    ) strict, without rowid
    """,
    # A query in front of a rater is kept for them until `until`, so that no two label it in vain.
    """
    create table claims (
        query_id integer not null references queries,
        rater_id integer not null references raters,
        until real not null,
        primary key (query_id, rater_id)
    ) strict, without rowid
    """,
    # Nothing is ever deleted: a label taken back keeps its row. `ticket` is the client's own name
    # for its request, so that one sent twice is stored once.
    """
    create table labels (
        id integer primary key,
        query_id integer not null references queries,
        rater_id integer not null references raters,
        session_id integer references sessions,
        kind text not null,
        answer text not null,
        seconds real check (seconds >= 0),
        ticket text unique,
        created real not null,
        retracted real
    ) strict
    """,
    # A rater answers a query once, `answer` sees to it; in a file, one name may have given several
    # different answers, and all are kept.
    """
    create unique index no_label_twice on labels (query_id, rater_id, kind, answer)
    where retracted is null
    """,
    "create index labels_by_rater on labels (rater_id, query_id) where retracted is null",
    "create index open_queries on queries (priority desc, id) where answers < overlap",
    """
    create trigger label_given after insert on labels
    when new.kind <> 'skip' and new.retracted is null begin
        update queries set answers = answers + 1 where id = new.query_id;
    end
    """,
    """
    create trigger label_retracted after update of retracted on labels
    when new.kind <> 'skip' and old.retracted is null and new.retracted is not null begin
        update queries set answers = answers - 1 where id = new.query_id;
    end
    """,
    """
    create trigger label_kept before delete on labels begin
        select raise(abort, 'labels are retracted, never deleted');
    end
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST,)
VERSION = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection) -> int:
    """How many steps the file has seen."""
    return int(connection.execute("pragma user_version").fetchone()[0])


def application_of(connection: sqlite3.Connection) -> int:
    """Which program's file it says it is, 0 for none."""
    return int(connection.execute("pragma application_id").fetchone()[0])


def migrate(connection: sqlite3.Connection) -> None:
    """Take the steps that the file has not seen, all of them or none.

    Args:
        connection: in autocommit mode, to a store of this version or an older one.
    """
    connection.execute("begin immediate")
    try:
        # Asked again inside: another process may have been first.
        for step in MIGRATIONS[version_of(connection) :]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"pragma user_version = {VERSION}")
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise
