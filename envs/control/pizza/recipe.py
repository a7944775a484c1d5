"""What every recipe says of a pizza in the making, as a potential to shape by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.envs.control.pizza.kitchen import CHEESE, MAX_PORTIONS, SAUCE
from rlhf_gym.envs.control.pizza.task import PORTIONS_SHOWN

KNEADED, FIRST_PORTION, COOKED = 0, 2, 12
"""Columns of an observation."""


def progress(observations: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far a pizza is: a point each for three kneads, three portions of sauce and of cheese.

    And two for a crust that is cooked through. It says nothing of toppings, nor of too much.

    Args:
        observations: of `rlhf_gym/Pizza-v0`, shape (n, 14).

    Returns:
        0 to 5 points, shape (n,).
    """
    seen = np.asarray(observations, dtype=np.float64)
    amounts = np.stack(
        [
            seen[:, KNEADED] * MAX_PORTIONS,
            seen[:, FIRST_PORTION + SAUCE] * PORTIONS_SHOWN,
            seen[:, FIRST_PORTION + CHEESE] * PORTIONS_SHOWN,
        ]
    )
    points: NDArray[np.float64] = np.minimum(amounts / 3.0, 1.0).sum(0) + 2.0 * seen[:, COOKED]
    return points
