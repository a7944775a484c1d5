"""Every number here was worked out by hand; the arithmetic stands beside it."""

import pytest
import torch

from rlhf_gym.agents.functional import (
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    gae,
    log_probs_and_entropy,
    masked_mean,
    masked_variance,
    whiten,
)
from rlhf_gym.core.tokens import TokenRules, entropy, gather_log_probs, legal_logits

GARBAGE = 1e6


def tensor(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)


def test_masked_moments_ignore_padding() -> None:
    values = tensor([1.0, 3.0, GARBAGE], [5.0, GARBAGE, GARBAGE])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_mean(values, mask) == 3.0  # (1 + 3 + 5) / 3
    assert masked_variance(values, mask) == pytest.approx(8 / 3)  # (4 + 0 + 4) / 3, population


def test_masked_mean_of_nothing_is_zero() -> None:
    assert masked_mean(tensor([GARBAGE]), torch.tensor([[False]])) == 0.0


def test_whiten_grid() -> None:
    # 1.2, 1.4, .., 2.8: mean 2, population variance 0.04 (16 + 9 + 4 + 1) 2 / 9 = 0.2666..,
    # deviation 0.5163978. First: (1.2 - 2) / 0.5163978 = -1.549193; second: -0.6 / .. = -1.161895.
    grid = torch.arange(6, 15).reshape(3, 3) / 5
    mask = torch.ones(3, 3, dtype=torch.bool)
    whitened = whiten(grid, mask)
    assert whitened[0].tolist() == pytest.approx([-1.549193, -1.161895, -0.774597], abs=1e-5)
    assert whitened[1, 1].item() == pytest.approx(0.0, abs=1e-6)
    # Without the shift the mean, 2, is added back: -1.549193 + 2.
    unshifted = whiten(grid, mask, shift_mean=False)
    assert unshifted[0].tolist() == pytest.approx([0.450807, 0.838105, 1.225403], abs=1e-5)


def test_whiten_leaves_padding_at_zero() -> None:
    values = tensor([1.0, 3.0, GARBAGE])
    mask = torch.tensor([[True, True, False]])
    # mean 2, deviation 1
    assert whiten(values, mask)[0].tolist() == pytest.approx([-1.0, 1.0, 0.0])
    assert whiten(values, mask, shift_mean=False)[0].tolist() == pytest.approx([1.0, 3.0, 0.0])


def test_gae_of_one_episode_with_padding_behind_it() -> None:
    rewards = tensor([0.0, 0.0, 1.0, GARBAGE, GARBAGE])
    values = tensor([0.5, 0.4, 0.2, GARBAGE, GARBAGE])
    mask = torch.tensor([[True, True, True, False, False]])
    advantages, returns = gae(rewards, values, mask, gamma=1.0, gae_lambda=0.5)
    # delta = 0.4 - 0.5, 0.2 - 0.4, 1 - 0.2 = -0.1, -0.2, 0.8
    # A_2 = 0.8; A_1 = -0.2 + 0.5 * 0.8 = 0.2; A_0 = -0.1 + 0.5 * 0.2 = 0
    assert advantages[0].tolist() == pytest.approx([0.0, 0.2, 0.8, 0.0, 0.0], abs=1e-6)
    # R = A + V
    assert returns[0].tolist() == pytest.approx([0.5, 0.6, 1.0, 0.0, 0.0])


def test_gae_discounts() -> None:
    rewards, values = tensor([1.0, 2.0]), tensor([0.5, 1.0])
    mask = torch.ones(1, 2, dtype=torch.bool)
    advantages, _ = gae(rewards, values, mask, gamma=0.9, gae_lambda=0.8)
    # A_1 = 2 - 1 = 1; delta_0 = 1 + 0.9 * 1 - 0.5 = 1.4; A_0 = 1.4 + 0.9 * 0.8 * 1 = 2.12
    assert advantages[0].tolist() == pytest.approx([2.12, 1.0])


def test_gae_with_lambda_one_is_the_return_minus_the_value() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 4, 7, generator=generator)
    mask = torch.arange(7) < torch.tensor([[7], [1], [4], [6]])
    advantages, returns = gae(rewards, values, mask, gamma=1.0, gae_lambda=1.0)
    to_go = (rewards * mask).flip(-1).cumsum(-1).flip(-1) * mask
    torch.testing.assert_close(returns, to_go)
    torch.testing.assert_close(advantages, (to_go - values) * mask)


def test_policy_loss_is_pessimistic_on_both_sides() -> None:
    old = torch.zeros(1, 4)
    log_probs = tensor([1.5, 1.5, 0.5, 0.5]).log()  # ratios 1.5, 1.5, 0.5, 0.5
    advantages = tensor([1.0, -1.0, 1.0, -1.0])
    loss = clipped_policy_loss(log_probs, old, advantages, clip_range=0.2)
    # A = 1, ratio 1.5: max(-1.5, -1.2) = -1.2     A = -1, ratio 1.5: max(1.5, 1.2) = 1.5
    # A = 1, ratio 0.5: max(-0.5, -0.8) = -0.5     A = -1, ratio 0.5: max(0.5, 0.8) = 0.8
    assert loss[0].tolist() == pytest.approx([-1.2, 1.5, -0.5, 0.8])


def test_policy_loss_has_no_gradient_beyond_the_clip() -> None:
    log_probs = tensor([1.5, 1.1]).log().requires_grad_()
    clipped_policy_loss(log_probs, torch.zeros(1, 2), torch.ones(1, 2), 0.2).sum().backward()
    assert log_probs.grad is not None
    # Ratio 1.5 is beyond 1.2: 0. Ratio 1.1: d(-ratio)/d log pi = -1.1.
    assert log_probs.grad[0].tolist() == pytest.approx([0.0, -1.1])


def test_value_loss_by_hand() -> None:
    old, returns = tensor([0.0, 0.0, 0.0]), tensor([1.0, 1.0, -1.0])
    values = tensor([0.1, 0.5, 0.5])
    # 0.1 is within 0.2 of the old value: (0.1 - 1)^2 / 2 = 0.405
    # 0.5 is clipped to 0.2: max((0.5 - 1)^2, (0.2 - 1)^2) / 2 = 0.32
    # away from the target: max((0.5 + 1)^2, (0.2 + 1)^2) / 2 = 1.125
    loss = clipped_value_loss(values, old, returns, clip_range=0.2)
    assert loss[0].tolist() == pytest.approx([0.405, 0.32, 1.125])
    unclipped = clipped_value_loss(values, old, returns, clip_range=None)
    assert unclipped[0].tolist() == pytest.approx([0.405, 0.125, 1.125])


def test_explained_variance_by_hand() -> None:
    returns = tensor([0.0, 2.0, 4.0, GARBAGE])
    mask = torch.tensor([[True, True, True, False]])
    # Residuals 1, 1, 4 after values -1, 1, 0: mean 2, variance 2. Var[returns] = 8/3. 1 - 3/4.
    values = tensor([-1.0, 1.0, 0.0, -GARBAGE])
    assert explained_variance(values, returns, mask).item() == pytest.approx(0.25)
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(values, torch.ones(1, 4), mask).isnan()


RULES = TokenRules(vocab_size=7, pad_id=0, stop_ids=(1,), temperature=0.7, banned_ids=(5,))


@pytest.mark.parametrize("masked", [False, True])
def test_log_probs_and_entropy_equal_autograd_through_the_definition(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    # Nine logits for seven tokens: a model with a padded vocabulary.
    logits = torch.randn(6, 9, generator=generator, dtype=torch.float32).requires_grad_()
    actions = torch.tensor([1, 2, 3, 4, 6, 1])
    mask = torch.ones(6, 7, dtype=torch.bool)
    mask[:, 3] = actions == 3
    weights = torch.randn(2, 6, generator=generator)

    def total(log_probs: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
        return (weights[0] * log_probs + weights[1] * entropies).sum()

    legal = legal_logits(logits, RULES, mask if masked else None)
    defined = gather_log_probs(legal, actions), entropy(legal)
    ours = log_probs_and_entropy(logits, actions, RULES, mask if masked else None)
    for mine, theirs in zip(ours, defined, strict=True):
        torch.testing.assert_close(mine, theirs)
    (by_autograd,) = torch.autograd.grad(total(*defined), logits)
    (gradient,) = torch.autograd.grad(total(*ours), logits)
    torch.testing.assert_close(gradient, by_autograd.nan_to_num(0.0))


def test_log_probs_without_entropy_gradient() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0]], requires_grad=True)
    rules = TokenRules(vocab_size=3, pad_id=2, stop_ids=())
    log_probs, entropies = log_probs_and_entropy(logits, torch.tensor([0]), rules)
    # Two legal tokens, equally likely: log(1/2), entropy log 2, gradient [a] - pi = 1/2, -1/2, 0.
    assert log_probs.item() == pytest.approx(-0.6931472)
    assert entropies.item() == pytest.approx(0.6931472)
    log_probs.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([0.5, -0.5, 0.0])


def test_half_precision_logits_are_scored_in_float32() -> None:
    logits = torch.zeros(1, 3, dtype=torch.bfloat16, requires_grad=True)
    log_probs, _ = log_probs_and_entropy(
        logits, torch.tensor([0]), TokenRules(vocab_size=3, pad_id=2, stop_ids=())
    )
    assert log_probs.dtype == torch.float32
    log_probs.sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16
