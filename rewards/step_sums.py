"""What a step of acting is paid, as a sum of named parts; the parts are in `step_terms`.

Terms for responses, which are judged as a whole, are in `base`.
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.rewards.discount import check_discount
from rlhf_gym.rewards.learned import ControlSteps, Floats


class StepPart(ABC):
    """One part of a sum.

    Attributes:
        name: in TensorBoard; unique within a sum.
        reads_learned: whether a reward learned from comparisons is in it.
    """

    name: str
    reads_learned: bool = False

    def __add__(self, other: StepPart) -> StepSum:
        return StepSum([*parts_of(self), *parts_of(as_part(other))])

    def __sub__(self, other: StepPart) -> StepSum:
        return self + (-1.0) * as_part(other)

    def __mul__(self, weight: float) -> StepSum:
        if not isinstance(weight, numbers.Real) or not math.isfinite(weight):
            raise InvalidArgument(
                "weight", weight, "a reward is scaled by a finite number", "Write 0.5 * automated"
            )
        return StepSum([(float(weight) * own, part) for own, part in parts_of(self)])

    __rmul__ = __mul__

    def __neg__(self) -> StepSum:
        return -1.0 * self


class StepTerm(StepPart):
    """A part that pays for steps by what they are.

    Attributes:
        is_price: it makes sense subtracted only.
        is_learned: it is the learned reward itself.
    """

    is_price: bool = False
    is_learned: bool = False

    @abstractmethod
    def pay(self, steps: ControlSteps, learned: Floats) -> Floats:
        """Reward of one step in each of n environments, shape (n,).

        Args:
            steps: one in each environment.
            learned: what a learned reward pays for them, 0 where there is none, shape (n,).
        """


class StepShaping(StepPart):
    """gamma * Phi(s') - Phi(s), paid by the environment around the agent; unit: that of Phi.

    Args:
        potential: Phi: a function of n observations, n numbers; the learned term, for the potential
            in a reward that was learned from comparisons of what changed; or the file of a trained
            agent, for its value model.
        gamma: the agent's discount per step, with which it is compared; None takes the agent's.

    Raises:
        InvalidArgument: a discount outside 0 to 1, or no potential.

    Source: Ng, Harada and Russell (1999), "Policy Invariance under Reward Transformations",
    theorem 1; Devlin and Kudenko (2012), "Dynamic Potential-Based Reward Shaping", for potentials
    that are still being learned.
    """

    name = "shaping"

    def __init__(
        self, potential: Callable[[Any], Any] | StepTerm | str, gamma: float | None = None
    ) -> None:
        self.reads_learned = isinstance(potential, StepTerm) and potential.is_learned
        if not (callable(potential) or isinstance(potential, str) or self.reads_learned):
            raise InvalidArgument(
                "shaping",
                potential,
                "not a potential",
                "Give 'module:function', the file of a trained agent, or preferences",
            )
        self.potential = potential
        self.gamma = None if gamma is None else check_discount(gamma)


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
        self.shapings = [WeightedShaping(w, s) for w, s in parts if isinstance(s, StepShaping)]
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
            if term.is_price and weight > 0:
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
        reading = [(weight, term) for weight, term in self.terms if term.reads_learned]
        shaped = any(shaping.reads_learned for _, shaping in self.shapings)
        return not shaped and all(weight == 1.0 and term.is_learned for weight, term in reading)


def parts_of(part: StepPart) -> list[tuple[float, StepPart]]:
    """The (weight, part) pairs of a sum; of a part alone, itself."""
    return list(part.parts) if isinstance(part, StepSum) else [(1.0, part)]


def as_part(part: Any) -> StepPart:
    """A part as it is.

    Raises:
        InvalidArgument: it is none.
    """
    if not isinstance(part, StepPart):
        raise InvalidArgument("schemes", part, "not a reward term", "Write 0.5 * automated")
    return part
