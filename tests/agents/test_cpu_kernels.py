"""Our CPU kernels equal torch's, values and gradients."""

import pytest
import torch
from torch.nn.functional import gelu, scaled_dot_product_attention

from rlhf_gym.agents.cpu_kernels import LONGEST_ROW, GeluTanh, is_short, short_causal_attention


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


@pytest.mark.parametrize("width", [1, 7])
def test_attention_equals_torchs(width: int) -> None:
    rows, heads, size, scale = 3, 2, 5, 0.3
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(rows, width, 3 * heads * size, generator=generator, requires_grad=True)
    queries, keys, values = qkv.view(rows, width, 3, heads, size).permute(2, 0, 3, 1, 4)
    expected = scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scale)
    expected = expected.transpose(1, 2).reshape(rows, width, -1)
    mixed = short_causal_attention(qkv, heads, scale)
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-5)
    weights = torch.randn(mixed.shape, generator=generator)
    gradients = [torch.autograd.grad((weights * y).sum(), qkv)[0] for y in (mixed, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_long_rows_and_half_precision_go_elsewhere() -> None:
    assert is_short(torch.zeros(1, LONGEST_ROW, 3))
    assert not is_short(torch.zeros(1, LONGEST_ROW + 1, 3))
    assert not is_short(torch.zeros(1, 4, 3, dtype=torch.bfloat16))
