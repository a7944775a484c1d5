"""Potential-based shaping on responses worked out by hand."""

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument, InvalidReward
from rlhf_gym.rewards import FunctionReward, Potential, PotentialShaping, as_weighted


class Fixed(Potential):
    """3 for the prompt, then 1, 4, 7."""

    def values(self, episodes):
        return torch.tensor([[3.0, 1.0, 4.0, 7.0]]).repeat(len(episodes), 1)

    def current(self, episodes):
        return self.values(episodes).gather(1, episodes.lengths.unsqueeze(-1)).squeeze(-1)


def count_words(prompts, begun):
    return [float(len(text.split())) for text in begun]


def test_shaping_by_hand(write):
    episodes = write("a b <stop>", "a")
    rewards = PotentialShaping(Fixed(), gamma=0.5).token_rewards(episodes)
    # .5 * 1 - 3, .5 * 4 - 1, and 0 - 4: Phi is 0 behind the last token, whatever the model says;
    # the second response ends at once: 0 - 3
    assert rewards.tolist() == [[-2.5, 1.0, -4.0], [-3.0, 0.0, 0.0]]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 1.0])
def test_the_discounted_sum_is_minus_the_prompts_potential(write, gamma):
    episodes = write("a b <stop>", "a", "a b c")
    rewards = PotentialShaping(Fixed(), gamma).token_rewards(episodes)
    discounted = (rewards * gamma ** torch.arange(3)).sum(-1)
    torch.testing.assert_close(discounted, torch.full((3,), -3.0))


def test_a_function_of_texts_sees_each_beginning_once(write):
    seen = []

    def potential(prompts, begun):
        seen.extend(zip(prompts, begun, strict=True))
        return count_words(prompts, begun)

    episodes = write("a b <stop>", "a b <stop>", "c", prompts=["p", "p", "q"])
    rewards = PotentialShaping(potential).token_rewards(episodes)
    assert seen == [("p", ""), ("p", "a"), ("p", "a b"), ("q", "")]
    # 1 - 0, 2 - 1, 0 - 2; and 0 - 0
    assert rewards.tolist() == [[1.0, 1.0, -2.0], [1.0, 1.0, -2.0], [0.0, 0.0, 0.0]]


def test_shaping_may_be_scaled_and_tells_its_discount():
    reward = as_weighted(FunctionReward(count_words) + 0.1 * PotentialShaping(Fixed(), 0.9))
    assert reward.gamma == 0.9
    assert as_weighted(count_words).gamma is None
    with pytest.raises(InvalidArgument, match="different discounts"):
        PotentialShaping(Fixed(), 0.9) + PotentialShaping(Fixed(), 1.0, name="other")


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan")])
def test_discounts_are_checked(gamma):
    with pytest.raises(InvalidArgument, match="gamma"):
        PotentialShaping(Fixed(), gamma)


def test_potentials_are_checked(write):
    with pytest.raises(InvalidArgument, match="potential"):
        PotentialShaping(3.0)
    with pytest.raises(InvalidArgument, match="neither a model nor a function"):
        PotentialShaping(torch.nn.Linear(2, 1))
    with pytest.raises(InvalidReward, match="no finite score"):
        PotentialShaping(lambda p, r: [float("nan")] * len(r)).token_rewards(write("a <stop>"))
    with pytest.raises(InvalidReward, match=r"not of shape \(1, 3\)"):
        PotentialShaping(Fixed()).token_rewards(write("a <stop>"))
