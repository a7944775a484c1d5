"""Our GELU equals torch's, values and gradients."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import gelu

from rlhf_gym.agents.cpu_kernels import GeluTanh


def test_gelu_by_hand() -> None:
    # 0.5 * 1 * (1 + tanh(sqrt(2 / pi) * 1.044715)) = 0.5 * (1 + tanh(0.8335564)) = 0.8411920
    assert GeluTanh()(torch.tensor([1.0])).item() == pytest.approx(0.8411920)


def test_gelu_equals_torchs() -> None:
    x = torch.linspace(-12, 12, 500, requires_grad=True)
    ours, theirs = GeluTanh()(x), gelu(x, approximate="tanh")
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    weights = torch.linspace(-1, 1, 500)
    gradients = [torch.autograd.grad((weights * y).sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_gelu_in_other_types_is_torchs() -> None:
    x = torch.linspace(-3, 3, 9, dtype=torch.bfloat16)
    assert torch.equal(GeluTanh()(x), gelu(x, approximate="tanh"))


def test_gelu_is_twice_differentiable_where_attention_is() -> None:
    # At 0: y = x (1 + tanh(sqrt(2 / pi) x + ..)) / 2, so y'' = 2 * sqrt(2 / pi) / 2 = 0.7978846
    x = torch.zeros(1, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):
        y = GeluTanh()(x)
    (slope,) = torch.autograd.grad(y, x, create_graph=True)
    (bend,) = torch.autograd.grad(slope, x)
    assert (slope.item(), bend.item()) == pytest.approx((0.5, 0.7978846))
