"""How delicious a pizza is, to whom; and what the scales of the machine say."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rlhf_gym.envs.control.pizza.kitchen import (
    BASIL,
    CHEESE,
    CHILLI,
    INGREDIENTS,
    MUSHROOMS,
    OLIVES,
    SALAMI,
    SAUCE,
    Pizza,
)
from rlhf_gym.envs.control.random import FloatArray

MEASURED_THICKNESS = 1.2
"""The crust, cm, that the machine's specification asks for."""
MEASURED_PORTIONS = 6.0
"""How many portions of sauce and of cheese the machine still counts as more for the customer."""


@dataclass(frozen=True)
class Taste:
    """What a person likes; points of deliciousness.

    Args:
        thickness: of the crust, cm.
        sauce: portions.
        cheese: portions.
        browning: 0.6 is golden.
        likes: points for a good helping of each topping, in the order of `INGREDIENTS` from
            mushrooms on; negative for what is disliked.
        pairs: two toppings that are better (or worse) together -> points.
    """

    thickness: float
    sauce: float
    cheese: float
    browning: float
    likes: tuple[float, float, float, float, float]
    pairs: dict[tuple[int, int], float] = field(default_factory=dict)


TASTES = {
    "classic": Taste(
        0.8, 3, 3, 0.6, (0.8, 0.3, 0.6, -0.4, 0.6),
        {(MUSHROOMS, SALAMI): 0.6, (OLIVES, SALAMI): -0.3},
    ),
    "neapolitan": Taste(
        0.5, 3, 2, 0.68, (-0.2, 0.2, -0.4, -0.2, 1.6), {(OLIVES, BASIL): 0.4}
    ),
    "chicago": Taste(
        1.5, 4, 5, 0.5, (0.7, -0.3, 1.4, 0.3, 0.0), {(MUSHROOMS, SALAMI): 0.8}
    ),
    "spicy": Taste(
        0.8, 3, 2, 0.65, (-0.2, 0.4, 0.9, 1.2, -0.2), {(SALAMI, CHILLI): 0.8}
    ),
    "vegetarian": Taste(
        0.8, 3, 3, 0.6, (0.9, 0.7, -3.0, 0.3, 0.7), {(MUSHROOMS, OLIVES): 0.4}
    ),
}  # fmt: skip
"""Name -> taste; two of them are regions'."""


def measured(pizza: Pizza) -> FloatArray:
    """What the machine can see, in points: crust thickness, sauce and cheese; shape (n,)."""
    crust = 2.0 * _bump(pizza.thickness - MEASURED_THICKNESS, 0.4)
    weighed = np.minimum(pizza.portions[:, : CHEESE + 1], MEASURED_PORTIONS).sum(axis=-1)
    return np.asarray(crust + 0.5 * weighed)


def deliciousness(pizza: Pizza, taste: Taste) -> FloatArray:
    """What the person makes of it, in points: about 10 for the best pizza; shape (n,)."""
    dough = _bump(pizza.kneaded - 3.0, 1.5) + 1.5 * _bump(pizza.thickness - taste.thickness, 0.5)
    return np.asarray(
        dough + _balance(pizza, taste) + _toppings(pizza, taste) + _baking(pizza, taste)
        - pizza.faults
    )  # fmt: skip


def _balance(pizza: Pizza, taste: Taste) -> FloatArray:
    """Sauce and cheese: each in its measure, both together, never a swamp."""
    sauce, cheese = pizza.portions[:, SAUCE], pizza.portions[:, CHEESE]
    sauced, cheesy = _bump(sauce - taste.sauce, 1.5), _bump(cheese - taste.cheese, 1.5)
    swamp = np.maximum(sauce - taste.sauce - 1.5, 0.0) + np.maximum(cheese - taste.cheese - 1.5, 0)
    return np.asarray(0.75 * sauced + 0.75 * cheesy + sauced * cheesy - 0.25 * swamp)


def _toppings(pizza: Pizza, taste: Taste) -> FloatArray:
    """The first portion says most; basil is nothing once it has wilted; too much is too much."""
    helpings = pizza.portions[:, MUSHROOMS:].copy()
    helpings[:, BASIL - MUSHROOMS] -= pizza.wilted
    enough = 1.0 - np.exp(-helpings / 0.6)
    points = (enough * taste.likes).sum(axis=-1)
    for (one, other), together in taste.pairs.items():
        points += together * enough[:, one - MUSHROOMS] * enough[:, other - MUSHROOMS]
    crowd = np.maximum(pizza.portions[:, MUSHROOMS:].sum(axis=-1) - 4.5, 0.0)
    return np.asarray(points - 0.3 * crowd)


def _baking(pizza: Pizza, taste: Taste) -> FloatArray:
    """Cooked through, golden, and no burnt edges."""
    golden = _bump(pizza.browning - taste.browning, 0.25) * pizza.cooked
    return np.asarray(pizza.cooked + 2.0 * golden - 3.0 * np.maximum(pizza.browning - 0.8, 0.0))


def _bump(distance: FloatArray, width: float) -> FloatArray:
    """1 at no distance, exp(-1) at one width."""
    return np.asarray(np.exp(-np.square(distance / width)))


assert all(len(taste.likes) == len(INGREDIENTS) - MUSHROOMS for taste in TASTES.values())
