"""Policies with which stock Stable-Baselines3 and sb3-contrib algorithms train language models.

Names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_gym.core.lazy import lazy_names

if TYPE_CHECKING:
    from rlhf_gym.agents.sb3.ars import LMARSPolicy, lm_ars_kwargs
    from rlhf_gym.agents.sb3.cached_lm import CachedLM
    from rlhf_gym.agents.sb3.mask_buffer import PackedMaskBuffer
    from rlhf_gym.agents.sb3.policies import (
        LastTokenRecurrentPolicy,
        LMActorCriticPolicy,
        LMMaskableActorCriticPolicy,
        LMRecurrentActorCriticPolicy,
    )
    from rlhf_gym.agents.sb3.policy_kwargs import lm_policy_kwargs
    from rlhf_gym.agents.sb3.q_networks import Epsilon
    from rlhf_gym.agents.sb3.q_policies import LMQPolicy, LMQuantilePolicy, lm_q_kwargs
    from rlhf_gym.agents.sb3.replay_buffer import TextReplayBuffer

_MODULES = {
    "CachedLM": "cached_lm",
    "Epsilon": "q_networks",
    "LMARSPolicy": "ars",
    "LMActorCriticPolicy": "policies",
    "LMMaskableActorCriticPolicy": "policies",
    "LMQPolicy": "q_policies",
    "LMQuantilePolicy": "q_policies",
    "LMRecurrentActorCriticPolicy": "policies",
    "LastTokenRecurrentPolicy": "policies",
    "PackedMaskBuffer": "mask_buffer",
    "TextReplayBuffer": "replay_buffer",
    "lm_ars_kwargs": "ars",
    "lm_policy_kwargs": "policy_kwargs",
    "lm_q_kwargs": "q_policies",
}

__all__ = [
    "CachedLM",
    "Epsilon",
    "LMARSPolicy",
    "LMActorCriticPolicy",
    "LMMaskableActorCriticPolicy",
    "LMQPolicy",
    "LMQuantilePolicy",
    "LMRecurrentActorCriticPolicy",
    "LastTokenRecurrentPolicy",
    "PackedMaskBuffer",
    "TextReplayBuffer",
    "lm_ars_kwargs",
    "lm_policy_kwargs",
    "lm_q_kwargs",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
