"""Llama, Mistral and Qwen2: rotary positions, RMS norms, gated layers, grouped queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from transformers import LlamaModel, MistralModel, Qwen2Model
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from rlhf_gym.core.decoding.elementwise import RMSNorm, activation
from rlhf_gym.core.decoding.fast import Architecture, Attend
from rlhf_gym.core.decoding.linear import AddedMap, AffineMap, added_map, affine_map, is_readable

_STATIC_ROPES = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings that do not depend on the length of what is read."""


class _Layer(NamedTuple):
    """One block: x += out(attend(rotate(qkv(norm_1 x)))); x += down(act(gate(n)) * up(n))."""

    norm_1: RMSNorm
    qkv: AffineMap
    out: AddedMap
    norm_2: RMSNorm
    gate_up: AffineMap
    act: Callable[[Tensor], Tensor]
    down: AddedMap


class LlamaForward(NamedTuple):
    """The trunk with the weights it had when it was read; see `Forward`.

    Attributes:
        rotations: cosines and signed sines of every position, shape (positions, 2 * size).
        rotated: how many of the projected numbers are queries and keys.
    """

    dtype: torch.dtype
    embedding: Tensor
    rotations: Tensor
    rotated: int
    layers: tuple[_Layer, ...]
    norm: RMSNorm

    def __call__(
        self, ids: Tensor, positions: Tensor, attend: Attend, wanted: Tensor | None = None
    ) -> Tensor:
        """See `Forward.__call__`."""
        x = embedding(ids, self.embedding)
        # (tokens, 1, size) each: every head of a token turns alike
        cosines, sines = embedding(positions, self.rotations).unsqueeze(1).chunk(2, dim=-1)
        for number, (norm_1, qkv, out, norm_2, gate_up, act, down) in enumerate(self.layers):
            projected = qkv(norm_1(x))
            self._rotate(projected, cosines, sines)
            mixed = attend(number, projected)
            if wanted is not None and number + 1 == len(self.layers):
                x, mixed = x[wanted], mixed[wanted]
            out(x, mixed)
            gate, up = gate_up(norm_2(x)).chunk(2, dim=-1)
            down(x, act(gate) * up)
        return self.norm(x)

    def _rotate(self, qkv: Tensor, cosines: Tensor, sines: Tensor) -> None:
        """Turn queries and keys, which lie side by side, by their positions; in place.

        (a, b) becomes (a cos - b sin, b cos + a sin) for the two halves of every head; `sines`
        carries the minus sign.

        Source: Su et al., "RoFormer" (2021), equation 34, with halves for pairs.
        """
        size = cosines.shape[-1]
        heads = qkv[:, : self.rotated].view(len(qkv), -1, size)
        swapped = heads.roll(size // 2, dims=-1)
        heads.mul_(cosines).addcmul_(swapped, sines)


class LlamaTrunk:
    """Reads `LlamaModel`, `MistralModel` or `Qwen2Model`; see `FastTrunk`.

    Source: Touvron et al., "LLaMA" (2023), section 2.2.
    """

    def __init__(self, trunk: Any) -> None:
        self._trunk = trunk
        config = trunk.config
        attentions = [layer.self_attn for layer in trunk.layers]
        self.architecture = Architecture(
            layers=len(attentions),
            heads=config.num_attention_heads,
            key_value_heads=config.num_key_value_heads,
            size=attentions[0].head_dim,
            scales=tuple(attention.scaling for attention in attentions),
            context=config.max_position_embeddings,
        )

    @property
    def device(self) -> torch.device:
        """See `FastTrunk.device`."""
        device: torch.device = self._trunk.embed_tokens.weight.device
        return device

    def read(self, positions: int, pack: bool) -> LlamaForward:
        """See `FastTrunk.read`."""
        trunk, size = self._trunk, self.architecture.size
        weight: Tensor = trunk.embed_tokens.weight
        places = torch.arange(positions, device=weight.device)[None]
        # The model's own tables, (positions, size) each, so that every static scaling is covered.
        cosines, sines = (table[0] for table in trunk.rotary_emb(weight, places))
        sines[:, : size // 2].neg_()
        heads = self.architecture.heads + self.architecture.key_value_heads
        return LlamaForward(
            weight.dtype,
            weight,
            torch.cat([cosines, sines], dim=-1),
            heads * size,
            tuple(_read_layer(layer, pack) for layer in trunk.layers),
            _read_norm(trunk.norm),
        )


def llama_trunk(trunk: Any) -> LlamaTrunk | None:
    """The fast trunk, or None if this one computes something else than Llama's forward."""
    if type(trunk) not in (LlamaModel, MistralModel, Qwen2Model):
        return None
    config = trunk.config.to_dict()
    looks_everywhere = (
        not config.get("sliding_window") or type(trunk) is Qwen2Model
    ) and "sliding_attention" not in (config.get("layer_types") or ())
    rope = trunk.rotary_emb
    static = rope.rope_type in _STATIC_ROPES
    linear = [
        layer
        for block in trunk.layers
        for layer in (*_attention_layers(block), *_gated_layers(block), block.mlp.down_proj)
    ]
    norms = [
        norm
        for block in trunk.layers
        for norm in (block.input_layernorm, block.post_attention_layernorm)
    ]
    readable = (
        all(is_readable(layer) for layer in linear)
        and all(
            type(norm) in (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm)
            for norm in (*norms, trunk.norm)
        )
        and type(trunk.embed_tokens) is nn.Embedding
        and 2 * len(rope.inv_freq) == trunk.layers[0].self_attn.head_dim
    )
    return LlamaTrunk(trunk) if looks_everywhere and static and readable else None


def _attention_layers(block: Any) -> list[nn.Module]:
    attention = block.self_attn
    return [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]


def _gated_layers(block: Any) -> list[nn.Module]:
    return [block.mlp.gate_proj, block.mlp.up_proj]


def _read_layer(block: Any, pack: bool) -> _Layer:
    *qkv, out = _attention_layers(block)
    return _Layer(
        _read_norm(block.input_layernorm),
        affine_map(qkv, pack),
        added_map(out, pack),
        _read_norm(block.post_attention_layernorm),
        affine_map(_gated_layers(block), pack),
        activation(block.mlp.act_fn),
        added_map(block.mlp.down_proj, pack),
    )


def _read_norm(norm: Any) -> RMSNorm:
    return RMSNorm.of(norm.weight, norm.variance_epsilon)
