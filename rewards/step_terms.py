"""What a step of acting is paid, as named terms that add, subtract and scale.

Such as `preferences + 0.5 * automated - time(0.01) + shaping(potential, gamma=0.99)`.
Terms for responses, which are judged as a whole, are in `base`.
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd

from rlhf_gym.core.errors import InvalidArgument, InvalidReward
from rlhf_gym.rewards.discount import check_discount
from rlhf_gym.rewards.learned import ControlSteps, Floats
from rlhf_gym.rewards.penalty import not_negative

SB3_GAMMA = 0.99
"""The discount of Stable-Baselines3's agents unless they are told another."""


class StepPart(ABC):
    """One part of a sum.

    Attributes:
        name: in TensorBoard; unique within a sum.
        reads_learned: whether a reward learned from comparisons is in it.
    """

    name: str
    reads_learned: bool = False

    def __add__(self, other: StepPart) -> StepSum:
        return StepSum([*_parts(self), *_parts(_checked_part(other))])

    def __sub__(self, other: StepPart) -> StepSum:
        return self + (-1.0) * _checked_part(other)

    def __mul__(self, weight: float) -> StepSum:
        if not isinstance(weight, numbers.Real) or not math.isfinite(weight):
            raise InvalidArgument(
                "weight", weight, "a reward is scaled by a finite number", "Write 0.5 * automated"
            )
        return StepSum([(float(weight) * own, part) for own, part in _parts(self)])

    __rmul__ = __mul__

    def __neg__(self) -> StepSum:
        return -1.0 * self


class StepTerm(StepPart):
    """A part that pays for steps by what they are."""

    @abstractmethod
    def pay(self, steps: ControlSteps, learned: Floats) -> Floats:
        """Reward of one step in each of n environments, shape (n,).

        Args:
            steps: one in each environment.
            learned: what a learned reward pays for them, 0 where there is none, shape (n,).
        """


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
    reads_learned = True

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
        self.name = name or getattr(function, "__name__", type(function).__name__)

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
        self.inner = StepSum(_parts(_checked_part(inner)))
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

    def __init__(self, inner: StepPart, gamma: float = SB3_GAMMA) -> None:
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


class StepShaping(StepPart):
    """gamma * Phi(s') - Phi(s), paid by the environment around the agent; unit: that of Phi.

    Args:
        potential: Phi: a function of n observations, n numbers; `preferences`, for the potential
            in a reward that was learned from comparisons of what changed; or the file of a trained
            agent, for its value model.
        gamma: the agent's discount per step, with which it is compared.

    Raises:
        InvalidArgument: a discount outside 0 to 1, or no potential.

    Source: Ng, Harada and Russell (1999), "Policy Invariance under Reward Transformations",
    theorem 1; Devlin and Kudenko (2012), "Dynamic Potential-Based Reward Shaping", for potentials
    that are still being learned.
    """

    name = "shaping"

    def __init__(
        self, potential: Callable[[Any], Any] | Preferences | str, gamma: float = SB3_GAMMA
    ) -> None:
        if not (callable(potential) or isinstance(potential, Preferences | str)):
            raise InvalidArgument(
                "shaping",
                potential,
                "not a potential",
                "Give 'module:function', the file of a trained agent, or preferences",
            )
        self.potential = potential
        self.gamma = check_discount(gamma)
        self.reads_learned = isinstance(potential, Preferences)


class WeightedShaping(NamedTuple):
    """One potential of a sum.

    Attributes:
        weight: of the potential.
        shaping: which.
    """

    weight: float
    shaping: StepShaping


class StepSum(StepPart):
    """A weighted sum of parts; what `+`, `-` and `*` make.

    Args:
        parts: (weight, part) pairs; two may not share a name.

    Raises:
        InvalidArgument: two of one name, or a price that was added.
    """

    name = "reward"

    def __init__(self, parts: Sequence[tuple[float, StepPart]]) -> None:
        names = [part.name for _, part in parts]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise InvalidArgument(
                "schemes", doubled[0], "it is in the sum twice", "Add the weights up"
            )
        self.parts = list(parts)
        self.terms = [(weight, part) for weight, part in parts if isinstance(part, StepTerm)]
        self.shapings = [WeightedShaping(w, part) for w, part in parts if _is_shaping(part)]
        self.reads_learned = any(part.reads_learned for _, part in parts)
        # One term alone may still be on its way to the right of a minus: gold - 0.5 * time(1).
        if len(parts) > 1:
            self.check_signs()

    def check_signs(self) -> None:
        """Refuse a price that was added.

        Raises:
            InvalidArgument: see above.
        """
        for weight, term in self.terms:
            if isinstance(term, TimePenalty) and weight > 0:
                raise InvalidArgument(
                    term.name, weight, "it is a price, and added it would pay", "Subtract it"
                )

    def by_term(self, steps: ControlSteps, learned: Floats) -> dict[str, Floats]:
        """Each term by name, weight applied, each of shape (n,)."""
        return {term.name: weight * term.pay(steps, learned) for weight, term in self.terms}

    def pay(self, steps: ControlSteps, learned: Floats) -> Floats:
        """The sum of `by_term`, shape (n,)."""
        total: Floats = np.sum(list(self.by_term(steps, learned).values()), axis=0)
        return total

    @property
    def pays_learned_as_it_is(self) -> bool:
        """Whether the learned reward is a summand with weight 1, and nothing else depends on it.

        Only then can old steps be paid anew when it has learned more.
        """
        reading = [(weight, part) for weight, part in self.parts if part.reads_learned]
        return all(weight == 1.0 and isinstance(part, Preferences) for weight, part in reading)


def _is_shaping(part: StepPart) -> bool:
    return isinstance(part, StepShaping)


def _parts(part: StepPart) -> list[tuple[float, StepPart]]:
    return list(part.parts) if isinstance(part, StepSum) else [(1.0, part)]


def _checked_part(part: Any) -> StepPart:
    if not isinstance(part, StepPart):
        raise InvalidArgument("schemes", part, "not a reward term", "Write 0.5 * automated")
    return part
