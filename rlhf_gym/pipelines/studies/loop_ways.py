"""Three ways to spend the same labels."""

from __future__ import annotations

from dataclasses import dataclass

ROUNDS = 3


@dataclass(frozen=True)
class Way:
    """One way to spend the labels.

    Attributes:
        name: of the row.
        rounds: how often they are asked for.
        selection: which pairs.
    """

    name: str
    rounds: int
    selection: str

    @property
    def slug(self) -> str:
        """The name, for files."""
        return self.name.replace(", ", "-").replace(" ", "-")


DISPUTED = Way("rounds, disagreement", ROUNDS, "disagreement")
UNIFORM = Way("rounds, uniform", ROUNDS, "uniform")
AT_ONCE = Way("at the start", 1, "uniform")
WAYS = (DISPUTED, UNIFORM, AT_ONCE)
