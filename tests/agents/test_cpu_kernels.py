"""Our GELU and feed-forward layer equal torch's, values and gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import gelu
from transformers import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from rlhf_gym.agents.cpu_kernels import GeluTanh, feed_forward


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


def plain_feed_forward() -> GPT2MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mlp = GPT2MLP(24, GPT2Config(n_embd=8, resid_pdrop=0.0))
    mlp.act = GeluTanh()
    return mlp


def outputs_and_gradients(layer: Callable[[Tensor], Tensor], mlp: GPT2MLP) -> list[Tensor | None]:
    """What comes out for some input, and the gradients of input and parameters."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 8, generator=generator).requires_grad_()
    y = layer(x)
    mlp.zero_grad()
    (y * torch.randn(7, 8, generator=generator)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in mlp.parameters())]


def test_feed_forward_equals_the_module() -> None:
    mlp = plain_feed_forward()
    ours = outputs_and_gradients(lambda x: feed_forward(mlp, x), mlp)
    theirs = outputs_and_gradients(mlp, mlp)
    assert len(ours) == 6
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_feed_forward_gives_frozen_parameters_no_gradient() -> None:
    mlp = plain_feed_forward()
    mlp.c_fc.weight.requires_grad_(False)
    mlp.c_proj.bias.requires_grad_(False)
    ours = outputs_and_gradients(lambda x: feed_forward(mlp, x), mlp)
    theirs = outputs_and_gradients(mlp, mlp)
    assert [gradient is None for gradient in ours] == [False, False, True, False, False, True]
    torch.testing.assert_close(
        [g for g in ours if g is not None], [g for g in theirs if g is not None]
    )


def test_feed_forward_with_another_activation_is_the_module() -> None:
    mlp = plain_feed_forward()
    mlp.act = torch.nn.ReLU()
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(feed_forward(mlp, x), mlp(x))


def test_feed_forward_is_twice_differentiable_where_attention_is() -> None:
    mlp, x = plain_feed_forward(), torch.ones(1, 8, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):
        (slope,) = torch.autograd.grad(feed_forward(mlp, x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert bend.abs().max() > 0


def test_gelu_without_gradients_equals_the_one_with() -> None:
    x = torch.linspace(-12, 12, 500)
    with torch.no_grad():
        torch.testing.assert_close(GeluTanh()(x), GeluTanh()(x.requires_grad_()).detach())
