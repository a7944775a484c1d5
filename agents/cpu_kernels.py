"""GELU for training passes on CPUs, where torch's own kernel is slow."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
        y: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
        return y


class _Gelu(torch.autograd.Function):
    """y = x s(u), u = x (a + b x^2), s the logistic function: (1 + tanh(u / 2)) / 2.

    torch's logistic function is several times faster than its tanh.

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016), section 2.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        u = torch.addcmul(x.new_full((), _LINEAR), x, x, value=_CUBIC).mul_(x)
        gate = u.sigmoid()
        y = x * gate
        if ctx.needs_input_grad[0]:
            # Now, while x and s are in the processor's cache; backward is one product, and x is
            # free. dy/dx = s + x s' = s + s (1 - s) x u',  x u' = x (a + 3 b x^2) = 3 u - 2 a x
            slope = u.mul_(3).add_(x, alpha=-2 * _LINEAR)
            slope.mul_(torch.addcmul(gate, gate, gate, value=-1)).add_(gate)
            ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        d_x: Tensor = gradient * slope
        return d_x
