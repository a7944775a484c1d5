"""What comes out of a feedback store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rlhf_gym.core.feedback import Query
from rlhf_gym.core.labels import Label

EVERYONE = 2**31
"""An overlap for queries that every rater shall answer."""


class StoredQuery(NamedTuple):
    """A query with its place in the store.

    Attributes:
        id: number of the query.
        query: what is asked.
        overlap: how many raters shall answer it.
        answers: how many have, skips not counted.
        gold: the right answer, if it is known.
        provenance: where it comes from: model, sampling settings, experiment.
    """

    id: int
    query: Query
    overlap: int
    answers: int
    gold: Label | None
    provenance: Mapping[str, Any]


class Feedback(NamedTuple):
    """A label that is in force.

    Attributes:
        id: number of the label.
        query_id: number of the query.
        query: what was asked.
        label: the answer.
        rater: who gave it.
        weight: of the rater.
        seconds: time taken, if it was measured.
        created: seconds since 1970, UTC.
        gold: the right answer, if it is known.
        provenance: where the query comes from.
    """

    id: int
    query_id: int
    query: Query
    label: Label
    rater: str
    weight: float
    seconds: float | None
    created: float
    gold: Label | None
    provenance: Mapping[str, Any]


class Progress(NamedTuple):
    """How far the labelling is.

    Attributes:
        queries: in the store.
        answered: queries that as many raters have answered as shall.
        labels: in force, skips included.
        skips: of these.
        open: queries that the rater asked about, or anybody, may still be shown.
    """

    queries: int
    answered: int
    labels: int
    skips: int
    open: int
