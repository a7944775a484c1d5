"""The parts of what a step of acting is paid; `step_sums` adds them up.

Such as `preferences + 0.5 * automated - time(0.01) + shaping(potential, gamma=0.99)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd

from rlhf_gym.core.errors import InvalidArgument, InvalidReward
from rlhf_gym.rewards.discount import check_discount
from rlhf_gym.rewards.learned import ControlSteps, Floats
from rlhf_gym.rewards.penalty import not_negative
from rlhf_gym.rewards.step_sums import StepPart, StepSum, StepTerm, as_part, parts_of


class Automated(StepTerm):
    """The task's own reward; its unit."""

    name = "automated"

    def pay(self, steps: ControlSteps, learned: Floats) -> Floats:
        """What is measured, shape (n,)."""
        return steps.automated


class Gold(StepTerm):
    """The judge's reward, or the task's own where there is no judge; its unit."""

    name = "gold"

    def pay(self, steps: ControlSteps, learned: Floats) -> Floats:
        """What the judge says, shape (n,)."""
        return steps.gold


class Preferences(StepTerm):
    """A reward learned from comparisons; unit: its own deviations a step.

    Source: Christiano et al. (2017), "Deep Reinforcement Learning from Human Preferences".
    """

    name = "preferences"
    reads_learned = is_learned = True

    def pay(self, steps: ControlSteps, learned: Floats) -> Floats:
        """What was learned so far, shape (n,)."""
        return learned


class StepFunction(StepTerm):
    """A plain Python function; its unit is yours.

    Args:
        function: of `ControlSteps`, one finite number for each step.
        name: in TensorBoard; the function's own by default.
    """

    def __init__(self, function: Callable[[ControlSteps], Any], name: str | None = None) -> None:
        self.function = function
        given: str = getattr(function, "__name__", type(function).__name__)
        self.name = name or given

    def pay(self, steps: ControlSteps, learned: Floats) -> Floats:
        """What the function says, shape (n,).

        Raises:
            InvalidReward: not one finite number for each step.
        """
        said = np.asarray(self.function(steps), dtype=np.float64)
        if said.shape != steps.automated.shape or not np.isfinite(said).all():
            count = len(steps.automated)
            raise InvalidReward(
                self.name, said, f"not {count} finite numbers", "Return one for each step"
            )
        return said


class TimePenalty(StepTerm):
    """A price for every step: subtract it.

    In episodes of one length it is a constant; where an agent decides how long they are, it hurries
    one that can reach a goal, and tempts one that cannot to give up.

    Args:
        coef: reward per step, 0 or more.
    """

    name = "time"
    is_price = True

    def __init__(self, coef: float) -> None:
        self.coef = not_negative("coef", coef)

    def pay(self, steps: ControlSteps, learned: Floats) -> Floats:
        """The same for each step, shape (n,)."""
        return np.full(len(steps.automated), self.coef)


class _Around(StepTerm):
    """A transformation of other terms.

    Args:
        inner: a term or a sum.
    """

    prefix = ""

    def __init__(self, inner: StepPart) -> None:
        self.inner = StepSum(parts_of(as_part(inner)))
        if self.inner.shapings:
            raise InvalidArgument(
                "shaping",
                self.prefix,
                "shaping that is transformed is no shaping any more",
                f"Write {self.prefix}(...) + shaping(...)",
            )
        self.inner.check_signs()
        self.reads_learned = self.inner.reads_learned
        self.name = f"{self.prefix}_{'_'.join(part.name for _, part in self.inner.parts)}"


class ClippedSteps(_Around):
    """Each step's reward, moved to the nearer end of a range where it is outside.

    Args:
        inner: a term or a sum.
        low: least reward of a step, in the reward's unit.
        high: largest.

    Raises:
        InvalidArgument: an empty range.

    Source: Mnih et al. (2015), "Human-level Control through Deep Reinforcement Learning".
    """

    prefix = "clipped"

    def __init__(self, inner: StepPart, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(inner)
        if not low < high:
            raise InvalidArgument("low", low, f"not below high={high}", "Give a range")
        self.low, self.high = float(low), float(high)

    def pay(self, steps: ControlSteps, learned: Floats) -> Floats:
        """clip(r, low, high), shape (n,)."""
        return np.clip(self.inner.pay(steps, learned), self.low, self.high)


class RunningScale(_Around):
    """Rewards divided by the deviation of discounted returns so far; unit: those deviations.

    The mean stays: a constant for each step would make episodes longer or shorter. What SB3's
    `VecNormalize` does to rewards, for a part of them; none is clipped.

    Args:
        inner: a term or a sum.
        gamma: the discount of the returns.

    Raises:
        InvalidArgument: a discount outside 0 to 1.

    Source: Engstrom et al. (2020), "Implementation Matters in Deep RL", section 3.
    """

    prefix = "running"

    def __init__(self, inner: StepPart, gamma: float = 0.99) -> None:
        super().__init__(inner)
        self.gamma = check_discount(gamma)
        self._moments = RunningMeanStd(shape=())
        self._returns: Floats = np.zeros(0)

    def pay(self, steps: ControlSteps, learned: Floats) -> Floats:
        """r / deviation, these steps' returns included, shape (n,)."""
        rewards = np.asarray(self.inner.pay(steps, learned), dtype=np.float64)
        if self._returns.shape != rewards.shape:
            self._returns = np.zeros_like(rewards)
        self._returns = self.gamma * self._returns + rewards
        self._moments.update(self._returns)
        self._returns = np.where(steps.ended, 0.0, self._returns)
        return rewards / math.sqrt(float(self._moments.var) + 1e-8)
