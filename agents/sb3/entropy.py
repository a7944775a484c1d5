"""PPO whose entropy bonus may fall while it learns, as its learning rate may in SB3.

While a reward is still being learned, an agent has to go on trying everything: about what nobody
does nobody is asked. In the end it has to do what it has found best. One number does not serve
both. Nothing else is changed in the algorithms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from rlhf_gym.core.errors import InvalidArgument

Schedule = Callable[[float], float]
"""Of the share of the training that is left: 1 at the start, 0 at the end."""


@dataclass(frozen=True)
class FallingEntropy:
    """One bonus at first; from some point on it falls, by equal factors in equal times.

    Attributes:
        first: entropy bonus at the start.
        last: at the end.
        begin: share of the training after which it begins to fall.
    """

    first: float
    last: float
    begin: float = 0.5

    def __post_init__(self) -> None:
        for field, fits, expected in (
            ("first", self.first > 0, "a number above 0"),
            ("last", 0 < self.last <= self.first, "above 0 and no more than the first"),
            ("begin", 0 <= self.begin < 1, "a share below 1"),
        ):
            if not fits:
                raise InvalidArgument(
                    field, getattr(self, field), f"not {expected}", f"Give {expected}"
                )

    def __call__(self, left: float) -> float:
        """The bonus when this share of the training is left."""
        fallen = min(max((1.0 - left - self.begin) / (1.0 - self.begin), 0.0), 1.0)
        return float(self.first * (self.last / self.first) ** fallen)


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
