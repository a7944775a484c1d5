"""What happens to a pizza: dough, portions, the oven. No opinion about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.envs.control.dynamics import State
from rlhf_gym.envs.control.random import BoolArray, Draws, FloatArray, IntArray

INGREDIENTS = ("sauce", "cheese", "mushrooms", "olives", "salami", "chilli", "basil")
SAUCE, CHEESE, MUSHROOMS, OLIVES, SALAMI, CHILLI, BASIL = range(7)
"""Columns of `Pizza.portions`."""
MOVES = ("knead", "roll", *INGREDIENTS, "heat", "bake")
KNEAD, ROLL, HEAT, BAKE = 0, 1, 9, 10
LAY = slice(2, 9)
"""Columns of an amount matrix, shape (n, 11): how much of each move a step makes."""
ACTIONS = ("wait", "knead", "roll", *INGREDIENTS, "hotter", "cooler", "bake")
"""The discrete actions: one move each, or none."""

MAX_PORTIONS = 10.0
THINNEST, THICKEST = 0.3, 2.4
"""Crust, cm."""
ROLLED_OFF = 0.3
"""What one roll takes off the crust, cm."""
COOLEST, HOTTEST = 150.0, 330.0
"""Oven, degrees Celsius."""
TURN = 30.0
"""Degrees that one turn of the knob makes."""
SPILL = 0.08
"""Standard deviation of a portion, as a share of it."""
BROWN = 0.3
"""From this browning on the pizza counts as baked: what is laid on it now stays raw."""


@dataclass
class Pizza(State):
    """Pizzas in the making, n rows.

    Args:
        kneaded: how often the dough was kneaded, shape (n,).
        thickness: of the crust, cm, shape (n,).
        portions: of each ingredient, shape (n, 7).
        wilted: portions of basil that have been in the oven, shape (n,).
        temperature: of the oven, degrees Celsius, shape (n,).
        browning: 0 is white, 0.6 golden, above 0.8 black edges; shape (n,).
        cooked: 0 is raw dough, 1 cooked through; shape (n,).
        faults: gold lost for good by doing things in the wrong order, shape (n,).
        steps: taken, shape (n,).
        measured: what the scales say so far, shape (n,); its growth is the automated reward.
        delicious: what the person says so far, shape (n,); its growth is the gold reward.
    """

    kneaded: FloatArray
    thickness: FloatArray
    portions: FloatArray
    wilted: FloatArray
    temperature: FloatArray
    browning: FloatArray
    cooked: FloatArray
    faults: FloatArray
    steps: IntArray
    measured: FloatArray
    delicious: FloatArray


def new_pizza(draws: Draws) -> Pizza:
    """A lump of dough, pressed flat more or less, and an oven that is warm more or less."""
    zeros = np.zeros((8, draws.count))
    return Pizza(
        kneaded=zeros[0],
        thickness=draws.uniform(1.6, THICKEST),
        portions=np.zeros((draws.count, len(INGREDIENTS))),
        wilted=zeros[1],
        temperature=draws.uniform(180.0, 240.0),
        browning=zeros[2],
        cooked=zeros[3],
        faults=zeros[4],
        steps=np.zeros(draws.count, dtype=np.int64),
        measured=zeros[5],
        delicious=zeros[6],
    )


def amounts_of_discrete(actions: IntArray) -> FloatArray:
    """One whole move per action, shape (n, 11)."""
    return np.asarray(_TABLE[actions])


def amounts_of_continuous(actions: NDArray[np.float32]) -> FloatArray:
    """Positive numbers are amounts; only the knob can be turned back."""
    amounts = actions.astype(np.float64)
    amounts[:, :HEAT] = np.maximum(amounts[:, :HEAT], 0.0)
    amounts[:, BAKE] = np.maximum(amounts[:, BAKE], 0.0)
    return amounts


def work(pizza: Pizza, amounts: FloatArray, draws: Draws) -> None:
    """Do one step's work, in the order of `MOVES`; changes `pizza` in place.

    Args:
        pizza: n rows.
        amounts: of each move, shape (n, 11).
        draws: for the same rows.
    """
    spilt = np.maximum(1.0 + SPILL * draws.normal(shape=(len(INGREDIENTS) + 1,)), 0.0)
    laid = amounts[:, LAY] * spilt[:, :-1]
    _note_faults(pizza, amounts, laid)
    pizza.kneaded = np.minimum(pizza.kneaded + amounts[:, KNEAD], MAX_PORTIONS)
    pizza.thickness = np.maximum(pizza.thickness - ROLLED_OFF * amounts[:, ROLL], THINNEST)
    pizza.portions = np.minimum(pizza.portions + laid, MAX_PORTIONS)
    pizza.temperature = np.clip(pizza.temperature + TURN * amounts[:, HEAT], COOLEST, HOTTEST)
    _bake(pizza, amounts[:, BAKE] * spilt[:, -1])
    pizza.steps += 1


def is_dressed(pizza: Pizza) -> BoolArray:
    """Whether something lies on the dough, shape (n,)."""
    return np.asarray(pizza.portions.sum(axis=-1) > 0.05)


def _note_faults(pizza: Pizza, amounts: FloatArray, laid: FloatArray) -> None:
    """What no later step can make good; per portion or move."""
    dressed, baked = is_dressed(pizza), pizza.browning > BROWN
    sauce_over_cheese = laid[:, SAUCE] * (pizza.portions[:, CHEESE] > 0.05)
    on_dressed = (amounts[:, KNEAD] + amounts[:, ROLL]) * dressed
    stays_raw = laid[:, :BASIL].sum(axis=-1) * baked
    pizza.faults = pizza.faults + 0.25 * sauce_over_cheese + 0.4 * on_dressed + 0.25 * stays_raw


def _bake(pizza: Pizza, minutes: FloatArray) -> None:
    """Let the oven work for some minutes, shape (n,).

    Browning follows the third power of the heat, cooking the first, and a thick crust cooks
    slowly: so a thin one wants it hot and short, a thick one mild and long.
    """
    heat = (pizza.temperature - 120.0) / 180.0  # 1 at 300 degrees
    pizza.browning = np.minimum(pizza.browning + 0.2 * minutes * heat * heat * heat, 1.5)
    pizza.cooked = np.minimum(pizza.cooked + 0.4 * minutes * heat / (0.4 + pizza.thickness), 1.0)
    pizza.wilted = np.where(minutes > 0.05, pizza.portions[:, BASIL], pizza.wilted)


def _table() -> FloatArray:
    table = np.zeros((len(ACTIONS), len(MOVES)))
    for row, action in enumerate(ACTIONS):
        if action in MOVES:
            table[row, MOVES.index(action)] = 1.0
    table[ACTIONS.index("hotter"), HEAT] = 1.0
    table[ACTIONS.index("cooler"), HEAT] = -1.0
    return table


_TABLE = _table()
