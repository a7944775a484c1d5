"""How many labels to have asked for by when."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from rlhf_gym.core.errors import InvalidArgument

Rate = Literal["uniform", "hyperbolic", "decreasing", "increasing"]


@dataclass(frozen=True)
class LabelSchedule:
    """A share of the labels before training, the rest while it goes on.

    With x the share of the asking time that is over, labels are asked for at a rate of

    - uniform: 1
    - hyperbolic: h / (x + h), early labels matter most since the rest rests on them
    - decreasing: 1 - x
    - increasing: 1 + x

    Sources: Christiano et al. (2017), appendix A (a quarter at the beginning; hyperbolic, there
    with t + 2e6 or t + 5e6 steps in the denominator); Lee et al. (2021), B-Pref (increasing and
    decreasing schedules).
    """

    total: int = 700
    """Labels in all."""
    initial: float = 0.25
    """Share of them that is asked for before training."""
    rate: Rate = "hyperbolic"
    """How the rest is spread over training."""
    half: float = 0.25
    """h: when the hyperbolic rate is half of what it was at the start, as a share of the time."""
    until: float = 0.8
    """Share of the training after which nothing is asked any more; what is learned last should
    still be acted on."""

    def __post_init__(self) -> None:
        for field, fits, expected in (
            ("total", self.total >= 1, "1 or more"),
            ("initial", 0 <= self.initial <= 1, "a share from 0 to 1"),
            ("rate", self.rate in get_args(Rate), f"one of {', '.join(get_args(Rate))}"),
            ("half", 0 < self.half < math.inf, "a number above 0"),
            ("until", 0 < self.until <= 1, "a share above 0"),
        ):
            if not fits:
                raise InvalidArgument(
                    field, getattr(self, field), f"not {expected}", f"Give {expected}"
                )

    def due(self, progress: float) -> int:
        """Labels that should have been asked for, at least one.

        Args:
            progress: share of the training that is over; outside [0, 1] the nearer end counts.
        """
        x = min(max(progress / self.until, 0.0), 1.0)
        # Integral of the rate from 0 to x over that from 0 to 1.
        share = {
            "uniform": x,
            "hyperbolic": math.log1p(x / self.half) / math.log1p(1 / self.half),
            "decreasing": 2 * x - x**2,
            "increasing": (2 * x + x**2) / 3,
        }[self.rate]
        # A hair above, or 0.7 * 700 would be 489.99...
        wanted = self.total * (self.initial + (1 - self.initial) * share) + 1e-9
        return min(self.total, max(1, int(wanted)))
