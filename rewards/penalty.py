"""What penalties share: a cost of 0 or more that is subtracted, and never added by mistake."""

from __future__ import annotations

import math
import numbers

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.rewards.base import ScoreTerm, SignedTerm


class Penalty(SignedTerm):
    """A cost of 0 or more: subtract it.

        reward = score - LengthPenalty(0.01)

    Args:
        coef: reward per unit of what is penalised, 0 or more; the unit is the subclass's.
        name: tag of the term.

    Raises:
        InvalidArgument: a coefficient below 0, or not finite.
    """

    def __init__(self, coef: float, name: str) -> None:
        self.coef = not_negative("coef", coef)
        self.name = name

    def check_weight(self, weight: float) -> None:
        """Refuse a penalty that was added."""
        if weight > 0:
            raise InvalidArgument(
                self.name,
                weight,
                f"{type(self).__name__} is a cost, and added it would pay for what it penalises",
                f"Subtract it: reward - {type(self).__name__}(...)",
            )


class ScorePenalty(Penalty, ScoreTerm):
    """A penalty on the whole response, paid with its last token."""


def not_negative(field: str, value: float) -> float:
    """The number, if it is finite and 0 or more.

    Raises:
        InvalidArgument: it is not.
    """
    if not isinstance(value, numbers.Real) or not math.isfinite(value) or value < 0:
        raise InvalidArgument(field, value, "not a finite number of 0 or more", "Give 0 or more")
    return float(value)


def at_least(field: str, value: int, least: int) -> int:
    """The whole number, if it is large enough.

    Raises:
        InvalidArgument: it is not, or no whole number.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidArgument(
            field, value, f"not a whole number of {least} or more", f"Give {least} or more"
        )
    return value
