"""GPT-2: learned positions, layer norms, one product for queries, keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from transformers import GPT2Model

from rlhf_gym.core.decoding.elementwise import activation
from rlhf_gym.core.decoding.fast import Architecture, Attend
from rlhf_gym.core.decoding.linear import AddedMap, AffineMap, added_map, affine_map, is_readable


class _Norm(NamedTuple):
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps, False)


class _Layer(NamedTuple):
    """One block: x += out(attend(qkv(norm_1 x))); x += down(act(up(norm_2 x)))."""

    norm_1: _Norm
    qkv: AffineMap
    out: AddedMap
    norm_2: _Norm
    up: AffineMap
    act: Callable[[Tensor], Tensor]
    down: AddedMap


class GPT2Forward(NamedTuple):
    """The trunk with the weights it had when it was read; see `Forward`."""

    dtype: torch.dtype
    token_embedding: Tensor
    position_embedding: Tensor
    layers: tuple[_Layer, ...]
    norm: _Norm

    def __call__(
        self, ids: Tensor, positions: Tensor, attend: Attend, wanted: Tensor | None = None
    ) -> Tensor:
        """See `Forward.__call__`."""
        x = embedding(ids, self.token_embedding) + embedding(positions, self.position_embedding)
        for number, (norm_1, qkv, out, norm_2, up, act, down) in enumerate(self.layers):
            mixed = attend(number, qkv(norm_1(x)))
            if wanted is not None and number + 1 == len(self.layers):
                x, mixed = x[wanted], mixed[wanted]
            out(x, mixed)
            down(x, act(up(norm_2(x))))
        return self.norm(x)


class GPT2Trunk:
    """Reads `transformers.GPT2Model`; see `FastTrunk`.

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section
    2.3.
    """

    def __init__(self, trunk: GPT2Model) -> None:
        self._trunk = trunk
        config = trunk.config
        size = config.hidden_size // config.num_attention_heads
        scale = size**-0.5 if config.scale_attn_weights else 1.0
        by_depth = config.scale_attn_by_inverse_layer_idx
        layers = config.num_hidden_layers
        self.architecture = Architecture(
            layers=layers,
            heads=config.num_attention_heads,
            key_value_heads=config.num_attention_heads,
            size=size,
            scales=tuple(scale / (layer + 1 if by_depth else 1) for layer in range(layers)),
            context=config.max_position_embeddings,
        )

    @property
    def device(self) -> torch.device:
        """See `FastTrunk.device`."""
        return self._trunk.wte.weight.device

    def read(self, positions: int, pack: bool) -> GPT2Forward:
        """See `FastTrunk.read`."""
        trunk = self._trunk
        return GPT2Forward(
            trunk.wte.weight.dtype,
            trunk.wte.weight,
            trunk.wpe.weight,
            tuple(_read_block(block, pack) for block in _blocks(trunk)),
            _read_norm(trunk.ln_f),
        )


def gpt2_trunk(trunk: nn.Module) -> GPT2Trunk | None:
    """The fast trunk, or None if this one computes something else than GPT-2's forward."""
    if type(trunk) is not GPT2Model or trunk.config.add_cross_attention:
        return None
    linear = (
        layer
        for block in _blocks(trunk)
        for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
    )
    norms = (norm for block in _blocks(trunk) for norm in (block.ln_1, block.ln_2))
    readable = (
        all(is_readable(layer) for layer in linear)
        and all(type(norm) is nn.LayerNorm for norm in (*norms, trunk.ln_f))
        and type(trunk.wte) is type(trunk.wpe) is nn.Embedding
    )
    return GPT2Trunk(trunk) if readable else None


def _blocks(trunk: GPT2Model) -> list[Any]:
    """The blocks, untyped: their classes annotate no attribute."""
    return list(trunk.h)


def _read_block(block: Any, pack: bool) -> _Layer:
    return _Layer(
        _read_norm(block.ln_1),
        affine_map([block.attn.c_attn], pack),
        added_map(block.attn.c_proj, pack),
        _read_norm(block.ln_2),
        affine_map([block.mlp.c_fc], pack),
        activation(block.mlp.act),
        added_map(block.mlp.c_proj, pack),
    )


def _read_norm(norm: nn.LayerNorm) -> _Norm:
    return _Norm(cast(Tensor, norm.weight), cast(Tensor, norm.bias), norm.eps)
