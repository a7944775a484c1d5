"""Policies with which stock Stable-Baselines3 and sb3-contrib algorithms train language models.

Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_gym.agents.sb3.cached_lm import CachedLM
    from rlhf_gym.agents.sb3.mask_buffer import PackedMaskBuffer
    from rlhf_gym.agents.sb3.policies import (
        LastTokenRecurrentPolicy,
        LMActorCriticPolicy,
        LMMaskableActorCriticPolicy,
        LMRecurrentActorCriticPolicy,
    )
    from rlhf_gym.agents.sb3.policy_kwargs import lm_policy_kwargs

_MODULES = {
    "CachedLM": "cached_lm",
    "LMActorCriticPolicy": "policies",
    "LMMaskableActorCriticPolicy": "policies",
    "LMRecurrentActorCriticPolicy": "policies",
    "LastTokenRecurrentPolicy": "policies",
    "PackedMaskBuffer": "mask_buffer",
    "lm_policy_kwargs": "policy_kwargs",
}

__all__ = [
    "CachedLM",
    "LMActorCriticPolicy",
    "LMMaskableActorCriticPolicy",
    "LMRecurrentActorCriticPolicy",
    "LastTokenRecurrentPolicy",
    "PackedMaskBuffer",
    "lm_policy_kwargs",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"rlhf_gym.agents.sb3.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
