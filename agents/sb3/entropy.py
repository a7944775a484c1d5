"""PPO whose entropy bonus may fall while it learns, as its learning rate may in SB3.

While a reward is still being learned, an agent has to go on trying everything: about what nobody
does nobody is asked. In the end it has to do what it has found best. One number does not serve
both. Nothing else is changed in the algorithms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from rlhf_gym.agents.sb3.falling_entropy import FallingEntropy as FallingEntropy

Schedule = Callable[[float], float]
"""Of the share of the training that is left: 1 at the start, 0 at the end."""


class _ScheduledEntropy(OnPolicyAlgorithm):
    """Takes a schedule for `ent_coef` too.

    Args:
        *args: of the algorithm.
        ent_coef: a number, or a function of the share of the training that is left.
        **kwargs: of the algorithm.
    """

    def __init__(self, *args: Any, ent_coef: float | Schedule = 0.0, **kwargs: Any) -> None:
        self.entropy_schedule = ent_coef if callable(ent_coef) else None
        kwargs["ent_coef"] = ent_coef(1.0) if callable(ent_coef) else ent_coef
        super().__init__(*args, **kwargs)

    def train(self) -> None:
        """One update of the algorithm, with the bonus that is due."""
        if self.entropy_schedule is not None:
            self.ent_coef = self.entropy_schedule(self._current_progress_remaining)
        super().train()


class ScheduledPPO(_ScheduledEntropy, PPO):
    """Stable-Baselines3's PPO."""


class ScheduledMaskablePPO(_ScheduledEntropy, MaskablePPO):
    """sb3-contrib's MaskablePPO."""
