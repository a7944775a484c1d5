"""GELU and GPT-2's feed-forward layer for training passes on CPUs, where torch's own are slow."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from rlhf_gym.core.decoding.elementwise import gelu_tanh

_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = _LINEAR * 0.044715


def is_ours(x: Tensor) -> bool:
    """Whether kernels of ours take a tensor: float32 on a CPU, to be differentiated once.

    Who asks torch for attention without fused kernels, under `sdpa_kernel(SDPBackend.MATH)`, wants
    to differentiate twice, and is given torch's operations throughout.
    """
    fused: bool = torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
    return x.device.type == "cpu" and x.dtype == torch.float32 and fused


class GeluTanh(nn.Module):
    """GELU in its tanh form, as GPT-2 has it."""

    def forward(self, x: Tensor) -> Tensor:
        """x times a logistic function of x, shape as `x`."""
        if not is_ours(x):
            return nn.functional.gelu(x, approximate="tanh")
        if not torch.is_grad_enabled():
            return gelu_tanh(x)
        y: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
        return y


def feed_forward(mlp: Any, x: Tensor) -> Tensor:
    """GPT-2's feed-forward layer, c_proj(act(c_fc(x))), as one step of autograd if it is plain.

    What autograd would do out of place is done in place here, which saves 2 to 3 % of an update.
    Products through oneDNN would be faster still, but only for few numbers of tokens: it prepares
    and keeps kernels for each number, and hardly two minibatches have the same.

    Args:
        mlp: a `GPT2MLP`; with adapters or another activation it is called as it is.
        x: behind the norm, shape (tokens, hidden).

    Returns:
        Shape (tokens, hidden).
    """
    up, down = mlp.c_fc, mlp.c_proj
    is_plain = type(up) is Conv1D and type(down) is Conv1D and type(mlp.act) is GeluTanh
    y: Tensor
    if is_plain and is_ours(x):
        y = _FeedForward.apply(  # type: ignore[no-untyped-call]
            x, up.weight, up.bias, down.weight, down.bias
        )
    else:
        y = mlp(x)
    return y


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, slope = _gelu_and_slope(x, overwrite=False)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        d_x: Tensor = gradient * slope
        return d_x


class _FeedForward(torch.autograd.Function):
    """y = gelu(x U + a) D + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, a: Tensor, down: Tensor, b: Tensor) -> Tensor:
        inner, slope = _gelu_and_slope(torch.addmm(a, x, up), overwrite=True)
        ctx.save_for_backward(x, up, inner, slope, down)
        return torch.addmm(b, inner, down)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, up, inner, slope, down = ctx.saved_tensors
        # Of x, up, a, down, b: frozen ones get none.
        wanted = ctx.needs_input_grad
        d_down = inner.t() @ gradient if wanted[3] else None
        d_b = gradient.sum(0) if wanted[4] else None
        d_inner = torch.mm(gradient, down.t()).mul_(slope)
        d_x = torch.mm(d_inner, up.t()) if wanted[0] else None
        d_up = x.t() @ d_inner if wanted[1] else None
        d_a = d_inner.sum(0) if wanted[2] else None
        return d_x, d_up, d_a, d_down, d_b


def _gelu_and_slope(x: Tensor, *, overwrite: bool) -> tuple[Tensor, Tensor]:
    """y = x s(u), u = x (a + b x^2), s the logistic function: (1 + tanh(u / 2)) / 2; and dy/dx.

    torch's logistic function is several times faster than its tanh. The slope is computed now,
    while x and s are in the processor's cache; backward is then one product, and x is free.

    Args:
        x: shape (...).
        overwrite: write y where x was.

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016), section 2.
    """
    u = torch.addcmul(x.new_full((), _LINEAR), x, x, value=_CUBIC).mul_(x)
    gate = u.sigmoid()
    # dy/dx = s + x s' = s + s (1 - s) x u',  x u' = x (a + 3 b x^2) = 3 u - 2 a x
    slope = u.mul_(3).add_(x, alpha=-2 * _LINEAR)
    y = x.mul_(gate) if overwrite else x * gate
    slope.mul_(torch.addcmul(gate, gate, gate, value=-1)).add_(gate)
    return y, slope
