"""Linear layers as a decoder reads them: weights live, LoRA merged, large ones prepacked.

Nothing is kept from one reading to the next. A version counter would not tell that weights changed:
fused optimisers and everything that writes through `.data` leave it as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

AffineMap = Callable[[Tensor], Tensor]
"""(tokens, in) to (tokens, out)."""

AddedMap = Callable[[Tensor, Tensor], object]
"""Adds a map of its second argument, (tokens, in), to its first, (tokens, out), in place."""

LARGE = 1 << 18
"""Weights from which on prepacking pays, and joining small layers into one product no longer does.

Measured on one core in float32: a packed product of 768 x 768 takes 0.75 of the time at 16 rows,
one of 128 x 512 takes 1.2 of it, because the packed kernel starts more slowly.
"""


def is_readable(layer: nn.Module) -> bool:
    """Whether the layer is a plain linear map, or one with plain LoRA adapters on it.

    Exact types: a subclass (quantised, parametrised, sharded) may compute anything.
    """
    if type(layer) is _lora_linear():
        lora = cast(Any, layer)
        plain = not lora.lora_variant and not any(lora.lora_bias.values())
        return plain and is_readable(lora.base_layer)
    return type(layer) in (nn.Linear, Conv1D)


def read_linear(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight of shape (in, out) and bias of shape (out,) that the layer acts with at this moment.

    Without adapters these are the parameters themselves, not copies.
    """
    lora = cast(Any, layer)
    if type(layer) is _lora_linear():
        if lora.disable_adapters and lora.merged:
            lora.unmerge()  # as its own forward does
        weight, bias = read_linear(lora.base_layer)
        if lora.disable_adapters or lora.merged:
            return weight, bias
        for adapter in lora.active_adapters:
            if adapter in lora.lora_A:
                delta = lora.get_delta_weight(adapter)
                weight = weight + (delta if lora.fan_in_fan_out else delta.t()).to(weight.dtype)
        return weight, bias
    weight = cast(Tensor, layer.weight)
    bias = cast(Tensor | None, layer.bias)
    return (weight if type(layer) is Conv1D else weight.t()), bias


def affine_map(layers: Sequence[nn.Module], pack: bool = False) -> AffineMap:
    """One map that gives the outputs of all `layers` side by side.

    Args:
        layers: readable linear layers with the same input.
        pack: spend a few steps' time now on weights that are faster in every step; CPU, float32
            only.
    """
    read = [read_linear(layer) for layer in layers]
    if len(read) > 1 and sum(weight.numel() for weight, _ in read) < LARGE:
        read = [_joined(read)]
    maps = [_single_map(weight, bias, pack) for weight, bias in read]
    if len(maps) == 1:
        return maps[0]
    return lambda x: torch.cat([each(x) for each in maps], dim=-1)


def added_map(layer: nn.Module, pack: bool = False) -> AddedMap:
    """What a block adds to its residual stream: one product that adds, where weights are plain.

    Args:
        layer: a readable linear layer.
        pack: see `affine_map`.
    """
    weight, bias = read_linear(layer)
    if _is_packed(weight, pack):
        packed = _PackedMap(weight, bias)
        return lambda x, y: x.add_(packed(y))
    if bias is None:
        return lambda x, y: x.addmm_(y, weight)
    return lambda x, y: x.addmm_(y, weight).add_(bias)


def _joined(read: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    """Several small layers as one: at this size each product costs more than its arithmetic."""
    weights = torch.cat([weight for weight, _ in read], dim=1)
    if all(bias is None for _, bias in read):
        return weights, None
    biases = [weight.new_zeros(weight.shape[1]) if bias is None else bias for weight, bias in read]
    return weights, torch.cat(biases)


def _single_map(weight: Tensor, bias: Tensor | None, pack: bool) -> AffineMap:
    if _is_packed(weight, pack):
        return _PackedMap(weight, bias)
    if bias is None:
        return lambda x: torch.mm(x, weight)
    return lambda x: torch.addmm(bias, x, weight)


def _is_packed(weight: Tensor, pack: bool) -> bool:
    return pack and weight.numel() >= LARGE and _can_pack(weight.device.type, weight.dtype)


class _PackedMap:
    """An affine map whose weight lies in the blocked order that oneDNN multiplies in.

    The operators are those that `torch.compile` emits for frozen weights.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.t())
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        product = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return cast(Tensor, product)


@cache
def _can_pack(device: str, dtype: torch.dtype) -> bool:
    """Whether this build of torch packs, and computes the same with packed weights."""
    if device != "cpu" or dtype != torch.float32:
        return False
    weight, bias, x = torch.linspace(-1, 1, 64 * 32).view(64, 32), torch.ones(32), torch.ones(3, 64)
    try:
        product = _PackedMap(weight, bias)(x)
    except (AttributeError, RuntimeError):  # not in this build, or with other arguments
        return False
    return torch.allclose(product, torch.addmm(bias, x, weight), atol=1e-4)


def _lora_linear() -> type | None:
    """peft's LoRA layer, if peft has been imported: no model can hold one before that."""
    module = sys.modules.get("peft.tuners.lora.layer")
    return None if module is None else cast(type, cast(Any, module).Linear)
