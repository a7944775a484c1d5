"""How a reward ensemble is fitted. Light to import."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhf_gym.core.errors import InvalidArgument


@dataclass(frozen=True)
class FitConfig:
    """How a reward ensemble is fitted."""

    learning_rate: float = 1e-3
    """Of Adam."""
    epochs: int = 60
    """Passes over the comparisons at most."""
    patience: int = 8
    """Passes without a lower loss on its held-out comparisons after which a member is done."""
    batch_size: int = 64
    """Comparisons of an update."""
    noise: float = 0.1
    """Probability with which a rater is believed to answer at random."""
    l2: float = 1e-4
    """Weight of half the sum of squared parameters, at the start."""
    anew: bool = False
    """Fit new networks each time, not on from the last fit: networks that know their old answers
    by heart lose nothing by not learning the new ones (Ash and Adams 2020)."""
    overfit: tuple[float, float] = (1.1, 1.5)
    """The l2 penalty falls while held-out loss / training loss is below this band, and rises above;
    Christiano et al. (2017), section 2.2.3."""

    def __post_init__(self) -> None:
        low, high = self.overfit
        for field, fits, expected in (
            ("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0"),
            ("epochs", self.epochs >= 1, "1 or more"),
            ("patience", self.patience >= 1, "1 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("noise", 0 <= self.noise < 1, "a probability below 1"),
            ("l2", 0 <= self.l2 < math.inf, "0 or more"),
            ("overfit", 0 < low <= high < math.inf, "two ascending numbers above 0"),
        ):
            if not fits:
                raise InvalidArgument(
                    field, getattr(self, field), f"not {expected}", f"Give {expected}"
                )
