"""An entropy bonus that falls while an agent learns; see `entropy`. Light to import."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_gym.core.errors import InvalidArgument


@dataclass(frozen=True)
class FallingEntropy:
    """One bonus at first; from some point on it falls, by equal factors in equal times.

    Attributes:
        first: entropy bonus at the start.
        last: at the end.
        begin: share of the training after which it begins to fall.
    """

    first: float
    last: float
    begin: float = 0.5

    def __post_init__(self) -> None:
        for field, fits, expected in (
            ("first", self.first > 0, "a number above 0"),
            ("last", 0 < self.last <= self.first, "above 0 and no more than the first"),
            ("begin", 0 <= self.begin < 1, "a share below 1"),
        ):
            if not fits:
                raise InvalidArgument(
                    field, getattr(self, field), f"not {expected}", f"Give {expected}"
                )

    def __call__(self, left: float) -> float:
        """The bonus when this share of the training is left."""
        fallen = min(max((1.0 - left - self.begin) / (1.0 - self.begin), 0.0), 1.0)
        return float(self.first * (self.last / self.first) ** fallen)
