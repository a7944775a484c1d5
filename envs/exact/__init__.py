"""`rlhf_gym/Exact-v0`: small enough that the optimum is known.

Names are imported when they are first used, so that registration stays free of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_gym.core.lazy import lazy_names

if TYPE_CHECKING:
    from rlhf_gym.envs.exact.ladder import LadderReward
    from rlhf_gym.envs.exact.task import ExactEnv, ExactVectorEnv

_MODULES = {"ExactEnv": "task", "ExactVectorEnv": "task", "LadderReward": "ladder"}

__all__ = ["ExactEnv", "ExactVectorEnv", "LadderReward"]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
