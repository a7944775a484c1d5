"""What a rater may know and change of their own work: how they stand, what they said last.

Cheap enough to be asked after every click: no segment is read, only answers.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from rlhf_gym.core.calibration import Estimate, wilson_interval
from rlhf_gym.core.feedback import check_label
from rlhf_gym.core.labels import Label
from rlhf_gym.core.store.content import label_from_json
from rlhf_gym.core.store.report import answer_value
from rlhf_gym.core.store.rows import add_label, rater_number, read_question
from rlhf_gym.core.store.store import FeedbackStore


class GivenLabel(NamedTuple):
    """A label in force.

    Attributes:
        id: number of the label.
        query_id: number of the query.
        label: the answer.
    """

    id: int
    query_id: int
    label: Label


class Standing(NamedTuple):
    """How a rater's work looks.

    Attributes:
        seconds: median time of an answer; None if it was never measured.
        agreement: share of other raters' answers to the same queries that are the same; None
            without any.
        gold: share of gold questions answered right; None without any.
    """

    seconds: float | None
    agreement: Estimate | None
    gold: Estimate | None


def latest_label(
    store: FeedbackStore, rater: str, *, without: str | None = None
) -> GivenLabel | None:
    """The last label in force that a rater gave by hand, with a ticket; None if there is none.

    Args:
        store: where.
        rater: who.
        without: leave out queries whose provenance has this entry.
    """
    with store.connection.reading() as sqlite:
        row = sqlite.execute(
            """
            select l.id, l.query_id, l.kind, l.answer from labels l
            join raters r on r.id = l.rater_id join queries q on q.id = l.query_id
            left join provenance p on p.id = q.provenance_id
            where r.name = :rater and l.retracted is null and l.ticket is not null
            and (:without is null or p.id is null
                 or json_type(p.details, '$.' || :without) is null)
            order by l.id desc limit 1
            """,
            {"rater": rater, "without": without},
        ).fetchone()
    return None if row is None else _given(row)


def label_on(store: FeedbackStore, query_id: int, rater: str) -> GivenLabel | None:
    """The label in force of a rater on a query, None if there is none."""
    with store.connection.reading() as sqlite:
        row = sqlite.execute(
            """
            select l.id, l.query_id, l.kind, l.answer from labels l
            join raters r on r.id = l.rater_id
            where r.name = ? and l.query_id = ? and l.retracted is null order by l.id desc limit 1
            """,
            (rater, query_id),
        ).fetchone()
    return None if row is None else _given(row)


def revise(
    store: FeedbackStore,
    query_id: int,
    rater: str,
    label: Label,
    *,
    seconds: float | None = None,
    session: int | None = None,
    ticket: str | None = None,
) -> int:
    """Put a label in the place of what the rater said about the query before, in one transaction.

    Args:
        store: where.
        query_id: number of the query.
        rater: who answers.
        label: the answer.
        seconds: time taken.
        session: number of the rater's session.
        ticket: the client's own name for this request; the same request sent again is not stored
            again.

    Returns:
        Number of the label; what it replaces keeps its row, out of force.

    Raises:
        InvalidData: a label that does not answer the query.
        InvalidArgument: no such query.
    """
    with store.connection.writing() as sqlite:
        known = sqlite.execute("select id from labels where ticket = ?", (ticket,)).fetchone()
        if known is not None:
            return int(known["id"])
        check_label(read_question(sqlite, query_id), label)
        rater_id = rater_number(sqlite, rater)
        sqlite.execute(
            """
            update labels set retracted = ?
            where query_id = ? and rater_id = ? and retracted is null
            """,
            (time.time(), query_id, rater_id),
        )
        sqlite.execute(
            "delete from claims where query_id = ? and rater_id = ?", (query_id, rater_id)
        )
        return add_label(
            sqlite, query_id, rater_id, label, seconds=seconds, session=session, ticket=ticket
        )


def standing(store: FeedbackStore, rater: str) -> Standing:
    """How a rater's work looks now."""
    with store.connection.reading() as sqlite:
        seconds = sqlite.execute(
            """
            select l.seconds from labels l join raters r on r.id = l.rater_id
            where r.name = ? and l.retracted is null and l.kind <> 'skip' and l.seconds is not null
            """,
            (rater,),
        ).fetchall()
        # Counted by what was answered: there are few different answers to many queries.
        golden = sqlite.execute(
            """
            select l.kind, l.answer, q.gold, count(*) as times from labels l
            join raters r on r.id = l.rater_id join queries q on q.id = l.query_id
            where r.name = ? and l.retracted is null and l.kind <> 'skip' and q.gold is not null
            group by 1, 2, 3
            """,
            (rater,),
        ).fetchall()
        shared = sqlite.execute(
            """
            select mine.kind, mine.answer, theirs.kind as their_kind, theirs.answer as their_answer,
                count(*) as times
            from labels mine join raters r on r.id = mine.rater_id
            join labels theirs on theirs.query_id = mine.query_id
            where r.name = ? and theirs.rater_id <> mine.rater_id
            and mine.retracted is null and theirs.retracted is null
            and mine.kind not in ('edit', 'demonstration')
            group by 1, 2, 3, 4
            """,
            (rater,),
        ).fetchall()
    return Standing(
        float(np.median([row["seconds"] for row in seconds])) if seconds else None,
        _share(
            (_same(_label(row), label_from_json(row["their_kind"], row["their_answer"])), row)
            for row in shared
        ),
        _share(
            (_same(_label(row), label_from_json(*json.loads(row["gold"]))), row) for row in golden
        ),
    )


def _given(row: sqlite3.Row) -> GivenLabel:
    return GivenLabel(row["id"], row["query_id"], _label(row))


def _label(row: sqlite3.Row) -> Label:
    return label_from_json(row["kind"], row["answer"])


def _same(one: Label, other: Label) -> bool | None:
    """Whether two answers are equal; None where either is a text or a skip."""
    first, second = answer_value(one), answer_value(other)
    return None if first is None or second is None else first == second


def _share(outcomes: Iterable[tuple[bool | None, sqlite3.Row]]) -> Estimate | None:
    """Share of True among what is not None, each counted as often as its row says."""
    counted = [(same, int(row["times"])) for same, row in outcomes if same is not None]
    total = sum(times for _, times in counted)
    if not total:
        return None
    return wilson_interval(sum(times for same, times in counted if same) / total, total)
