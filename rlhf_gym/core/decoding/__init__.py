"""Cached decoding: a language model that reads one more token per step, for a whole batch."""

from __future__ import annotations

from typing import Literal

from torch import nn

from rlhf_gym.core.decoding.base import Decoder
from rlhf_gym.core.decoding.fast import FastDecoder, FastTrunk
from rlhf_gym.core.decoding.generic import TransformersDecoder
from rlhf_gym.core.decoding.gpt2 import gpt2_trunk
from rlhf_gym.core.decoding.linear import is_readable
from rlhf_gym.core.decoding.llama import llama_trunk
from rlhf_gym.core.decoding.parts import take_apart
from rlhf_gym.core.errors import InvalidArgument

Backend = Literal["auto", "fast", "transformers"]

__all__ = ["Backend", "Decoder", "make_decoder"]


def make_decoder(model: nn.Module, backend: Backend = "auto") -> Decoder:
    """Choose how a model is decoded.

    Args:
        model: a Hugging Face causal language model, or a sequence classifier on a causal trunk (its
            `logits` are then scores); plain, or wrapped by peft.
        backend: "fast" is a forward of our own for GPT-2 and Llama shapes, "transformers" the
            model's own; "auto" takes the fast one where there is one.

    Raises:
        InvalidArgument: an unknown backend, or "fast" for a model without a fast decoder.
    """
    if backend not in ("auto", "fast", "transformers"):
        raise InvalidArgument(
            "backend", backend, "no such backend", 'Choose "auto", "fast" or "transformers"'
        )
    if backend == "transformers":
        return TransformersDecoder(model)
    decoder = _fast_decoder(model)
    if decoder is not None:
        return decoder
    if backend == "auto":
        return TransformersDecoder(model)
    raise InvalidArgument(
        "backend",
        backend,
        f"there is no fast decoder for this {type(model).__name__}",
        'Choose "auto", which takes the model\'s own forward then',
    )


def _fast_decoder(model: nn.Module) -> FastDecoder | None:
    """A forward of our own if there is one that computes exactly what the model does."""
    parts = take_apart(model)
    trunk: FastTrunk | None = gpt2_trunk(parts.trunk) or llama_trunk(parts.trunk)
    one_device = len({parameter.device for parameter in parts.model.parameters()}) == 1
    if trunk is None or not one_device or not is_readable(parts.head):
        return None
    return FastDecoder(trunk, parts.head)
