"""What quantities are called in pictures and tables, and which of them decides."""

from collections.abc import Collection, Mapping

TITLES: Mapping[str, str] = {
    "share": "share of the way to the optimum",
    "gold": "gold score",
    "score": "score, as the scheme pays it",
    "kl": "KL to the reference, nats",
    "length": "response length, tokens",
    "entropy": "entropy, nats per token",
    "automated": "the task's own return",
}
"""Curves, in the order in which they are shown."""

UNITS: Mapping[str, str] = {
    "share": "share of the way",
    "gold": "gold",
    "kl": "KL, nats",
    "length": "length, tokens",
    "gold_return": "gold return",
    "automated_return": "own return",
}
"""Columns of the report."""

HEADLINES = ("share", "gold", "gold_return")
"""By which metric schemes are compared: the first of these that there is."""


def in_order(metrics: Collection[str]) -> list[str]:
    """Metrics as people want to read them: what decides first, then the rest by name."""
    return sorted(metrics, key=lambda name: (name not in UNITS, [*UNITS, name].index(name), name))
