"""Packed attention equals torch's on every row by itself, values and gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from rlhf_gym.agents.packed_attention import (
    LONGEST_ROW,
    AttentionPlan,
    is_faster,
    packed_causal_attention,
)

HEADS, SIZE, SCALE = 2, 5, 0.3


def row_by_row(qkv: Tensor, lengths: list[int]) -> Tensor:
    """torch's attention, one row at a time, shape (tokens, heads * size)."""
    mixed = []
    for row in qkv.split(lengths):
        queries, keys, values = row.view(-1, 3, HEADS, SIZE).permute(1, 2, 0, 3)
        out = scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=SCALE)
        mixed.append(out.transpose(0, 1).flatten(1))
    return torch.cat(mixed)


@pytest.mark.parametrize("lengths", [[1], [7, 7, 7], [2, 9, 1, 8, 4, 9]], ids=str)
def test_attention_equals_torchs(lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(lengths), 3 * HEADS * SIZE, generator=generator, requires_grad=True)
    mixed = packed_causal_attention(qkv, AttentionPlan.of(torch.tensor(lengths), HEADS), SCALE)
    expected = row_by_row(qkv, lengths)
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-5)
    weights = torch.randn(mixed.shape, generator=generator)
    gradients = [torch.autograd.grad((weights * y).sum(), qkv)[0] for y in (mixed, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_short_rows_share_lines() -> None:
    # Lines of 9. In falling order 9 | 9 | 8 | 6 2 | 5: only the row of 2 finds room, behind 6.
    plan = AttentionPlan.of(torch.tensor([5, 9, 2, 8, 9, 6]), HEADS)
    assert plan.width == 9
    # 5 lines of 9 slots for 39 tokens: 6 are padding.
    assert len(plan.tokens_to_slots) == 5 * 9 * HEADS
    assert int((plan.tokens_to_slots == 39 * HEADS).sum()) == 6 * HEADS
    # In the fourth line the row of 2 sees itself and nothing of the row of 6 before it.
    seen = (plan.bias[3 * HEADS] == 0).int()
    assert seen[6, :7].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert seen[7, :8].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]


def test_rows_of_one_length_need_one_bias_alone() -> None:
    plan = AttentionPlan.of(torch.tensor([3, 3]), HEADS)
    assert plan.bias.tolist() == [[0, -torch.inf, -torch.inf], [0, 0, -torch.inf], [0, 0, 0]]


def test_long_rows_half_precision_and_second_derivatives_go_elsewhere() -> None:
    assert is_faster(torch.zeros(1), LONGEST_ROW)
    assert not is_faster(torch.zeros(1), LONGEST_ROW + 1)
    assert not is_faster(torch.zeros(1, dtype=torch.bfloat16), 4)
    with sdpa_kernel(SDPBackend.MATH):
        assert not is_faster(torch.zeros(1), 4)
