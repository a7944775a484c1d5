"""What the labels say about the raters: agreement, gold questions, pull towards length."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.agreement import Scale, cohen_kappa, krippendorff_alpha
from rlhf_gym.core.calibration import Estimate, wilson_interval
from rlhf_gym.core.feedback import TextSegment
from rlhf_gym.core.labels import Best, Choice, Label, Likert, Ranking, Rating, Skip, Thumb
from rlhf_gym.core.store.records import Feedback

Floats = NDArray[np.float64]

_SCALES: dict[str, Scale] = {"likert": "ordinal", "rating": "interval"}
"""What differences between answers mean; nominal for all other questions."""


class Agreement(NamedTuple):
    """How far raters agree on one kind of question.

    Attributes:
        question: what was asked.
        labels: answers given, skips not counted.
        shared: queries that two raters or more have answered.
        alpha: Krippendorff's; NaN without shared queries, and where answers are texts or reviews.
        kappas: Cohen's, for every two raters who share queries, by their names.
    """

    question: str
    labels: int
    shared: int
    alpha: float
    kappas: dict[tuple[str, str], float]


class RaterSummary(NamedTuple):
    """One rater.

    Attributes:
        name: who.
        labels: in force, skips included.
        skips: of these.
        seconds: median time taken; NaN if it was never measured.
        agreement: share of other raters' answers to the same queries that are the same; None
            without any.
        gold: share of gold questions answered right; None without any.
    """

    name: str
    labels: int
    skips: int
    seconds: float
    agreement: Estimate | None
    gold: Estimate | None


class FeedbackReport(NamedTuple):
    """All of it.

    Attributes:
        agreements: by question.
        raters: in the order they came.
        longer_wins: share of comparisons of texts in which the longer one was preferred, those of
            equal length and ties left out; None without any.
    """

    agreements: list[Agreement]
    raters: list[RaterSummary]
    longer_wins: Estimate | None


def summarise(feedback: Sequence[Feedback]) -> FeedbackReport:
    """Report on labels.

    Args:
        feedback: what `FeedbackStore.feedback` gives.
    """
    by_question: dict[str, list[Feedback]] = defaultdict(list)
    by_rater: dict[str, list[Feedback]] = defaultdict(list)
    for given in feedback:
        by_question[given.query.question].append(given)
        by_rater[given.rater].append(given)
    same: dict[str, list[bool]] = defaultdict(list)
    by_query: dict[int, list[Feedback]] = defaultdict(list)
    for given in feedback:
        if answer_value(given.label) is not None:
            by_query[given.query_id].append(given)
    for answers in by_query.values():
        for one, other in combinations(answers, 2):
            if one.rater != other.rater:
                equal = answer_value(one.label) == answer_value(other.label)
                same[one.rater].append(equal)
                same[other.rater].append(equal)
    return FeedbackReport(
        [_agreement(question, given) for question, given in by_question.items()],
        [_rater(name, given, same[name]) for name, given in by_rater.items()],
        _longer_wins(feedback),
    )


def answer_value(label: Label) -> float | None:
    """A label as a number that is equal for equal answers; None where answers are texts or none.

    A pair is 1 if the first is better, 0 if the second, 0.5 for a tie; a longer ranking is the
    number of its permutation.
    """
    match label:
        case Ranking(tie=True):
            return 0.5
        case Ranking(order) if len(order) == 2:
            return float(order[0] == 0)
        case Ranking(order):
            # Above 1, out of the way of the tie's 0.5.
            return float(2 + sum(len(order) ** place * item for place, item in enumerate(order)))
        case Best(index) | Choice(index):
            return float(index)
        case Thumb(up):
            return float(up)
        case Likert(level):
            return float(level)
        case Rating(value):
            return float(value)
        case _:
            return None


def answer_table(feedback: Sequence[Feedback]) -> tuple[Floats, list[int], list[str]]:
    """Answers as numbers, NaN where a rater gave none.

    Args:
        feedback: of one kind of question; a rater's later answer to a query replaces an earlier.

    Returns:
        Shape (queries, raters); the queries' numbers; the raters' names.
    """
    numbered = [(g, answer_value(g.label)) for g in feedback]
    queries = list(dict.fromkeys(g.query_id for g, value in numbered if value is not None))
    raters = list(dict.fromkeys(g.rater for g, value in numbered if value is not None))
    row = {query: number for number, query in enumerate(queries)}
    column = {rater: number for number, rater in enumerate(raters)}
    table = np.full((len(queries), len(raters)), np.nan)
    for given, value in numbered:
        if value is not None:
            table[row[given.query_id], column[given.rater]] = value
    return table, queries, raters


def _agreement(question: str, feedback: Sequence[Feedback]) -> Agreement:
    table, _, raters = answer_table(feedback)
    given = ~np.isnan(table)
    # Texts and reviews are answers too, though there is no number for them.
    answered = {(g.query_id, g.rater) for g in feedback if not isinstance(g.label, Skip)}
    raters_by_query = Counter(query for query, _ in answered)
    kappas = {
        (raters[a], raters[b]): cohen_kappa(table[:, a], table[:, b])
        for a, b in combinations(range(len(raters)), 2)
        if (given[:, a] & given[:, b]).any()
    }
    return Agreement(
        question,
        len(answered),
        sum(count > 1 for count in raters_by_query.values()),
        krippendorff_alpha(table, _SCALES.get(question, "nominal")),
        kappas,
    )


def _rater(name: str, feedback: Sequence[Feedback], same: Sequence[bool]) -> RaterSummary:
    measured = [given.seconds for given in feedback if given.seconds is not None]
    right = [
        answer_value(given.label) == answer_value(given.gold)
        for given in feedback
        if given.gold is not None and not isinstance(given.label, Skip)
    ]
    return RaterSummary(
        name,
        len(feedback),
        sum(isinstance(given.label, Skip) for given in feedback),
        float(np.median(measured)) if measured else float("nan"),
        _share(same),
        _share(right),
    )


def _longer_wins(feedback: Sequence[Feedback]) -> Estimate | None:
    wins = []
    for given in feedback:
        texts = [s.completion for s in given.query.segments if isinstance(s, TextSegment)]
        if isinstance(given.label, Ranking) and not given.label.tie and texts:
            lengths = [len(texts[item]) for item in given.label.order]
            wins += [a > b for a, b in combinations(lengths, 2) if a != b]
    return _share(wins)


def _share(outcomes: Sequence[bool]) -> Estimate | None:
    if not outcomes:
        return None
    return wilson_interval(float(np.mean(outcomes)), len(outcomes))
