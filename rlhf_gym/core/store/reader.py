"""The reading half of the feedback store: queries, labels in force, raters, progress."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rlhf_gym.core.store.connection import Connection
from rlhf_gym.core.store.content import label_from_json
from rlhf_gym.core.store.records import Feedback, Progress, StoredQuery
from rlhf_gym.core.store.rows import read_query


class FeedbackReader:
    """What can be asked of a store without changing it; `FeedbackStore` is one that can be changed.

    Args:
        path: the file; made if it is not there.
        timeout: seconds to wait while another process writes.

    Raises:
        InvalidStore: another program's file, a damaged one, or one from a newer version.
        StoreUnavailable: it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 30.0) -> None:
        self.path = Path(path)
        self.connection = Connection(self.path, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def query(self, query_id: int) -> StoredQuery:
        """One query.

        Raises:
            InvalidArgument: no such number.
        """
        with self.connection.reading() as sqlite:
            return read_query(sqlite, query_id)

    def feedback(
        self, *, questions: Sequence[str] = (), raters: Sequence[str] = (), after: int = 0
    ) -> list[Feedback]:
        """The labels in force, in the order they came.

        Args:
            questions: only these kinds of queries; all by default.
            raters: only these raters; all by default.
            after: only labels with a greater number.
        """
        with self.connection.reading() as sqlite:
            rows = sqlite.execute(
                """
                select l.id, l.query_id, l.kind, l.answer, l.seconds, l.created, r.name, r.weight
                from labels l join raters r on r.id = l.rater_id join queries q on q.id = l.query_id
                where l.retracted is null and l.id > :after
                and (:questions = '[]'
                     or q.question in (select value from json_each(:questions)))
                and (:raters = '[]' or r.name in (select value from json_each(:raters)))
                order by l.id
                """,
                {
                    "after": after,
                    "questions": json.dumps(list(questions)),
                    "raters": json.dumps(list(raters)),
                },
            ).fetchall()
            queries = {
                number: read_query(sqlite, number) for number in {r["query_id"] for r in rows}
            }
        return [
            Feedback(
                row["id"],
                row["query_id"],
                queries[row["query_id"]].query,
                label_from_json(row["kind"], row["answer"]),
                row["name"],
                row["weight"],
                row["seconds"],
                row["created"],
                queries[row["query_id"]].gold,
                queries[row["query_id"]].provenance,
            )
            for row in rows
        ]

    def raters(self) -> dict[str, float]:
        """Everyone known, and their weight."""
        with self.connection.reading() as sqlite:
            rows = sqlite.execute("select name, weight from raters order by id").fetchall()
        return {row["name"]: row["weight"] for row in rows}

    def progress(self, rater: str | None = None) -> Progress:
        """How far everyone is, or one rater.

        Args:
            rater: count this one's labels, and what is left for them.
        """
        with self.connection.reading() as sqlite:
            queries, answered = sqlite.execute(
                "select count(*), count(*) filter (where answers >= overlap) from queries"
            ).fetchone()
            labels, skips = sqlite.execute(
                """
                select count(*), count(*) filter (where kind = 'skip')
                from labels l join raters r on r.id = l.rater_id
                where retracted is null and (:rater is null or r.name = :rater)
                """,
                {"rater": rater},
            ).fetchone()
            (left,) = sqlite.execute(
                """
                select count(*) from queries q where answers < overlap and not exists (
                    select 1 from labels l join raters r on r.id = l.rater_id
                    where l.query_id = q.id and l.retracted is null and r.name = ?)
                """,
                (rater,),
            ).fetchone()
        return Progress(queries, answered, labels, skips, left)
