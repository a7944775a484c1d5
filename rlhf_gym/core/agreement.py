"""How far raters agree beyond chance; pure functions of arrays."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_gym.core.errors import InvalidArgument

Floats = NDArray[np.float64]
Scale = Literal["nominal", "ordinal", "interval"]
"""What differences between answers mean: any two as bad as any other, their rank, their size."""


def krippendorff_alpha(answers: ArrayLike, scale: Scale = "nominal") -> float:
    """Agreement of any number of raters who need not all have answered everything.

        alpha = 1 - observed disagreement / disagreement expected by chance

    1 is perfect agreement, 0 chance, below 0 systematic disagreement.

    Args:
        answers: NaN where a rater did not answer, shape (queries, raters).
        scale: how far apart two answers are.

    Returns:
        NaN if no query has two answers; 1 if all answers to such queries are the same.

    Raises:
        InvalidArgument: answers that are no table, or an unknown scale.

    Source: Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", sections D and E.
    """
    table = np.asarray(answers, dtype=np.float64)
    if table.ndim != 2:
        raise InvalidArgument(
            "answers", table.shape, "not a table", "Give one row per query, one column per rater"
        )
    given = ~np.isnan(table)
    paired = given.sum(1) > 1
    if not paired.any():
        return float("nan")
    values = np.unique(table[paired][given[paired]])
    # How often each value was given to each query, shape (queries, values).
    counts = (table[paired][:, :, None] == values).sum(1).astype(np.float64)
    raters = counts.sum(1)
    # Every query's ordered pairs of answers, weighted so that each answer counts once.
    pairs = (counts / (raters - 1)[:, None]).T @ counts
    pairs -= np.diag((counts / (raters - 1)[:, None]).sum(0))
    totals = pairs.sum(1)
    distance = _distances(values, totals, scale)
    expected = float(totals @ distance @ totals) / (totals.sum() - 1)
    return 1.0 if expected == 0 else 1.0 - float((pairs * distance).sum()) / expected


def cohen_kappa(first: ArrayLike, second: ArrayLike) -> float:
    """Agreement of two raters, beyond what their habits alone would give.

        kappa = (observed - expected) / (1 - expected)

    Args:
        first: answers of one, NaN where there is none, shape (queries,).
        second: answers of the other to the same queries, shape (queries,).

    Returns:
        NaN if they have no query in common; 1 if both always gave the same one answer.

    Raises:
        InvalidArgument: different numbers of queries.

    Source: Cohen (1960), "A Coefficient of Agreement for Nominal Scales".
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise InvalidArgument(
            "second", b.shape, f"the first rater has {a.shape}", "Give answers to the same queries"
        )
    both = ~(np.isnan(a) | np.isnan(b))
    if not both.any():
        return float("nan")
    a, b = a[both], b[both]
    values = np.union1d(a, b)
    observed = float((a == b).mean())
    shares = [(answers[:, None] == values).mean(0) for answers in (a, b)]
    expected = float(shares[0] @ shares[1])
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)


def _distances(values: Floats, totals: Floats, scale: Scale) -> Floats:
    """Squared distances between values, shape (values, values)."""
    if scale == "nominal":
        return 1.0 - np.eye(len(values))
    if scale == "interval":
        return np.subtract.outer(values, values) ** 2
    if scale == "ordinal":
        # Answers in between, and half of those at the two ends.
        middle = totals.cumsum() - totals / 2
        return np.subtract.outer(middle, middle) ** 2
    raise InvalidArgument(
        "scale", scale, "no such scale", "Choose one of nominal, ordinal, interval"
    )
