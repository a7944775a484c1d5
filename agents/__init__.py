"""Algorithms and policies that speak Stable-Baselines3's interface.

Names are imported when they are first used: `import rlhf_gym.agents` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_gym.core.lazy import lazy_names

if TYPE_CHECKING:
    from rlhf_gym.agents.alarm import OveroptimisationAlarm
    from rlhf_gym.agents.callbacks import GammaCallback, SampleTableCallback, TextMetricsCallback
    from rlhf_gym.agents.checkpoint import CheckpointCallback
    from rlhf_gym.agents.lm_policy import LMPolicy
    from rlhf_gym.agents.minibatches import Minibatch
    from rlhf_gym.agents.ppo import PPO
    from rlhf_gym.agents.ppo_config import PPOConfig
    from rlhf_gym.agents.rebel import REBEL
    from rlhf_gym.agents.rebel_config import REBELConfig
    from rlhf_gym.agents.rloo import RLOO
    from rlhf_gym.agents.rloo_config import RLOOConfig
    from rlhf_gym.agents.rollout import RolloutBatch
    from rlhf_gym.agents.text_algorithm import TextAlgorithm

_MODULES = {
    "CheckpointCallback": "checkpoint",
    "GammaCallback": "callbacks",
    "LMPolicy": "lm_policy",
    "Minibatch": "minibatches",
    "OveroptimisationAlarm": "alarm",
    "PPO": "ppo",
    "PPOConfig": "ppo_config",
    "REBEL": "rebel",
    "REBELConfig": "rebel_config",
    "RLOO": "rloo",
    "RLOOConfig": "rloo_config",
    "RolloutBatch": "rollout",
    "SampleTableCallback": "callbacks",
    "TextAlgorithm": "text_algorithm",
    "TextMetricsCallback": "callbacks",
}

__all__ = [
    "PPO",
    "REBEL",
    "RLOO",
    "CheckpointCallback",
    "GammaCallback",
    "LMPolicy",
    "Minibatch",
    "OveroptimisationAlarm",
    "PPOConfig",
    "REBELConfig",
    "RLOOConfig",
    "RolloutBatch",
    "SampleTableCallback",
    "TextAlgorithm",
    "TextMetricsCallback",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
