"""Small tasks that are taught by comparisons: what is measured is not what is wanted.

A task is one `Dynamics`, the rules for any number of rows; `ControlVectorEnv` and `ControlEnv` make
it a vector environment and a single one. Names are imported when they are first used, so that
registration stays free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_gym.envs.control.base import ControlEnv, ControlVectorEnv
    from rlhf_gym.envs.control.dynamics import Dynamics, Outcome, State
    from rlhf_gym.envs.control.random import Draws

_MODULES = {
    "ControlEnv": "base",
    "ControlVectorEnv": "base",
    "Draws": "random",
    "Dynamics": "dynamics",
    "Outcome": "dynamics",
    "State": "dynamics",
}

__all__ = ["ControlEnv", "ControlVectorEnv", "Draws", "Dynamics", "Outcome", "State"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"rlhf_gym.envs.control.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
