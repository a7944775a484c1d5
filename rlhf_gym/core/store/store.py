"""The feedback store: queries out to raters, labels in, nothing acknowledged ever lost."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.feedback import Query, TextSegment, check_label
from rlhf_gym.core.labels import Label
from rlhf_gym.core.store.reader import FeedbackReader
from rlhf_gym.core.store.records import StoredQuery
from rlhf_gym.core.store.rows import (
    add_label,
    add_query,
    provenance_number,
    rater_number,
    read_query,
    read_question,
)

_OPEN = """
    select q.id from queries q {joined}
    where q.answers < q.overlap
    and (:questions = '[]' or q.question in (select value from json_each(:questions)))
    and not exists (
        select 1 from labels l
        where l.rater_id = :rater and l.query_id = q.id and l.retracted is null)
    and q.answers + (
        select count(*) from claims o
        where o.query_id = q.id and o.rater_id <> :rater and o.until > :now) < q.overlap
    order by q.priority desc, q.id limit 1
"""
"""The next query for a rater, by the index of open queries."""


class FeedbackStore(FeedbackReader):
    """Queries, labels, raters and provenance in one SQLite file.

    Several raters and a training run use it at once, from any number of processes. When `answer`
    returns, the label survives `kill -9` and a power cut.

    ```
    with FeedbackStore("feedback.db") as store:
        store.add([Query((first, second))], provenance={"model": "runs/my/sft"})
        shown = store.next("anna")
        store.answer(shown.id, "anna", Ranking((1, 0)), seconds=4.2)
    ```

    Args:
        path: the file; made if it is not there.
        timeout: seconds to wait while another process writes.
        claim_seconds: how long a query that was shown to one rater is kept for them.

    Raises:
        InvalidStore: another program's file, a damaged one, or one from a newer version.
        StoreUnavailable: it cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 30.0,
        claim_seconds: float = 600.0,
    ) -> None:
        if not 0 <= claim_seconds < math.inf:
            raise InvalidArgument("claim_seconds", claim_seconds, "no time", "Give 0 or more")
        super().__init__(path, timeout=timeout)
        self.claim_seconds = claim_seconds

    # Queries ------------------------------------------------------------------------------------

    def add(
        self,
        queries: Sequence[Query],
        *,
        overlap: int = 1,
        priority: float = 0.0,
        gold: Sequence[Label | None] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Store queries; one that is there already is not stored again.

        Args:
            queries: what to ask.
            overlap: how many raters shall answer each; `EVERYONE` for all of them.
            priority: higher ones are asked first, equal ones in the order they came.
            gold: right answers, one (or None) per query, to see how good a rater is.
            provenance: where the queries come from; anything that JSON can hold.

        Returns:
            Numbers of the queries, in order; equal queries have the same.

        Raises:
            InvalidArgument: an overlap below 1, or gold of another length.
            InvalidData: a gold label that does not answer its query, or the same text twice in one.
        """
        if overlap < 1:
            raise InvalidArgument("overlap", overlap, "nobody would answer", "Give 1 or more")
        answers = [None] * len(queries) if gold is None else list(gold)
        if len(answers) != len(queries):
            raise InvalidArgument(
                "gold", len(answers), f"for {len(queries)} queries", "Give one per query"
            )
        for number, (query, answer) in enumerate(zip(queries, answers, strict=True)):
            _check_different(query, number)
            if answer is not None:
                check_label(query, answer)
        with self.connection.writing() as sqlite:
            origin = provenance_number(sqlite, provenance)
            return [
                add_query(sqlite, query, overlap, priority, answer, origin)
                for query, answer in zip(queries, answers, strict=True)
            ]

    def next(self, rater: str, *, questions: Sequence[str] = ()) -> StoredQuery | None:
        """A query for a rater, kept for them for a while; the same again until it is answered.

        Never one that they have answered, and none that enough others have answered or have in
        front of them.

        Args:
            rater: who asks; becomes known if new.
            questions: only queries of these kinds; all by default.

        Returns:
            None if there is nothing left for them.
        """
        now = time.time()
        with self.connection.writing() as sqlite:
            rater_id = rater_number(sqlite, rater)
            # What is in front of them already comes first; the rest in the order of the index.
            own = "join claims c on c.query_id = q.id and c.rater_id = :rater and c.until > :now"
            values = {"rater": rater_id, "now": now, "questions": json.dumps(list(questions))}
            row = (
                sqlite.execute(_OPEN.format(joined=own), values).fetchone()
                or sqlite.execute(_OPEN.format(joined=""), values).fetchone()
            )
            if row is None:
                return None
            sqlite.execute("delete from claims where until <= ?", (now,))
            sqlite.execute(
                "insert or replace into claims values (?, ?, ?)",
                (row["id"], rater_id, now + self.claim_seconds),
            )
            return read_query(sqlite, row["id"])

    # Labels -------------------------------------------------------------------------------------

    def answer(
        self,
        query_id: int,
        rater: str,
        label: Label,
        *,
        seconds: float | None = None,
        session: int | None = None,
        ticket: str | None = None,
    ) -> int:
        """Store a label; when this returns, it is on the disk.

        A label is taken even if enough others have answered meanwhile: what was given is kept.

        Args:
            query_id: number of the query.
            rater: who answers; becomes known if new.
            label: the answer.
            seconds: time taken.
            session: number of the session, see `begin_session`.
            ticket: the caller's own name for this request: sent again, it is not stored again.

        Returns:
            Number of the label.

        Raises:
            InvalidArgument: no such query or session.
            InvalidData: a label that does not answer the query, or a second one by this rater, who
                has to `retract` the first.
        """
        if seconds is not None and not 0 <= seconds < math.inf:
            raise InvalidArgument("seconds", seconds, "no duration", "Give 0 or more, or None")
        with self.connection.writing() as sqlite:
            known = sqlite.execute("select id from labels where ticket = ?", (ticket,)).fetchone()
            if known is not None:
                return int(known["id"])
            check_label(read_question(sqlite, query_id), label)
            rater_id = rater_number(sqlite, rater)
            self._check_unanswered(sqlite, query_id, rater_id, rater)
            try:
                number = add_label(
                    sqlite,
                    query_id,
                    rater_id,
                    label,
                    seconds=seconds,
                    session=session,
                    ticket=ticket,
                )
            except sqlite3.IntegrityError as error:
                raise InvalidArgument(
                    "session", session, "no such session", "Begin one with begin_session"
                ) from error
            sqlite.execute(
                "delete from claims where query_id = ? and rater_id = ?", (query_id, rater_id)
            )
            return number

    @staticmethod
    def _check_unanswered(
        sqlite: sqlite3.Connection, query_id: int, rater_id: int, rater: str
    ) -> None:
        given = sqlite.execute(
            "select id from labels where query_id = ? and rater_id = ? and retracted is null",
            (query_id, rater_id),
        ).fetchone()
        if given is not None:
            raise InvalidData(
                "rater",
                rater,
                f"has answered query {query_id} already, with label {given['id']}",
                "Retract that label first",
            )

    def retract(self, label_id: int, rater: str) -> StoredQuery:
        """Take a label back; its row stays, out of force, and the rater is asked again.

        Returns:
            The query, kept for the rater.

        Raises:
            InvalidArgument: no label of this number and rater is in force.
        """
        now = time.time()
        with self.connection.writing() as sqlite:
            rater_id = rater_number(sqlite, rater)
            row = sqlite.execute(
                """
                update labels set retracted = ?
                where id = ? and rater_id = ? and retracted is null returning query_id
                """,
                (now, label_id, rater_id),
            ).fetchone()
            if row is None:
                raise InvalidArgument(
                    "label_id", label_id, f"no label of {rater!r} in force", "Give one of theirs"
                )
            sqlite.execute(
                "insert or replace into claims values (?, ?, ?)",
                (row["query_id"], rater_id, now + self.claim_seconds),
            )
            return read_query(sqlite, row["query_id"])

    # Raters -------------------------------------------------------------------------------------

    def set_weight(self, rater: str, weight: float) -> None:
        """How much a rater's labels count: experts more, novices less, 0 not at all.

        Raises:
            InvalidArgument: a negative or infinite weight.
        """
        if not 0 <= weight < math.inf:
            raise InvalidArgument("weight", weight, "no weight", "Give a finite number, 0 or more")
        with self.connection.writing() as sqlite:
            rater_id = rater_number(sqlite, rater)
            sqlite.execute("update raters set weight = ? where id = ?", (weight, rater_id))

    def begin_session(self, rater: str, client: str = "") -> int:
        """Note that a rater sits down; the number goes with their labels.

        Args:
            rater: who.
            client: on what, such as the browser's name.
        """
        with self.connection.writing() as sqlite:
            cursor = sqlite.execute(
                "insert into sessions (rater_id, client, started) values (?, ?, ?)",
                (rater_number(sqlite, rater), client, time.time()),
            )
            return int(cursor.lastrowid or 0)

    def end_session(self, session: int) -> None:
        """Note that the rater has left."""
        with self.connection.writing() as sqlite:
            sqlite.execute("update sessions set ended = ? where id = ?", (time.time(), session))


def _check_different(query: Query, number: int) -> None:
    """Refuse to have a text compared with itself.

    Raises:
        InvalidData: the same text twice.
    """
    texts = [segment for segment in query.segments if isinstance(segment, TextSegment)]
    for place, segment in enumerate(texts):
        if segment in texts[:place]:
            raise InvalidData(
                f"queries[{number}]",
                segment.completion,
                "this text is in it twice",
                "Give each text once",
            )
