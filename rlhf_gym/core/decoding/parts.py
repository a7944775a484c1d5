"""A Hugging Face model taken apart: causal trunk, head, and what happens to logits behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_gym.core.errors import InvalidArgument

PROBED = 8
"""Tokens on which the logits of a model are compared with those that its parts give."""


class ModelParts(NamedTuple):
    """What decoders need of a model.

    Attributes:
        model: the Hugging Face model itself, without a peft wrapper; adapters stay inside its
            layers.
        trunk: reads ids, returns hidden states behind the final norm.
        head: LM head, or the `score` layer of a classifier.
        is_language_model: False for a classifier.
    """

    model: PreTrainedModel
    trunk: nn.Module
    head: nn.Module
    is_language_model: bool


def take_apart(model: nn.Module) -> ModelParts:
    """Find trunk and head.

    Args:
        model: a Hugging Face causal language model or classifier, or peft's wrapper of one.

    Raises:
        InvalidArgument: it is something else, or its adapter works on the input, not in layers.
    """
    model = unwrap(model)
    trunk = model.base_model
    head: nn.Module | None = cast(Any, model).get_output_embeddings()
    classifier_head = dict(model.named_children()).get("score")
    if trunk is model or (head is None and classifier_head is None):
        raise InvalidArgument(
            "model",
            type(model).__name__,
            "it has no trunk with an LM head or a score layer on it",
            "Load it with AutoModelForCausalLM or AutoModelForSequenceClassification",
        )
    if head is not None:
        return ModelParts(model, trunk, head, True)
    return ModelParts(model, trunk, cast(nn.Module, classifier_head), False)


def unwrap(model: nn.Module) -> PreTrainedModel:
    """The Hugging Face model inside peft's wrapper, or the model itself."""
    if isinstance(model, PreTrainedModel):
        return model
    from peft import PeftModel  # slow to import, and rarely needed

    if isinstance(model, PeftModel) and not model.active_peft_config.is_prompt_learning:
        return unwrap(model.get_base_model())
    raise InvalidArgument(
        "model",
        type(model).__name__,
        "neither a Hugging Face model nor one with adapters in its layers",
        "Load it with transformers; with peft use LoRA, not prompt or prefix tuning",
    )


def logit_transform(parts: ModelParts) -> Callable[[Tensor], Tensor]:
    """What the model does to the head's output, checked against the model on some tokens.

    Raises:
        InvalidArgument: the model's logits are some other function of the head's output.
    """
    if not parts.is_language_model:
        return _unchanged
    config = parts.model.config.to_dict()
    candidates: list[Callable[[Tensor], Tensor]] = []
    if cap := config.get("final_logit_softcapping"):
        candidates.append(lambda logits: cap * torch.tanh(logits / cap))
    if scale := config.get("logit_scale"):
        candidates.append(lambda logits: logits * scale)
    if divisor := config.get("logits_scaling"):
        candidates.append(lambda logits: logits / divisor)

    candidates.append(_unchanged)
    # All over the vocabulary: a row that is 0, as PAD's often is, makes all logits 0, and all
    # candidates right. If all are near by even so, the first is what the configuration says.
    vocabulary = len(cast(Any, parts.trunk).get_input_embeddings().weight)
    probe = torch.linspace(0, vocabulary - 1, PROBED).long().unsqueeze(-1)
    probe = probe.to(next(parts.trunk.parameters()).device)
    expected = parts.model(input_ids=probe, use_cache=False).logits
    raw = parts.head(parts.trunk(input_ids=probe, use_cache=False).last_hidden_state)
    # The nearest, not the first that is near: a cap far above the logits hardly changes them.
    best = min(candidates, key=lambda candidate: _distance(candidate(raw), expected))
    if _distance(best(raw), expected) <= 1e-3 * max(1.0, expected.abs().max().item()):
        return best
    raise InvalidArgument(
        "model",
        type(parts.model).__name__,
        "its logits are not its head on its hidden states",
        "Use an architecture with a plain LM head",
    )


def _distance(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item() if a.shape == b.shape else float("inf")


def _unchanged(logits: Tensor) -> Tensor:
    return logits
