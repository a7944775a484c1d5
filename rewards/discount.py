"""The discount that a reward was made for, compared with the agent's before anything is learned."""

from __future__ import annotations

import math
import numbers

from rlhf_gym.core.errors import InvalidArgument


def check_gamma(required: float | None, gamma: float, remedy: str) -> None:
    """Refuse an agent whose discount is not the one that the reward needs.

    Potential-based shaping leaves the optimum where it is for its own discount only.

    Args:
        required: what the environment's `required_gamma` says; None if any will do.
        gamma: the agent's discount per step.
        remedy: what the user can do about it, a sentence without its full stop.

    Raises:
        InvalidArgument: they differ.

    Source: Ng, Harada and Russell (1999), theorem 1.
    """
    if required is not None and not math.isclose(required, gamma, rel_tol=0, abs_tol=1e-9):
        raise InvalidArgument(
            "gamma",
            gamma,
            f"the environment's reward is shaped for a discount of {required}, and with another "
            "one shaping moves the optimum",
            remedy,
        )


def check_discount(gamma: float) -> float:
    """The discount.

    Raises:
        InvalidArgument: it is outside 0 to 1.
    """
    if not isinstance(gamma, numbers.Real) or not 0 <= gamma <= 1:
        raise InvalidArgument("gamma", gamma, "not a discount", "Give 0 to 1")
    return float(gamma)
