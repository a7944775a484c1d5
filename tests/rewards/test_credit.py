"""Credit by token: the same rewards at their address, or an error; never something else."""

import pytest
import torch

from rlhf_gym.core.errors import RewardWasWrapped
from rlhf_gym.rewards.credit import credit_by_token

# Two responses, of 3 and 2 tokens: KL -.1 a token, a score of 1 and of -.3 on the last.
TOKENS = torch.tensor([[-0.1, -0.1, 0.9, 0.0], [-0.1, -0.4, 0.0, 0.0]])
MASK = torch.tensor([[True, True, True, False], [True, True, False, False]])
# The same paid with the last step: .7 and -.5.
AT_END = torch.tensor([[0.0, 0.0, 0.7, 0.0], [0.0, -0.5, 0.0, 0.0]])


@pytest.mark.parametrize("steps", [AT_END, TOKENS], ids=["end", "step"])
def test_equal_returns_keep_the_token_rewards_bit_for_bit(steps):
    assert torch.equal(credit_by_token(steps, TOKENS, MASK), TOKENS)


@pytest.mark.parametrize("factor", [0.1, 3.0, -1.0, 1e-3])
@pytest.mark.parametrize("steps", [AT_END, TOKENS], ids=["end", "step"])
def test_a_scaling_wrapper_scales_the_tokens(steps, factor):
    credited = credit_by_token(factor * steps, TOKENS, MASK)
    torch.testing.assert_close(credited, factor * TOKENS)


def test_what_stands_behind_the_response_is_not_credited():
    noise = torch.where(MASK, TOKENS, 7.0)
    assert torch.equal(credit_by_token(AT_END, noise, MASK), TOKENS)


def test_rewards_that_cancel_may_be_paid_as_nothing():
    tokens = torch.tensor([[0.5, -0.5]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert torch.equal(credit_by_token(torch.zeros(1, 2), tokens, mask), tokens)


def test_float32_sums_over_long_responses_pass():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(8, 2000, generator=generator)
    steps = torch.zeros_like(tokens)
    for row in range(8):
        total = torch.zeros(())
        for value in tokens[row]:
            total += value
        steps[row, -1] = total
    assert torch.equal(credit_by_token(steps, tokens, torch.ones_like(tokens).bool()), tokens)


@pytest.mark.parametrize(
    "steps",
    [
        AT_END.clamp(-0.6, 0.6),
        AT_END + torch.tensor([[0.0, 0.0, 0.2, 0.0], [0.0, 0.2, 0.0, 0.0]]),
        AT_END / torch.tensor([[1.0], [1.5]]),
        AT_END.flip(0),
        AT_END + 0.01 * MASK,
        torch.zeros_like(AT_END),
        AT_END * torch.nan,
    ],
    ids=["clipped", "shifted", "normalised", "rows mixed", "bonus per step", "zeroed", "nan"],
)
def test_any_other_wrapper_is_refused(steps):
    with pytest.raises(RewardWasWrapped, match="reward_timing='step'"):
        credit_by_token(steps, TOKENS, MASK)


def test_a_bonus_per_step_shows_in_one_episode_alone():
    steps = AT_END[:1] + 0.05 * MASK[:1]
    with pytest.raises(RewardWasWrapped):
        credit_by_token(steps, TOKENS[:1], MASK[:1])
