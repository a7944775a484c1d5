"""Labels for a round: by a labeler at once, or by people, who are waited for.

An answer is in the store before the next is asked for, under a ticket of its own: whatever is
killed, none is lost, and none is given twice.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rlhf_gym.core.errors import InvalidArgument, RLHFGymError
from rlhf_gym.core.feedback import Query
from rlhf_gym.core.labelers import MODEL, TEACHERS, Labeler, make_teacher, text_rewards
from rlhf_gym.core.store import FeedbackStore

HUMAN = "human"
LABELERS = (*TEACHERS, HUMAN, MODEL)
"""Everybody `--labeler` can name."""

CHUNK = 32
"""Queries given to a labeler at a time: a model's answers cost money, and are stored soon."""


class Waiting(NamedTuple):
    """What a round still lacks.

    Attributes:
        round: its number.
        asked: queries in it.
        answered: queries that as many people have answered as shall.
        labels: answers to them so far.
    """

    round: int
    asked: int
    answered: int
    labels: int


class LabelsMissing(RLHFGymError):
    """People have not answered everything yet, and nobody wants to wait."""


Watch = Callable[[Waiting], None]


def teacher(name: str, truth: Mapping[tuple[str, str], float], seed: int) -> Labeler:
    """A synthetic teacher who knows what each response is worth.

    Args:
        name: one of `TEACHERS`.
        truth: by prompt and completion.
        seed: of its mistakes.

    Raises:
        InvalidArgument: no such teacher.
    """
    rewards = text_rewards(lambda p, c: [truth[pair] for pair in zip(p, c, strict=True)])
    # A teacher's thresholds are meant for rewards whose typical size is 1.
    return make_teacher(name, rewards, seed=seed, scale=float(np.std(list(truth.values()))) or 1.0)


def label(
    store: FeedbackStore,
    ids: Sequence[int],
    labeler: Labeler,
    ticket: str,
    chunk: int | None = CHUNK,
) -> None:
    """Let a labeler answer what it has not answered yet.

    Args:
        store: holds the queries.
        ids: their numbers.
        labeler: whose name becomes the rater's.
        ticket: beginning of the name of each answer.
        chunk: answers are stored after so many queries. None asks about all of them again, answered
            or not: a synthetic teacher of the same seed then makes the same mistakes as before.
    """
    done = {given.query_id for given in store.feedback(raters=(labeler.name,))}
    left = [number for number in ids if number not in done]
    asked = left if chunk else list(ids) if left else []
    for start in range(0, len(asked), chunk or len(asked) or 1):
        part = asked[start : start + (chunk or len(asked))]
        queries: list[Query] = [store.query(number).query for number in part]
        for number, answer in zip(part, labeler.label(queries), strict=True):
            if number not in done:
                store.answer(number, labeler.name, answer, ticket=f"{ticket}/{number}")


def wait(
    store: FeedbackStore,
    ids: Sequence[int],
    round_number: int,
    *,
    overlap: int,
    poll: float,
    patient: bool,
    watch: Watch,
) -> None:
    """Come back when people have answered everything; a skip counts as an answer here.

    Args:
        store: holds the queries.
        ids: their numbers.
        round_number: for the message.
        overlap: how many people shall answer each.
        poll: seconds between looks into the store.
        patient: False raises at once what is missing.
        watch: told after each look at which something has changed.

    Raises:
        LabelsMissing: some are missing, and `patient` is False.
        InvalidArgument: no time between looks.
    """
    if poll <= 0:
        raise InvalidArgument("poll", poll, "no time between looks", "Give 2, for example")
    seen: Waiting | None = None
    while True:
        found = progress(store, ids, round_number, overlap)
        if found != seen:
            watch(found)
            seen = found
        if found.answered == found.asked:
            return
        if not patient:
            raise LabelsMissing(
                f"round {round_number}: {found.asked - found.answered} of {found.asked} queries "
                f"wait for an answer. Label them with `rlhf-gym label --store {store.path}`, then "
                "run the same command again"
            )
        time.sleep(poll)


def progress(store: FeedbackStore, ids: Sequence[int], round_number: int, overlap: int) -> Waiting:
    """How far people are with some queries."""
    wanted = set(ids)
    counts = Counter(g.query_id for g in store.feedback() if g.query_id in wanted)
    answered = sum(counts[number] >= overlap for number in wanted)
    return Waiting(round_number, len(wanted), answered, sum(counts.values()))
