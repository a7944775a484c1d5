"""PPO whose entropy bonus may fall while it learns, as its learning rate may in SB3.

While a reward is still being learned, an agent has to go on trying everything: about what nobody
does nobody is asked. In the end it has to do what it has found best. One number does not serve
both. And what it gave up under an early reward it has to try again under a later one: the bonus
may rise and fall several times, each time with a new policy. Nothing else is changed in the
algorithms.

Source of a new policy under a reward that has changed: Nikishin et al. (2022), "The Primacy Bias in
Deep Reinforcement Learning", whose agents begin anew, parts of their networks or all, now and then.
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
        times: how often it falls, each time anew from the first bonus, in equal parts of the
            training; `begin` is then a share of a part. Each part begins with a new policy, that
            has no habits.
    """

    first: float
    last: float
    begin: float = 0.5
    times: int = 1

    def __post_init__(self) -> None:
        for field, fits, expected in (
            ("first", self.first > 0, "a number above 0"),
            ("last", 0 < self.last <= self.first, "above 0 and no more than the first"),
            ("begin", 0 <= self.begin < 1, "a share below 1"),
            ("times", self.times >= 1, "1 or more"),
        ):
            if not fits:
                raise InvalidArgument(
                    field, getattr(self, field), f"not {expected}", f"Give {expected}"
                )

    def __call__(self, left: float) -> float:
        """The bonus when this share of the training is left."""
        over = self.times * (1.0 - left) - self.part(left)
        fallen = min(max((over - self.begin) / (1.0 - self.begin), 0.0), 1.0)
        return float(self.first * (self.last / self.first) ** fallen)

    def part(self, left: float) -> int:
        """The part of the training, from 0, when this share of it is left."""
        # The end of the last part is not the start of another.
        return min(max(int(self.times * (1.0 - left)), 0), self.times - 1)


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
        self.part = 0
        super().__init__(*args, **kwargs)

    def train(self) -> None:
        """One update of the algorithm, with the bonus that is due; then perhaps a new policy."""
        left = self._current_progress_remaining
        if self.entropy_schedule is not None:
            self.ent_coef = self.entropy_schedule(left)
        super().train()
        if isinstance(self.entropy_schedule, FallingEntropy):
            part = self.entropy_schedule.part(left)
            if part > self.part:
                self.part = part
                self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget what was learned: a policy, and an optimizer, of another beginning."""
        sde = {"use_sde": True} if self.use_sde else {}  # masked policies do not know it
        fresh = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **sde, **self.policy_kwargs
        )
        self.policy.load_state_dict(fresh.state_dict())
        self.policy.optimizer.load_state_dict(fresh.optimizer.state_dict())


class ScheduledPPO(_ScheduledEntropy, PPO):
    """Stable-Baselines3's PPO."""


class ScheduledMaskablePPO(_ScheduledEntropy, MaskablePPO):
    """sb3-contrib's MaskablePPO."""
