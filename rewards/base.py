"""Rewards as named terms that add, subtract and scale.

    reward = RewardModel("runs/demo/reward_model") + 0.5 * bonus - KLPenalty(reference, 0.05)

A term turns finished episodes into one number per response token. Most terms judge the whole
response (`ScoreTerm`); their number belongs to the last token.
"""

from __future__ import annotations

import inspect
import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint, InvalidReward

RewardFunction = Callable[[list[str], list[str]], Sequence[float]]
"""What a user may write: `(prompts, responses) -> one number per response`."""


@dataclass(frozen=True)
class TokenStep:
    """One step of active rows, for terms that are paid token by token (`reward_timing="step"`).

    Attributes:
        rows: the environment's row of each entry, shape (n,).
        input_ids, attention_mask: the observation before the action, shape (n, width).
        actions: the tokens emitted, shape (n,).
        ended: True where this action ends the episode, shape (n,).
        log_probs: log pi of each action in nats, shape (n,), NaN where unknown; None if none is.
        log_distribution: log pi of the whole vocabulary, shape (n, vocab), or None.
        reference_log_distribution: log pi_ref of the vocabulary, shape (n, vocab), or None.
        begun: gives the episodes as they stand before the action; `prefixes.written` adds it. None
            for a step made by hand.
    """

    rows: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    actions: Tensor
    ended: Tensor
    log_probs: Tensor | None = None
    log_distribution: Tensor | None = None
    reference_log_distribution: Tensor | None = None
    begun: Callable[[], Episodes] | None = None


class RewardTerm(ABC):
    """One named part of the reward.

    Attributes:
        name: the tag under which the term is reported; unique within a sum.
        terminal: True if all of the term is paid with the last token.
        gamma: the discount per token that the term is only right for, None if it is for any;
            environments tell it to agents, which refuse another.
        batchwise: True if a response's reward depends on the responses it is scored with.
    """

    name: str
    terminal: bool = False
    gamma: float | None = None
    batchwise: bool = False

    @abstractmethod
    def token_rewards(self, episodes: Episodes) -> Tensor:
        """The term at each response token, shape (batch, time), 0 off the mask."""

    def step_rewards(self, step: TokenStep) -> Tensor:
        """The term's share of one step, shape (n,); only for terms that are not terminal."""
        raise InvalidArgument(
            "reward_timing",
            "step",
            f"the term {self.name!r} cannot be paid token by token",
            "Use reward_timing='end', or give the term a step_rewards method",
        )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; empty for a term without state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        del state  # a term without state has nothing to take back

    def __add__(self, other: RewardTerm | RewardFunction) -> WeightedReward:
        return WeightedReward([*_parts(self), *_parts(as_reward(other))])

    def __radd__(self, other: RewardFunction) -> WeightedReward:
        return as_reward(other) + self

    def __sub__(self, other: RewardTerm | RewardFunction) -> WeightedReward:
        return self + (-1.0) * as_reward(other)

    def __rsub__(self, other: RewardFunction) -> WeightedReward:
        return as_reward(other) - self

    def __mul__(self, weight: float) -> WeightedReward:
        if not isinstance(weight, numbers.Real) or not math.isfinite(weight):
            raise InvalidArgument(
                "weight", weight, "a reward term is scaled by a finite number", "Write 0.5 * term"
            )
        return WeightedReward([(float(weight) * w, term) for w, term in _parts(self)])

    __rmul__ = __mul__

    def __neg__(self) -> WeightedReward:
        return -1.0 * self


class ScoreTerm(RewardTerm):
    """A term that judges the whole response with one number, credited to its last token."""

    terminal = True

    @abstractmethod
    def scores(self, episodes: Episodes) -> Tensor:
        """One number per response, shape (batch,)."""

    def token_rewards(self, episodes: Episodes) -> Tensor:
        """The score at the last token, 0 elsewhere, shape (batch, time)."""
        return episodes.at_last_token(check_scores(self.scores(episodes), len(episodes), self.name))


class FunctionReward(ScoreTerm):
    """A plain Python function of texts as a reward term.

    Args:
        function: `(prompts, responses) -> one finite number per response`.
        name: tag of the term; the function's own name by default.

    Raises:
        InvalidReward: it cannot be called with prompts and responses.
    """

    def __init__(self, function: RewardFunction, name: str | None = None) -> None:
        self.function = function
        given = getattr(function, "__name__", type(function).__name__)
        self.name = name or ("score" if given == "<lambda>" else given)
        self._check_arguments()

    def _check_arguments(self) -> None:
        try:
            signature = inspect.signature(self.function)
        except ValueError:  # some built-in functions do not say what they take
            return
        try:
            signature.bind([], [])
        except TypeError as error:
            raise InvalidReward(
                self.name,
                str(signature),
                f"it is called with prompts and responses: {error}",
                "Write def reward(prompts, responses), one number for each response",
            ) from error

    def scores(self, episodes: Episodes) -> Tensor:
        """Call the function with the prompts and the decoded responses."""
        values = self.function(list(episodes.prompts), list(episodes.responses))
        return check_scores(values, len(episodes), self.name)


class WeightedReward(RewardTerm):
    """A weighted sum of terms; what `+`, `-` and `*` make.

    Args:
        parts: (weight, term) pairs; two terms may not share a name.

    Attributes:
        parts: the pairs.
        terminal: True if every term is paid with the last token.
        gamma: the discount that the terms agree on.
        batchwise: True if any term is.

    Raises:
        InvalidArgument: no terms, two of one name, two that are right for different discounts, or a
            penalty that was added.
    """

    name = "reward"

    def __init__(self, parts: Sequence[tuple[float, RewardTerm]]) -> None:
        if not parts:
            raise InvalidArgument("parts", parts, "a reward without terms", "Give a term")
        names = [term.name for _, term in parts]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise InvalidArgument(
                "name",
                doubled[0],
                "two reward terms share this name",
                "Pass name=... to one of them",
            )
        self.parts = list(parts)
        self.terminal = all(term.terminal for _, term in parts)
        self.batchwise = any(term.batchwise for _, term in parts)
        self.gamma = _common_gamma([term for _, term in parts])
        # One term alone may still be on its way to the right of a minus: score - 0.5 * penalty.
        if len(parts) > 1:
            self.check_signs()

    def check_signs(self) -> None:
        """Refuse a term that makes sense with the other sign only.

        Raises:
            InvalidArgument: for example a KL penalty that was added.
        """
        for weight, term in self.parts:
            if isinstance(term, SignedTerm):
                term.check_weight(weight)

    def token_rewards(self, episodes: Episodes) -> Tensor:
        """The sum of `term_rewards`, shape (batch, time)."""
        return torch.stack(list(self.term_rewards(episodes).values())).sum(0)

    def term_rewards(self, episodes: Episodes) -> dict[str, Tensor]:
        """Each term by name, weight applied, each of shape (batch, time)."""
        return {term.name: weight * term.token_rewards(episodes) for weight, term in self.parts}

    def step_rewards(self, step: TokenStep) -> Tensor:
        """The sum of `step_term_rewards`, shape (n,); terminal terms are not in it."""
        shares = self.step_term_rewards(step).values()
        return torch.stack(list(shares)).sum(0) if shares else torch.zeros(len(step.actions))

    def step_term_rewards(self, step: TokenStep) -> dict[str, Tensor]:
        """Each term that is paid token by token, weight applied, each of shape (n,).

        Terminal terms are missing: they are paid with the last token, through `token_rewards`.
        """
        return {
            term.name: weight * term.step_rewards(step)
            for weight, term in self.parts
            if not term.terminal
        }

    def state_dict(self) -> dict[str, Any]:
        """The states of the terms, by name."""
        return {term.name: term.state_dict() for _, term in self.parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give each term its state back.

        Raises:
            InvalidCheckpoint: the state of another reward.
        """
        names = [term.name for _, term in self.parts]
        if sorted(state) != sorted(names):
            raise InvalidCheckpoint(
                "reward",
                sorted(state),
                f"the saved state is not that of the terms {', '.join(names)}",
                "Resume with the reward that the run was started with",
            )
        for _, term in self.parts:
            term.load_state_dict(state[term.name])


class SignedTerm(RewardTerm):
    """A term that makes sense with one sign only, such as a penalty that must be subtracted."""

    @abstractmethod
    def check_weight(self, weight: float) -> None:
        """Raise `InvalidArgument` if the term was given the wrong sign."""


def as_reward(reward: RewardTerm | RewardFunction) -> RewardTerm:
    """A term as it is, a callable as a `FunctionReward`."""
    if isinstance(reward, RewardTerm):
        return reward
    if callable(reward):
        return FunctionReward(reward)
    raise InvalidArgument(
        "reward",
        reward,
        "neither a reward term nor a function",
        "Pass a RewardTerm or a callable (prompts, responses) -> list of numbers",
    )


def as_weighted(reward: RewardTerm | RewardFunction) -> WeightedReward:
    """The one form an environment holds: a sum, if only of one term, whose signs are right.

    Raises:
        InvalidArgument: neither a term nor a function, or a penalty that was not subtracted.
    """
    weighted = WeightedReward(_parts(as_reward(reward)))
    weighted.check_signs()
    return weighted


def check_scores(values: Any, count: int, name: str) -> Tensor:
    """Refuse what is not one finite number per response.

    Args:
        values: what a reward returned: a sequence, array or tensor of numbers.
        count: how many responses there were.
        name: the term, for the message.

    Returns:
        Shape (count,), float32.

    Raises:
        InvalidReward: wrong count, a NaN or infinity, or something that is no number.
    """
    try:
        scores = torch.as_tensor(values, dtype=torch.float32).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidReward(
            name, values, "not a sequence of numbers", "Return one float per response"
        ) from error
    if scores.shape != (count,):
        raise InvalidReward(
            name,
            values,
            f"shape {tuple(scores.shape)} for {count} responses",
            "Return one float per response",
        )
    if not torch.isfinite(scores).all():
        bad = int((~torch.isfinite(scores)).nonzero()[0])
        raise InvalidReward(
            name, scores[bad].item(), f"response {bad} has no finite score", "Return finite floats"
        )
    return scores


def _common_gamma(terms: Sequence[RewardTerm]) -> float | None:
    gammas = {term.name: term.gamma for term in terms if term.gamma is not None}
    if len(set(gammas.values())) > 1:
        raise InvalidArgument(
            "gamma", gammas, "the terms are right for different discounts", "Give them all one"
        )
    return next(iter(gammas.values()), None)


def _parts(reward: RewardTerm) -> list[tuple[float, RewardTerm]]:
    return list(reward.parts) if isinstance(reward, WeightedReward) else [(1.0, reward)]
