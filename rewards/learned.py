"""What an agent is paid in control: by a learned reward, a measured one, a judge, a supervisor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument, InvalidReward
from rlhf_gym.core.preferences.reward_net import RewardEnsemble

Floats = NDArray[np.floating]


class ControlSteps(NamedTuple):
    """One step in each of n environments.

    Attributes:
        observations: what was seen before it, and after it where the rule reads that, as
            `Encoding` keeps it, shape (n, ...).
        actions: what was done, as `Encoding` keeps it, shape (n, ...).
        automated: the reward of the task, what can be measured, shape (n,).
        gold: what the task's judge makes of it, shape (n,); the same where there is no judge.
        ended: whether the episode ended with it, shape (n,).
    """

    observations: NDArray[Any]
    actions: NDArray[Any]
    automated: Floats
    gold: Floats
    ended: NDArray[np.bool_]


class Payment(NamedTuple):
    """What n steps are paid.

    Attributes:
        learned: by the learned reward, 0 where there is none; changes when that learns, shape (n,).
        fixed: by everything else; stays, shape (n,).
    """

    learned: Floats
    fixed: Floats

    @property
    def reward(self) -> Floats:
        """What the agent gets, shape (n,)."""
        return self.learned + self.fixed


class PaymentRule(Protocol):
    """Pays for steps."""

    def __call__(self, steps: ControlSteps) -> Payment:
        """Pay for one step in each of n environments."""


Supervisor = Callable[[ControlSteps], Floats]
"""Reward (above 0) or punishment (below) on top, 0 where nothing is said, shape (n,)."""


class LearnedReward:
    """The mean of an ensemble, and on top what else the user wants paid.

        reward = learned + automated_weight * automated + supervisor's

    Args:
        ensemble: read as it is at each step: fitting it changes what is paid from then on.
        automated_weight: of the task's own reward.
        supervisor: who rewards or punishes single steps (as in TAMER, Knox and Stone 2009).

    Raises:
        InvalidArgument: a weight that is not finite.
    """

    def __init__(
        self,
        ensemble: RewardEnsemble,
        *,
        automated_weight: float = 0.0,
        supervisor: Supervisor | None = None,
    ) -> None:
        if not np.isfinite(automated_weight):
            raise InvalidArgument(
                "automated_weight", automated_weight, "not a finite number", "Give one, such as 0.5"
            )
        self.ensemble = ensemble
        self.automated_weight = automated_weight
        self.supervisor = supervisor

    def __call__(self, steps: ControlSteps) -> Payment:
        """Pay for one step in each of n environments.

        Raises:
            InvalidReward: the supervisor does not give one finite number per step.
        """
        fixed = self.automated_weight * steps.automated
        if self.supervisor is not None:
            fixed = fixed + _checked(self.supervisor(steps), len(steps.automated))
        return Payment(self.ensemble.rewards(steps.observations, steps.actions), fixed)


class GoldReward:
    """The judge's own reward: what learning from comparisons is measured against."""

    def __call__(self, steps: ControlSteps) -> Payment:
        """Pay what the judge says."""
        return Payment(np.zeros_like(steps.gold), steps.gold)


class AutomatedReward:
    """The task's own reward, as if nobody had taught anything."""

    def __call__(self, steps: ControlSteps) -> Payment:
        """Pay what is measured."""
        return Payment(np.zeros_like(steps.automated), steps.automated)


class OccasionalSupervisor:
    """Someone who now and then looks, and rewards or punishes the step that they see.

    Args:
        probability: that they look at a step.
        strength: of a reward; a punishment is its negative. The sign is that of the gold reward.
        seed: of its own generator.

    Raises:
        InvalidArgument: not a probability, or no strength.
    """

    def __init__(self, probability: float, strength: float = 1.0, *, seed: int = 0) -> None:
        if not 0 <= probability <= 1:
            raise InvalidArgument(
                "probability", probability, "not a probability", "Give a number from 0 to 1"
            )
        if not 0 < strength < np.inf:
            raise InvalidArgument("strength", strength, "not a number above 0", "Give such as 1")
        self.probability = probability
        self.strength = strength
        self._rng = np.random.default_rng(seed)

    def __call__(self, steps: ControlSteps) -> Floats:
        """Reward or punishment of each step, shape (n,)."""
        looks = self._rng.random(len(steps.gold)) < self.probability
        said: Floats = np.where(looks, self.strength * np.sign(steps.gold), 0.0)
        return said

    def state_dict(self) -> dict[str, Any]:
        """State of the generator, for an exact resume."""
        return {"generator": self._rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._rng.bit_generator.state = state["generator"]


def _checked(said: Any, count: int) -> Floats:
    amounts = np.asarray(said, dtype=np.float64)
    if amounts.shape != (count,) or not np.isfinite(amounts).all():
        raise InvalidReward(
            "supervisor", said, f"not {count} finite numbers", "Return one per step, 0 for silence"
        )
    return amounts
