"""Length, missing stop, over-length and repetition, each on responses counted by hand."""

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.rewards import (
    FunctionReward,
    LengthPenalty,
    MissingStopPenalty,
    RepetitionPenalty,
    SoftOverlongPenalty,
    TargetLengthPenalty,
    TokenStep,
    as_weighted,
)

PENALTIES = {
    "length": LengthPenalty,
    "target_length": lambda **o: TargetLengthPenalty(3, **o),
    "soft_overlong": lambda **o: SoftOverlongPenalty(1, **o),
    "missing_stop": MissingStopPenalty,
    "repetition": RepetitionPenalty,
}


def one(prompts, responses):
    return [1.0] * len(responses)


def test_length_costs_each_token_its_own(write):
    episodes = write("so it is <stop>", "so")
    # four tokens with the stop token, and one
    expected = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0, 0, 0]])
    assert torch.equal(LengthPenalty(0.5).token_rewards(episodes), expected)
    # 1 - 4 * .5 and 1 - 1 * .5
    reward = FunctionReward(one) - LengthPenalty(0.5)
    assert reward.token_rewards(episodes).sum(-1).tolist() == [-1.0, 0.5]


def test_length_can_be_paid_step_by_step():
    ids = torch.ones(3, 4, dtype=torch.long)
    step = TokenStep(torch.arange(3), ids, ids, ids[:, 0], torch.zeros(3, dtype=torch.bool))
    assert LengthPenalty(0.25).step_rewards(step).tolist() == [0.25, 0.25, 0.25]
    assert (2 * LengthPenalty(0.25)).step_rewards(step).tolist() == [0.5, 0.5, 0.5]


def test_target_length_costs_the_distance(write):
    episodes = write("a b c d e", "a b <stop>", "<stop>")
    # lengths 5, 3, 1; target 3; .5 a token
    term = TargetLengthPenalty(3, coef=0.5)
    assert term.scores(episodes).tolist() == [1.0, 0.0, 1.0]
    assert term.token_rewards(episodes)[0].tolist() == [0, 0, 0, 0, 1.0]


def test_overlong_rises_over_the_buffer(write):
    episodes = write("a b c d e f", "a b c d e", "a b c d <stop>", "a b c <stop>", "<stop>")
    # limit 6, buffer 3: free up to 3 tokens; 4, 5, 6 tokens cost 1/3, 2/3, 1; times coef 3
    term = SoftOverlongPenalty(3, coef=3.0)
    torch.testing.assert_close(term.scores(episodes), torch.tensor([3.0, 2.0, 2.0, 1.0, 0.0]))
    # limit 4, buffer 2: free up to 2; the cost stays at 1 behind the limit
    term = SoftOverlongPenalty(2, limit=4)
    assert term.scores(episodes).tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_overlong_buffer_must_fit(write):
    with pytest.raises(InvalidArgument, match="longer than the limit of 4"):
        SoftOverlongPenalty(5, limit=4)
    with pytest.raises(InvalidArgument, match="longer than the limit of 2"):
        SoftOverlongPenalty(5).scores(write("a b"))


def test_missing_stop(write):
    episodes = write("a b c", "a b <stop>")
    term = MissingStopPenalty(2.0)
    assert term.token_rewards(episodes).tolist() == [[0, 0, 2.0], [0, 0, 0]]


def test_repeated_bigrams(write):
    episodes = write("a b a b a b", "a b c <stop>", "a a a a <stop>", "a <stop>", "<stop>")
    # ab ba ab ba ab: 2 distinct of 5;  ab bc;  aa aa aa: 1 of 3;  no bigram;  none
    expected = torch.tensor([1 - 2 / 5, 0, 1 - 1 / 3, 0, 0])
    torch.testing.assert_close(RepetitionPenalty(2).scores(episodes), expected)


def test_repetition_counts_within_a_response_only(write):
    # the same trigram in both responses is repeated in neither
    assert RepetitionPenalty(3).scores(write("a b c", "a b c")).tolist() == [0.0, 0.0]
    assert RepetitionPenalty(1).scores(write("a a b", "a b c")).tolist() == pytest.approx(
        [1 / 3, 0]
    )
    # a budget shorter than n
    assert RepetitionPenalty(4).scores(write("a a a")).tolist() == [0.0]


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_are_subtracted(name):
    with pytest.raises(InvalidArgument, match="Subtract it"):
        one + PENALTIES[name]()
    with pytest.raises(InvalidArgument, match="Subtract it"):
        as_weighted(PENALTIES[name]())
    reward = as_weighted(one - 0.5 * PENALTIES[name]())
    assert [(w, t.name) for w, t in reward.parts] == [(1.0, "one"), (-0.5, name)]


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("coef", [-0.1, float("nan"), float("inf"), "1"])
def test_coefficients_below_zero_are_refused(name, coef):
    with pytest.raises(InvalidArgument, match="coef"):
        PENALTIES[name](coef=coef)


@pytest.mark.parametrize("make", [RepetitionPenalty, TargetLengthPenalty, SoftOverlongPenalty])
@pytest.mark.parametrize("count", [0, 1.5, True])
def test_counts_are_whole_and_above_zero(make, count):
    with pytest.raises(InvalidArgument, match="not a whole number of 1 or more"):
        make(count)
