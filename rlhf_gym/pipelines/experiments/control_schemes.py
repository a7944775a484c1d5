"""Reward schemes where the task is to act: who pays, and in which mixture."""

from __future__ import annotations

import ast
from typing import NamedTuple

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.rewards.schemes import Preset

CONTROL_PRESETS = {
    "gold": Preset("gold", "no", "what the judge says, step by step"),
    "automated": Preset("automated", "yes", "what the task itself measures"),
    "preferences": Preset("preferences", "yes", "learned from comparisons"),
    "mixture": Preset("preferences + 0.5 * automated", "yes", "half of what is measured on top"),
}


class ControlScheme(NamedTuple):
    """Who pays.

    Attributes:
        source: of the reward: gold, automated or preferences.
        automated_weight: of what is measured, beside a learned reward.
    """

    source: str
    automated_weight: float = 0.0


def control_scheme(expression: str) -> ControlScheme:
    """What `gold`, `automated`, `preferences` or `preferences + 0.5 * automated` means.

    Raises:
        InvalidArgument: anything else.
    """
    if expression in ("gold", "automated", "preferences"):
        return ControlScheme(expression)
    try:
        node = ast.parse(expression, mode="eval").body
    except SyntaxError:
        node = None
    match node:
        case ast.BinOp(
            left=ast.Name(id="preferences"),
            op=ast.Add(),
            right=ast.BinOp(
                left=ast.Constant(value=float() | int() as weight),
                op=ast.Mult(),
                right=ast.Name(id="automated"),
            ),
        ):
            return ControlScheme("preferences", float(weight))
    raise InvalidArgument(
        "schemes",
        expression,
        "no scheme for a task of acting",
        "Choose gold, automated, preferences or preferences + 0.5 * automated",
    )
