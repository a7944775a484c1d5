"""Putting an algorithm together: its environment from an id, its schedule, its policy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule
from torch import nn
from transformers import PreTrainedModel

from rlhf_gym.agents.config import TextAlgorithmConfig
from rlhf_gym.agents.lm_models import shared_copy
from rlhf_gym.agents.lm_policy import LMPolicy
from rlhf_gym.agents.stepping import TextStepper
from rlhf_gym.core.devices import same_device
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokenizers import check_same_tokens

MAX_ROWS = 64
"""Rows of an environment that is given by its id alone."""

POLICY_KWARGS = ("model", "value_model", "lora_rank", "freeze", "backend")


def make_env(env_id: str, episodes_per_update: int | None) -> VectorEnv[Any, Any, Any]:
    """A vector environment with as many rows as divide the episodes of an update, at most 64."""
    episodes = episodes_per_update or MAX_ROWS
    rows = max(n for n in range(1, MAX_ROWS + 1) if episodes % n == 0)
    return gym.make_vec(env_id, num_envs=rows)


def make_schedule(config: TextAlgorithmConfig) -> LinearSchedule | ConstantSchedule:
    """The learning rate as a function of the progress that remains, 1 to 0."""
    if config.schedule == "constant":
        return ConstantSchedule(config.learning_rate)
    return LinearSchedule(config.learning_rate, 0.0, 1.0)


def build_policy(
    policy_class: type[LMPolicy],
    stepper: TextStepper,
    policy_kwargs: dict[str, Any],
    *,
    seed: int,
    device: torch.device,
) -> LMPolicy:
    """A policy for an environment; it starts as the environment's reference unless told otherwise.

    Args:
        policy_class: LMPolicy or a subclass.
        stepper: the environment.
        policy_kwargs: what the user asked for; `model` is a directory or hub name.
        seed: of the policy's own sampling and of fresh adapters.
        device: where the policy is going to be.

    Raises:
        InvalidArgument: an unknown keyword, a module among them, or no model anywhere.
        TokenizerMismatch: a model whose token ids are not the environment's.
    """
    known = (*POLICY_KWARGS, *policy_class.extra_kwargs)
    for name, value in policy_kwargs.items():
        if name not in known:
            raise InvalidArgument(
                "policy_kwargs", name, "no such keyword", f"Choose from {', '.join(known)}"
            )
        if isinstance(value, nn.Module):
            raise InvalidArgument(
                f"policy_kwargs[{name!r}]",
                type(value).__name__,
                "SB3 pickles policy_kwargs and compares them when an agent is loaded",
                "Save it with save_pretrained and give the folder, or make it the reference",
            )
    kwargs = {**policy_kwargs}
    if isinstance(kwargs.get("model"), str | Path):
        check_same_tokens("policy_kwargs['model']", str(kwargs["model"]), stepper.tokenizer)
    if kwargs.get("model") is None:
        kwargs["model"] = _from_reference(stepper, device, shares=bool(kwargs.get("lora_rank")))
    return policy_class(
        stepper.venv.observation_space,
        stepper.venv.action_space,
        rules=stepper.rules,
        prompt_width=stepper.prompt_width,
        seed=seed,
        **kwargs,
    )


def _from_reference(stepper: TextStepper, device: torch.device, *, shares: bool) -> PreTrainedModel:
    """A model to train that begins as the environment's reference."""
    reference = stepper.reference
    if not isinstance(reference, PreTrainedModel):
        raise InvalidArgument(
            "policy_kwargs",
            {"model": None},
            "the environment has no reference to start from, and no model is named",
            "Pass policy_kwargs={'model': directory}, or reference=... to the environment",
        )
    # Adapters leave the weights below them alone, so policy and reference can share these: the
    # reference is the policy with its adapter switched off. On two devices they cannot.
    if shares and same_device(reference.device, device):
        return shared_copy(reference)
    return copy.deepcopy(reference)
