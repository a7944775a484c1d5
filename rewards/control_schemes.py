"""From the expression of a scheme to what steps of acting are paid.

Such as `clipped(gold, -1, 1) - time(0.01) + 2 * shaping("my_potentials:progress")`.
"""

from __future__ import annotations

from typing import Any

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.registry import load_object
from rlhf_gym.rewards.expressions import Evaluator, refused, unknown
from rlhf_gym.rewards.registry import CONTROL_REWARDS, REWARDS
from rlhf_gym.rewards.schemes import CONTROL_PRESETS, PRESETS, Effect
from rlhf_gym.rewards.step_sums import StepPart, StepSum, StepTerm
from rlhf_gym.rewards.step_terms import Automated, Gold, RunningScale

_OF_TASK = ("clipped", "running")
"""Terms around another one, which is the task's own reward unless the user gives some other."""


def control_scheme(expression: str) -> StepSum:
    """The sum that an expression means.

    Args:
        expression: names and arguments are those of `rlhf_gym.rewards.registry.CONTROL_REWARDS`.

    Raises:
        InvalidArgument: no such term, one for tasks of writing, arguments it does not take, or what
            is no sum of terms that pays anything.
    """
    part = _Builder().read(expression)
    if not isinstance(part, StepPart):
        raise refused(expression, "not a reward term")
    scheme = part if isinstance(part, StepSum) else StepSum([(1.0, part)])
    if not scheme.terms:
        raise InvalidArgument(
            "schemes", expression, "nothing is paid but shaping", "Write automated + shaping(...)"
        )
    scheme.check_signs()
    return scheme


def moves_optimum(scheme: StepSum) -> Effect:
    """Whether a scheme's optimum is another than that of `gold`, as far as its form tells.

    A price for each step moves it only where episodes differ in length, which the form does not
    tell: it counts.
    """
    effects = {_effect(weight, term) for weight, term in scheme.terms}
    if "batch" in effects and len(scheme.terms) > 1:  # what is beside it weighs more or less
        return "yes"
    return effects.pop() if len(effects) == 1 else "yes"


def _effect(weight: float, term: StepTerm) -> Effect:
    if weight <= 0:
        return "yes"
    if isinstance(term, RunningScale):
        return "batch" if moves_optimum(term.inner) == "no" else "yes"
    return "no" if isinstance(term, Gold) else "yes"


class _Builder(Evaluator):
    """Knows the terms of tasks of acting."""

    def make(self, name: str, args: list[Any], named: dict[str, Any]) -> Any:
        if name not in CONTROL_REWARDS:
            known = [*CONTROL_PRESETS, *CONTROL_REWARDS]
            raise unknown(name, known, {"score", *REWARDS, *PRESETS}, "writing")
        kind = CONTROL_REWARDS.load(name)
        if name in _OF_TASK and not (args and isinstance(args[0], StepPart)):
            return kind(Automated(), *args, **named)
        if name in ("function", "shaping") and args and _names_a_function(args[0]):
            return kind(load_object(args[0], "schemes"), *args[1:], **named)
        return kind(*args, **named)


def _names_a_function(source: Any) -> bool:
    return isinstance(source, str) and ":" in source
