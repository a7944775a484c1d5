"""Cached decoding: a language model that reads one more token per step, for a whole batch."""

from __future__ import annotations

from typing import Literal

from torch import nn

from rlhf_gym.core.decoding.base import Decoder
from rlhf_gym.core.decoding.generic import TransformersDecoder
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
    return TransformersDecoder(model)
