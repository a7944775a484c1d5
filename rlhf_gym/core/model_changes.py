"""Changing a language model in place: no dropout, frozen layers, low-rank adapters."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn

from rlhf_gym.core.errors import InvalidArgument

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to 0, whether it is a module or a number on one.

    With dropout two forwards of one batch differ, and PPO's ratio is not 1 before its first update.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def freeze_layers(model: PreTrainedModel, which: int | str) -> int:
    """Stop gradients into a part of a model.

    Args:
        model: any Hugging Face model.
        which: a number n freezes the embeddings and the first n blocks (an output head that shares
            the embeddings is frozen with them); a string is a regular expression, and every
            parameter in whose name it is found is frozen.

    Returns:
        How many parameters (numbers, not tensors) are frozen by this.

    Raises:
        InvalidArgument: nothing, or everything, would be frozen.
    """
    chosen = _first_blocks(model, which) if isinstance(which, int) else _matching(model, which)
    if {id(p) for p in chosen} >= {id(p) for p in model.parameters() if p.requires_grad}:
        raise InvalidArgument(
            "freeze", which, "no parameter would be left to train", "Freeze fewer layers"
        )
    for parameter in chosen:
        parameter.requires_grad_(False)
    return sum(parameter.numel() for parameter in chosen)


def add_lora(
    model: PreTrainedModel,
    rank: int,
    *,
    alpha: int | None = None,
    target_modules: str | list[str] = "all-linear",
    seed: int = 0,
) -> PeftModel:
    """Freeze a causal LM and put trainable low-rank adapters beside its linear layers.

    The adapters begin at zero: the policy is exactly its reference, the adapter switched off.

    Args:
        model: the language model; its layers are changed in place.
        rank: of the adapters, 1 or more.
        alpha: scale of the adapters' output is alpha / rank; `2 * rank` if None.
        target_modules: names of layers as in peft; by default all linear ones but the output head.
        seed: of the adapters' random half; the global generator is left as it was.

    Returns:
        A peft model.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021).
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    if rank < 1:
        raise InvalidArgument("lora_rank", rank, "not a rank", "Give 1 or more, 8 for example")
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        target_modules=target_modules,
        lora_dropout=0.0,
        # GPT-2's layers keep their weights transposed; peft warns unless it is told.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft 0.21 asks transformers 5 by a deprecated name.
        warnings.filterwarnings("ignore", category=FutureWarning)
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def _first_blocks(model: PreTrainedModel, count: int) -> list[nn.Parameter]:
    total = model.config.get_text_config().num_hidden_layers
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == total]
    if not 1 <= count <= total or not stacks:
        raise InvalidArgument(
            "freeze", count, f"the model has {total} blocks", f"Give a number from 1 to {total}"
        )
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    modules: list[nn.Module] = [*embeddings, *list(stacks[0])[:count]]
    return [parameter for module in modules for parameter in module.parameters()]


def _matching(model: PreTrainedModel, pattern: str) -> list[nn.Parameter]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InvalidArgument(
            "freeze", pattern, f"no regular expression ({error})", "Give a number or a pattern"
        ) from error
    chosen = [p for name, p in model.named_parameters() if expression.search(name)]
    if not chosen:
        example = next(name for name, _ in model.named_parameters())
        raise InvalidArgument(
            "freeze", pattern, "no parameter has such a name", f"Names look like {example}"
        )
    return chosen
