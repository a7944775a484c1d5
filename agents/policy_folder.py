"""A policy as a folder: a Hugging Face directory, the value head, and how they belong together."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedModel

from rlhf_gym.core.errors import InvalidCheckpoint
from rlhf_gym.core.models import load_causal_lm, load_reward_model, save_model
from rlhf_gym.core.tokens import TokenRules

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf_gym.agents.lm_policy import LMPolicy

DESCRIPTION = "policy.json"
VALUE_HEAD = "value_head.safetensors"
VALUE_MODEL = "value_model"


def save_policy(policy: LMPolicy, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Write what `load_policy` reads; the folder itself is a plain Hugging Face causal LM.

    Args:
        policy: adapters are merged into a copy of the model.
        tokenizer: of the policy.
        folder: is made.
    """
    save_model(cast(PreTrainedModel, policy.model), tokenizer, folder)
    value = "none"
    if policy.value_head is not None:
        value = "trunk"
        state = policy.value_head.state_dict()
        save_file({name: tensor.cpu() for name, tensor in state.items()}, folder / VALUE_HEAD)
    if policy.value_model is not None:
        value = "separate"
        save_model(policy.value_model, tokenizer, folder / VALUE_MODEL)
    description = {
        "rules": dataclasses.asdict(policy.rules),
        "prompt_width": policy.prompt_width,
        "width": _width(policy.observation_space),
        "value_model": value,
        "lora_rank": policy.lora_rank,
        "freeze": policy.freeze,
        "backend": policy.backend,
        "seed": policy.seed,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2), encoding="utf-8")
    return folder


def read_policy_parameters(folder: Path) -> dict[str, Any]:
    """Arguments that rebuild a policy of the folder's shape, before its weights are loaded.

    Raises:
        InvalidCheckpoint: the folder holds no policy of ours.
    """
    description = _description(folder)
    value = description["value_model"]
    return {
        **_common(description),
        "model": AutoConfig.from_pretrained(folder),
        "value_model": AutoConfig.from_pretrained(folder / VALUE_MODEL)
        if value == "separate"
        else value,
        "lora_rank": description["lora_rank"],
        "freeze": description["freeze"],
    }


def load_policy(policy_class: type[LMPolicy], folder: Path, changes: dict[str, Any]) -> LMPolicy:
    """A policy ready to predict; adapters are part of its weights now.

    Args:
        policy_class: what to build.
        folder: written by `save_policy`.
        changes: override arguments of the constructor.

    Raises:
        InvalidCheckpoint: the folder holds no policy of ours, or not all of it.
    """
    description = _description(folder)
    value: Any = description["value_model"]
    if value == "separate":
        value = load_reward_model(folder / VALUE_MODEL).config
    arguments = {**_common(description), "model": load_causal_lm(folder), "value_model": value}
    policy = policy_class(**(arguments | changes))
    try:
        if policy.value_head is not None:
            policy.value_head.load_state_dict(load_file(folder / VALUE_HEAD))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InvalidCheckpoint(
            "folder", str(folder), f"no value head ({error})", "Save the policy again"
        ) from error
    if policy.value_model is not None:
        weights = load_reward_model(folder / VALUE_MODEL).state_dict()
        policy.value_model.load_state_dict(weights)
    return policy


def _common(description: dict[str, Any]) -> dict[str, Any]:
    rules = dict(description["rules"])
    for name in ("stop_ids", "banned_ids"):
        rules[name] = tuple(rules[name])
    token_rules = TokenRules(**rules)
    shape = (description["width"],)
    observation: dict[str, spaces.Space[Any]] = {
        "input_ids": spaces.Box(0, token_rules.vocab_size - 1, shape, np.int64),
        "attention_mask": spaces.Box(0, 1, shape, np.int8),
    }
    return {
        "observation_space": spaces.Dict(observation),
        "action_space": spaces.Discrete(token_rules.vocab_size),
        "rules": token_rules,
        "prompt_width": description["prompt_width"],
        "backend": description["backend"],
        "seed": description["seed"],
    }


def _width(observation_space: spaces.Space[Any]) -> int:
    return int(cast(spaces.Dict, observation_space)["input_ids"].shape[0])  # type: ignore[index]


def _description(folder: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(
            "folder",
            str(folder),
            f"no readable {DESCRIPTION}",
            "Give a folder that LMPolicy.save_pretrained wrote",
        ) from error
    return description
