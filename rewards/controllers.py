"""How the KL coefficient moves during training: not at all, or towards a target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint

MAX_ERROR = 0.2
"""Largest relative error that one update may act on; Ziegler et al. (2019), section 2.2."""


@runtime_checkable
class KLController(Protocol):
    """Owns the KL coefficient; the environment asks it to move once per `update_kl()`."""

    @property
    def coef(self) -> float:
        """The coefficient in force, reward per nat."""

    def update(self, kl: float, episodes: int) -> float:
        """Learn the KL of the last episodes and return the new coefficient."""

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs."""

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take back what `state_dict` gave."""


class FixedKL:
    """A coefficient that stays.

    Args:
        coef: reward per nat, 0 or more.

    Raises:
        InvalidArgument: a coefficient below 0 would pay the policy for leaving the reference.
    """

    def __init__(self, coef: float) -> None:
        self._coef = check_coef("coef", coef)

    @property
    def coef(self) -> float:
        """The coefficient, reward per nat."""
        return self._coef

    def update(self, kl: float, episodes: int) -> float:
        """Change nothing."""
        return self._coef

    def state_dict(self) -> dict[str, float]:
        """The coefficient, so that a resumed run notices another one."""
        return {"coef": self._coef}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take back what `state_dict` gave."""
        self._coef = check_coef("coef", _entry(state, "coef"))


class AdaptiveKL:
    """A coefficient that steers the KL of whole responses to a target.

        error = clip(kl / target - 1, -0.2, 0.2)
        coef <- coef * (1 + error * episodes / horizon)

    A negative sampled KL is one more error of -0.2: it lowers the coefficient slowly and can never
    turn its sign.

    Args:
        initial: coefficient at the start, reward per nat, above 0 (0 could never grow).
        target: KL of a response to steer to, nats.
        horizon: episodes over which an error of 1 would double the coefficient.

    Raises:
        InvalidArgument: an argument that is not a finite number above 0.

    Source: Ziegler et al. (2019), section 2.2; `horizon` as in the code released with it
    (openai/lm-human-preferences, train_policy.py).
    """

    def __init__(self, initial: float = 0.15, target: float = 6.0, horizon: float = 10_000) -> None:
        self._coef = _check_positive("initial", initial)
        self.target = _check_positive("target", target)
        self.horizon = _check_positive("horizon", horizon)

    @property
    def coef(self) -> float:
        """The coefficient in force, reward per nat."""
        return self._coef

    def update(self, kl: float, episodes: int) -> float:
        """Move once.

        Args:
            kl: mean KL of the last responses, nats, summed over response tokens (no prompt tokens).
            episodes: how many responses there were since the last update.

        Returns:
            The new coefficient.

        Raises:
            InvalidArgument: a KL that is not finite, or a negative count.
        """
        if not math.isfinite(kl):
            raise InvalidArgument(
                "kl",
                kl,
                "the controller cannot act on it",
                "Update it with episodes whose KL is known",
            )
        if episodes < 0:
            raise InvalidArgument("episodes", episodes, "a count", "Give a number of 0 or more")
        error = min(max(kl / self.target - 1.0, -MAX_ERROR), MAX_ERROR)
        # Beyond one horizon the product would overshoot, and beyond five the coefficient would
        # change its sign.
        self._coef *= 1.0 + error * min(episodes / self.horizon, 1.0)
        return self._coef

    def state_dict(self) -> dict[str, float]:
        """The coefficient; target and horizon belong to the configuration."""
        return {"coef": self._coef}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take back what `state_dict` gave."""
        self._coef = _check_positive("coef", _entry(state, "coef"))


def as_controller(coef: float | KLController) -> KLController:
    """A controller as it is, a number as a coefficient that stays."""
    return coef if isinstance(coef, KLController) else FixedKL(coef)


def check_coef(field: str, value: float) -> float:
    """A coefficient of 0 or more, as a float.

    Raises:
        InvalidArgument: not a finite number, or below 0.
    """
    if not _is_finite(value) or value < 0:
        raise InvalidArgument(
            field,
            value,
            "a KL penalty is a finite number of 0 or more; below 0 it would pay the policy for "
            "leaving the reference",
            "Give a number of 0 or more and subtract the term: reward - KLPenalty(reference, 0.05)",
        )
    return float(value)


def _check_positive(field: str, value: float) -> float:
    if not _is_finite(value) or value <= 0:
        raise InvalidArgument(
            field, value, "not a finite number above 0", "Give a finite number above 0"
        )
    return float(value)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _entry(state: Mapping[str, float], key: str) -> float:
    if key not in state:
        raise InvalidCheckpoint(
            key,
            sorted(state),
            "the saved state of the KL controller has no such entry",
            "Resume from a checkpoint of the same configuration",
        )
    return state[key]
