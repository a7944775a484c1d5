"""From the expression of a scheme to the reward term that it means, on a given task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.registry import load_object
from rlhf_gym.rewards.base import RewardTerm, WeightedReward, as_reward
from rlhf_gym.rewards.controllers import AdaptiveKL, KLController
from rlhf_gym.rewards.expressions import Evaluator, refused, unknown
from rlhf_gym.rewards.kl import KLPenalty
from rlhf_gym.rewards.model import RewardModel
from rlhf_gym.rewards.potentials import RewardPotential
from rlhf_gym.rewards.registry import CONTROL_REWARDS, REWARDS
from rlhf_gym.rewards.schemes import CONTROL_PRESETS, PRESETS

_OF_SCORE = ("lump", "uniform", "clipped", "running", "whitened", "group", "centred", "margin")
"""Terms around another one, which is the task's score unless the user gives some other."""
_OF_MODEL = ("attention", "token_heads")
"""Terms that look into a reward model."""


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
    term = _Builder(task).read(expression)
    if not isinstance(term, RewardTerm):
        raise refused(expression, "not a reward term")
    parts = term.parts if isinstance(term, WeightedReward) else [(1.0, term)]
    if task.penalty is None or any(isinstance(part, KLPenalty) for _, part in parts):
        return term
    return term - task.penalty


class _Builder(Evaluator):
    """Knows the terms of tasks of writing."""

    def __init__(self, task: TaskReward) -> None:
        self.task = task

    def make(self, name: str, args: list[Any], named: dict[str, Any]) -> Any:
        if name == "score" and not args and not named:
            return self.task.score
        if name not in REWARDS:
            known = [*PRESETS, *REWARDS]
            raise unknown(name, known, {*CONTROL_REWARDS, *CONTROL_PRESETS}, "acting")
        kind = REWARDS.load(name)
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
            raise refused("kl", "the task has no reference to measure KL to")
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
        raise refused(name, "the task's score is no reward model, and it looks into one")
    return model


def _only_model(term: RewardTerm) -> RewardModel | None:
    """The reward model that a term is, alone and with weight 1."""
    parts = term.parts if isinstance(term, WeightedReward) else [(1.0, term)]
    (weight, only), *others = parts
    return only if isinstance(only, RewardModel) and weight == 1.0 and not others else None
