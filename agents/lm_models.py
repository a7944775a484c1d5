"""Where a policy's networks come from, and their pass over written responses."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.activations import NewGELUActivation

from rlhf_gym.agents.cpu_kernels import GeluTanh
from rlhf_gym.agents.packed_forward import PackedRows, packed_trunk
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.models import disable_dropout, load_causal_lm, load_reward_model
from rlhf_gym.core.reward_head import reward_head

ModelSource = PreTrainedModel | PretrainedConfig | str | Path


def build_language_model(source: ModelSource) -> PreTrainedModel:
    """The language model a policy trains: dropout off, every parameter trainable.

    Args:
        source: a module (taken as it is), a directory or hub name, or a configuration alone.
    """
    if isinstance(source, PreTrainedModel):
        model = source
    elif isinstance(source, PretrainedConfig):
        model = _from_config(AutoModelForCausalLM, source)
    else:
        model = load_causal_lm(source)
    return _ready(model)


def build_value_model(
    source: str | PretrainedConfig, language_model: PreTrainedModel
) -> PreTrainedModel | None:
    """A separate value model, or None for one that shares the policy's trunk or for none.

    Args:
        source: "trunk" or "none"; "separate" copies the language model's trunk under a head of 0; a
            directory is a reward model; a configuration alone waits for its weights.
        language_model: the policy before adapters.

    Raises:
        InvalidArgument: the reward model has another vocabulary.
    """
    if source in ("trunk", "none"):
        return None
    if isinstance(source, PretrainedConfig):
        return _ready(_from_config(AutoModelForSequenceClassification, source))
    if source == "separate":
        return _ready(_value_copy(language_model))
    model = load_reward_model(source, field="value_model")
    theirs, ours = (m.config.get_text_config().vocab_size for m in (model, language_model))
    if theirs != ours:
        raise InvalidArgument(
            "value_model",
            source,
            f"it reads {theirs} token ids, the policy writes {ours}",
            "Start from a reward model with the policy's tokenizer, or use value_model='separate'",
        )
    return _ready(model)


def shared_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A model of new modules on the same parameters: adapters can be put into it alone.

    Args:
        model: the frozen reference.
    """
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    # deepcopy takes what stands in its memo as copied already.
    return copy.deepcopy(model, memo=dict(shared))


def response_states(
    trunk: nn.Module, input_ids: Tensor, attention_mask: Tensor, prompt_width: int
) -> Tensor:
    """Hidden states that the response tokens are predicted from, with gradients.

    Padding is left out, or moved behind the rows where a family has no packed pass: a causal trunk
    then needs no mask, and its fused attention is at its fastest.

    Args:
        trunk: returns hidden states behind the final norm.
        input_ids: prompts padded on the left, responses padded on the right, shape (batch, width).
        attention_mask: non-zero at real tokens, shape (batch, width).
        prompt_width: column at which responses begin.

    Returns:
        Shape (tokens, hidden): the response tokens row by row, as `mask.nonzero()` orders them.
    """
    return packed_states(trunk, PackedRows.of(input_ids, attention_mask, prompt_width))


def packed_states(trunk: nn.Module, rows: PackedRows) -> Tensor:
    """Hidden states of the tokens that are wanted of packed rows, with gradients.

    Args:
        trunk: returns hidden states behind the final norm.
        rows: what is read, and what is wanted of it.

    Returns:
        Shape (wanted, hidden).
    """
    packed = packed_trunk(trunk)
    if packed is not None:
        return packed(rows)
    hidden: Tensor = trunk(input_ids=rows.grid(), use_cache=False).last_hidden_state
    return hidden.flatten(0, 1).index_select(0, rows.slots[rows.wanted])


def length_parts(lengths: Tensor, tokens: int) -> Iterator[Tensor]:
    """Row numbers in groups of similar length, so that short rows are not padded to the longest.

    Args:
        lengths: tokens of each row, shape (rows,), on the CPU.
        tokens: most tokens in a group, padding included; a group has at least one row.

    Yields:
        Row numbers, longest first.
    """
    order = lengths.argsort(descending=True, stable=True)
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        end = start + max(1, tokens // longest)
        yield order[start:end]
        start = end


def _ready(model: PreTrainedModel) -> PreTrainedModel:
    model.requires_grad_(True)
    disable_dropout(model)
    _fuse_gelu(model)
    model.train(False)
    return model


def _fuse_gelu(model: nn.Module) -> None:
    """Replace GPT-2's GELU, eight elementwise operations, by the one operation that equals it.

    An update spends a fifth of its time in them otherwise. The module has no parameters, so what is
    saved and loaded stays the same.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GeluTanh())


def _from_config(auto_class: Any, config: PretrainedConfig) -> PreTrainedModel:
    """A model whose weights are about to be loaded; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = auto_class.from_config(config)
    return model


def _value_copy(language_model: PreTrainedModel) -> PreTrainedModel:
    config: Any = copy.deepcopy(language_model.config)
    config.num_labels = 1
    model = _from_config(AutoModelForSequenceClassification, config)
    model.base_model.load_state_dict(language_model.base_model.state_dict())
    head = reward_head(model)
    with torch.no_grad():
        head.weight.zero_()
        if head.bias is not None:
            head.bias.zero_()
    return model
