"""`rlhf_gym/Exact-v0`: small enough that the optimum is known.

Names are imported when they are first used, so that registration stays free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_gym.envs.exact.ladder import LadderReward
    from rlhf_gym.envs.exact.task import ExactEnv, ExactVectorEnv

_MODULES = {"ExactEnv": "task", "ExactVectorEnv": "task", "LadderReward": "ladder"}

__all__ = ["ExactEnv", "ExactVectorEnv", "LadderReward"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"rlhf_gym.envs.exact.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
