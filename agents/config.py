"""What agents on text can be told, and how fields given by name override a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from typing import Any, Literal, TypeVar, get_args

from rlhf_gym.core.errors import InvalidArgument

OptimizerName = Literal["adam", "adam-tf", "adamw", "sgd"]
Schedule = Literal["linear", "constant"]
Config = TypeVar("Config", bound="TextAlgorithmConfig")


@dataclass(frozen=True)
class TextAlgorithmConfig:
    """What every agent on text can be told."""

    learning_rate: float = 3e-4
    """Step size of the optimiser at the start of `learn`; for models of a hundred million
    parameters and more take about 1e-5."""

    schedule: Schedule = "linear"
    """How the learning rate moves: linearly to 0 over `total_timesteps`, or not at all."""

    episodes_per_update: int | None = None
    """Responses collected before each update, a multiple of the environment's rows; None is one per
    row."""

    responses_per_prompt: int = 1
    """Responses to the same prompt, which stand one after another in a rollout."""

    epochs: int = 4
    """How often an update goes through its episodes, each time in a new order."""

    minibatches: int = 4
    """Optimiser steps per epoch."""

    tokens_per_forward: int = 8192
    """Most tokens in one forward, padding included; larger minibatches are accumulated exactly."""

    optimizer: OptimizerName = "adam"
    """adam, adam-tf (epsilon outside the bias correction, gentler at the start), adamw or sgd."""

    adam_eps: float = 1e-5
    """Adam's epsilon."""

    max_grad_norm: float | None = 1.0
    """Gradients are scaled down to this norm; None leaves them."""

    max_update_kl: float | None = None
    """Stop an update when KL(policy that sampled || policy) of a minibatch passes this, in nats per
    token; not the KL to the reference. None never stops."""

    missing_stop_penalty: float = 0.0
    """Taken off the reward of the last token of a response that did not stop by itself."""

    kl_loss_coef: float = 0.0
    """Weight of KL(policy || reference) in the loss, instead of a KL penalty in the reward."""

    def __post_init__(self) -> None:
        check_above_zero(self, "learning_rate", "adam_eps", "max_grad_norm", "max_update_kl")
        check_counts(self, "epochs", "minibatches", "tokens_per_forward", "episodes_per_update")
        check_counts(self, "responses_per_prompt")
        check_not_negative(self, "missing_stop_penalty", "kl_loss_coef")
        check_choice(self, "schedule", get_args(Schedule))
        check_choice(self, "optimizer", get_args(OptimizerName))


def make_config(kind: type[Config], config: Config | None, fields: Mapping[str, Any]) -> Config:
    """A configuration with some fields overridden.

    Args:
        kind: class of the configuration.
        config: what to start from; the defaults if None.
        fields: new values by name.

    Raises:
        InvalidArgument: no such field, or a configuration of another agent.
    """
    if config is None:
        config = kind()
    if not isinstance(config, kind):
        raise InvalidArgument(
            "config", type(config).__name__, "made for another agent", f"Give a {kind.__name__}"
        )
    names = [field.name for field in dataclasses.fields(kind)]
    for name, value in fields.items():
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise InvalidArgument(
                name,
                value,
                f"{kind.__name__} has no such field",
                f"{hint}It has {', '.join(names)}",
            )
    return dataclasses.replace(config, **fields)


def check_above_zero(config: object, *names: str) -> None:
    """Refuse fields that are neither None nor above 0."""
    for name in names:
        value = getattr(config, name)
        if callable(value):
            raise InvalidArgument(
                name,
                value,
                "a function of the progress is no number",
                "Give the number at the start; schedule='linear' or 'constant' says how it moves",
            )
        if value is not None and not (isinstance(value, Real) and float(value) > 0):
            raise InvalidArgument(name, value, "not above 0", "Give a number above 0")


def check_counts(config: object, *names: str) -> None:
    """Refuse fields that are neither None nor a whole number of 1 or more."""
    for name in names:
        value = getattr(config, name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InvalidArgument(name, value, "not a count", "Give a whole number of 1 or more")


def check_not_negative(config: object, *names: str) -> None:
    """Refuse coefficients below 0 (and NaN)."""
    for name in names:
        value = getattr(config, name)
        if not (isinstance(value, Real) and float(value) >= 0):
            raise InvalidArgument(name, value, "below 0 it would do the opposite", "Give 0 or more")


def check_choice(config: object, name: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not one of the choices."""
    if getattr(config, name) not in choices:
        raise InvalidArgument(
            name, getattr(config, name), "no such choice", f"Choose one of {', '.join(choices)}"
        )
