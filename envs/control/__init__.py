"""Small tasks that are taught by comparisons: what is measured is not what is wanted.

A task is one `Dynamics`, the rules for any number of rows; `ControlVectorEnv` and `ControlEnv` make
it a vector environment and a single one. Names are imported when they are first used, so that
registration stays free of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_gym.core.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
