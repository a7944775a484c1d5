"""From the expression of a scheme to the reward term that it means, on a given task."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import nn

from rlhf_gym.core.errors import InvalidArgument, RLHFGymError
from rlhf_gym.core.registry import load_object
from rlhf_gym.rewards.base import RewardTerm, WeightedReward, as_reward
from rlhf_gym.rewards.controllers import AdaptiveKL, KLController
from rlhf_gym.rewards.kl import KLPenalty
from rlhf_gym.rewards.model import RewardModel
from rlhf_gym.rewards.potentials import RewardPotential
from rlhf_gym.rewards.registry import REWARDS
from rlhf_gym.rewards.schemes import PRESETS

_OF_SCORE = ("lump", "uniform", "clipped", "running", "whitened", "group", "centred", "margin")
"""Terms around another one, which is the task's score unless the user gives some other."""
_OF_MODEL = ("attention", "token_heads")
"""Terms that look into a reward model."""
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


@dataclass(frozen=True)
class TaskReward:
    """What a task pays, taken apart.

    Attributes:
        score: all terms but the KL penalty.
        penalty: the KL penalty with the task's own settings, or None.
        reference: the frozen LM, or None.
    """

    score: WeightedReward
    penalty: KLPenalty | None
    reference: nn.Module | None


def taken_apart(reward: WeightedReward, reference: nn.Module | None) -> TaskReward:
    """An environment's reward as a task's score and its KL penalty.

    Raises:
        InvalidArgument: it pays nothing but a KL penalty.
    """
    penalties = [term for _, term in reward.parts if isinstance(term, KLPenalty)]
    score = [part for part in reward.parts if not isinstance(part[1], KLPenalty)]
    if not score:
        raise InvalidArgument("reward", reward, "there is no score to shape", "Add a reward")
    return TaskReward(WeightedReward(score), penalties[0] if penalties else None, reference)


def scheme_reward(expression: str, task: TaskReward) -> RewardTerm:
    """The term that an expression means on a task, its KL penalty subtracted.

    Args:
        expression: such as `whitened(score) - 0.5 * length(coef=0.02)`; names and arguments are
            those of `rlhf_gym.rewards.registry`. Terms around a reward take `score` by default.
        task: what `score` and `kl` stand for.

    Raises:
        InvalidArgument: no such term, arguments it does not take, or what is no sum of terms.
    """
    try:
        term = _Builder(task).value(ast.parse(expression, mode="eval").body)
    except SyntaxError as error:
        raise _refused(expression, f"not an expression ({error.msg})") from error
    if not isinstance(term, RewardTerm):
        raise _refused(expression, "not a reward term")
    parts = term.parts if isinstance(term, WeightedReward) else [(1.0, term)]
    if task.penalty is None or any(isinstance(part, KLPenalty) for _, part in parts):
        return term
    return term - task.penalty


class _Builder:
    """Evaluates the few kinds of syntax that a scheme is made of; nothing else is executed."""

    def __init__(self, task: TaskReward) -> None:
        self.task = task

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
                try:
                    return _OPERATIONS[type(op)](self.value(left), self.value(right))
                except TypeError as error:
                    raise _refused(ast.unparse(node), str(error)) from error
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.value(operand)
            case ast.Name(id=name):
                return self.task.score if name == "score" else self.term(name, [], {})
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                named = {str(keyword.arg): self.value(keyword.value) for keyword in keywords}
                return self.term(name, [self.value(argument) for argument in args], named)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return [self.value(element) for element in elements]
            case ast.Constant() | ast.Dict():
                return ast.literal_eval(node)
        raise _refused(ast.unparse(node), "more than a scheme can say")

    def term(self, name: str, args: list[Any], named: dict[str, Any]) -> Any:
        if name not in REWARDS:
            near = get_close_matches(name, [*PRESETS, *REWARDS], n=1)
            raise _refused(name, "no such term" + (f"; did you mean {near[0]!r}?" if near else ""))
        kind = REWARDS.load(name)
        try:
            return self._make(name, kind, args, named)
        except RLHFGymError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            written = f"{name}({', '.join(map(repr, args))})" if args else name
            raise _refused(written, str(error)) from error

    def _make(self, name: str, kind: Any, args: list[Any], named: dict[str, Any]) -> Any:
        if name == "kl":
            return self._penalty(*args, **named)
        if name in ("function", "verifiable") and args and isinstance(args[0], str):
            made = load_object(args[0], "schemes")
            return as_reward(made) if isinstance(made, RewardTerm) else kind(made, **named)
        if name in _OF_SCORE and not (args and isinstance(args[0], RewardTerm)):
            return kind(self.task.score, *args, **named)
        if name in _OF_MODEL:
            return kind(_model(name, args[0] if args else self.task.score), *args[1:], **named)
        if name in ("dense", "shaping"):
            source = args[0] if args else self.task.score
            return kind(_opinion(source), *args[1:], **named)
        return kind(*args, **named)

    def _penalty(
        self, coef: float | None = None, *, target: float | None = None, **settings: Any
    ) -> KLPenalty:
        """The task's KL penalty with other settings; what is not given stays as it is."""
        own = self.task.penalty
        reference = self.task.reference if own is None else own.reference
        if reference is None:
            raise _refused("kl", "the task has no reference to measure KL to")
        controller: float | KLController
        controller = coef if coef is not None else 0.05 if own is None else own.coef
        if target is not None:
            controller = AdaptiveKL(initial=controller or 0.05, target=target)
        kept = {}
        if own is not None:
            kept = {"estimator": own.estimator, "placement": own.placement, "mode": own.mode}
        return KLPenalty(reference, controller, **{**kept, **settings})


def _opinion(source: Any) -> Any:
    """What says how good a text is so far: a reward model itself, any other term by asking it.

    A string is a function of the user's, `module:function`, or a model's folder.
    """
    if isinstance(source, str) and ":" in source:
        return load_object(source, "schemes")
    if not isinstance(source, RewardTerm):
        return source
    return _only_model(source) or RewardPotential(source)


def _model(name: str, source: Any) -> Any:
    if not isinstance(source, RewardTerm):
        return RewardModel(source)
    model = _only_model(source)
    if model is None:
        raise _refused(name, "the task's score is no reward model, and it looks into one")
    return model


def _only_model(term: RewardTerm) -> RewardModel | None:
    """The reward model that a term is, alone and with weight 1."""
    parts = term.parts if isinstance(term, WeightedReward) else [(1.0, term)]
    (weight, only), *others = parts
    return only if isinstance(only, RewardModel) and weight == 1.0 and not others else None


def _refused(expression: str, problem: str) -> InvalidArgument:
    return InvalidArgument(
        "schemes", expression, problem, "`rlhf-gym list` shows the terms and schemes"
    )
