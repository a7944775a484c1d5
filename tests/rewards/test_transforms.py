"""Clipping, normalising, centring and margins, each on scores worked out by hand."""

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint, InvalidData, InvalidReward
from rlhf_gym.rewards import (
    Centred,
    Clipped,
    FunctionReward,
    GroupNormalised,
    LengthPenalty,
    Margin,
    RunningNormalised,
    UniformSpread,
    Whitened,
    as_weighted,
)


def numbers(prompts, responses):
    """The response is its own score."""
    return [float(response) for response in responses]


def totals(term, episodes):
    return term.token_rewards(episodes).sum(-1).tolist()


def test_clipped(write):
    episodes = write("-7 <stop>", "2 <stop>", "9 <stop>")
    assert totals(Clipped(numbers, -5, 4), episodes) == [-5.0, 2.0, 4.0]


def test_credit_stays_where_it_is(write):
    # 6 spread over three tokens; clipped to 4, the correction of -2 is at the last token
    term = Clipped(UniformSpread(lambda p, r: [6.0]), -4, 4)
    assert term.token_rewards(write("a b <stop>")).tolist() == [[2.0, 2.0, 0.0]]
    assert not term.terminal
    assert Clipped(numbers).terminal


def test_running_normalisation_learns_as_it_goes(write):
    term = RunningNormalised(numbers)
    # 1 and 3: mean 2, deviation 1
    assert totals(term, write("1 <stop>", "3 <stop>")) == [-1.0, 1.0]
    # with 8: mean 4, variance (9 + 1 + 16) / 3
    std = (26 / 3) ** 0.5
    assert totals(term, write("8 <stop>")) == pytest.approx([4 / std])
    assert (term.mean, term.std) == pytest.approx((4.0, std))
    # frozen: (1 - 4) / deviation, and nothing moves
    term.updates = False
    assert totals(term, write("1 <stop>")) == pytest.approx([-3 / std])
    assert term.mean == 4.0


def test_running_normalisation_keeps_the_mean_or_clips(write):
    episodes = write("1 <stop>", "3 <stop>")
    assert totals(RunningNormalised(numbers, keep_mean=True), episodes) == [1.0, 3.0]
    assert totals(RunningNormalised(numbers, clip=0.5), episodes) == [-0.5, 0.5]
    # one score, or equal ones: scale 1
    assert totals(RunningNormalised(numbers), write("7 <stop>")) == [0.0]
    assert totals(RunningNormalised(numbers, keep_mean=True), write("7 <stop>")) == [7.0]


def test_running_normalisation_resumes(write):
    first = as_weighted(RunningNormalised(numbers) - LengthPenalty())
    first.token_rewards(write("1 <stop>", "3 <stop>", "4 <stop>"))
    again = as_weighted(RunningNormalised(numbers) - LengthPenalty())
    again.load_state_dict(first.state_dict())
    later = write("8 <stop>", "-2 <stop>")
    assert torch.equal(again.token_rewards(later), first.token_rewards(later))
    with pytest.raises(InvalidCheckpoint, match="no count, mean"):
        RunningNormalised(numbers).load_state_dict({"reward": {"numbers": {}}})


def test_batches_of_any_size_give_the_same_moments(write):
    scores = ["3", "-1", "4", "1", "-5", "9"]
    whole, parts = RunningNormalised(numbers), RunningNormalised(numbers)
    whole.token_rewards(write(*[f"{s} <stop>" for s in scores]))
    for cut in (scores[:1], scores[1:4], scores[4:]):
        parts.token_rewards(write(*[f"{s} <stop>" for s in cut]))
    # mean 11 / 6; mean square (9 + 1 + 16 + 1 + 25 + 81) / 6 = 133 / 6
    expected = (11 / 6, (133 / 6 - (11 / 6) ** 2) ** 0.5)
    assert (whole.mean, whole.std) == pytest.approx(expected)
    assert (parts.mean, parts.std) == pytest.approx(expected)


def test_whitened(write):
    episodes = write("1 <stop>", "3 <stop>", "5 <stop>", "7 <stop>")
    # mean 4, variance (9 + 1 + 1 + 9) / 4 = 5
    root = 5**0.5
    expected = [-3 / root, -1 / root, 1 / root, 3 / root]
    assert totals(Whitened(numbers), episodes) == pytest.approx(expected)
    expected = [1 / root, 3 / root, 5 / root, 7 / root]
    assert totals(Whitened(numbers, keep_mean=True), episodes) == pytest.approx(expected)
    assert totals(Whitened(numbers), write("0.1 <stop>", "0.1 <stop>")) == [0.0, 0.0]


def test_groups_are_prompts(write):
    prompts = ["a", "b", "a", "b", "c"]
    episodes = write(*[f"{n} <stop>" for n in (1, 10, 3, 10, 5)], prompts=prompts)
    # a: 1 and 3, mean 2, deviation 1; b: equal; c: alone
    expected = [-1.0, 0.0, 1.0, 0.0, 0.0]
    assert totals(GroupNormalised(numbers), episodes) == expected
    episodes = write("1 <stop>", "5 <stop>", prompts=["a", "a"])
    assert totals(GroupNormalised(numbers, divide=False), episodes) == [-2.0, 2.0]


def test_nobody_to_compare_with(write):
    with pytest.raises(InvalidReward, match="no response has another"):
        Whitened(numbers).token_rewards(write("1 <stop>"))
    episodes = write("1 <stop>", "2 <stop>", prompts=["a", "b"])
    with pytest.raises(InvalidReward, match="several responses to each prompt"):
        GroupNormalised(numbers).token_rewards(episodes)


def test_batchwise_terms_are_known_through_sums_and_wrappers():
    assert as_weighted(numbers + 0.5 * Clipped(Whitened(numbers))).batchwise
    assert GroupNormalised(numbers).batchwise
    assert not as_weighted(Clipped(numbers) + RunningNormalised(numbers)).batchwise


def test_centred(write):
    episodes = write("1 <stop>", "3 <stop>")
    assert totals(Centred(numbers, 2.5), episodes) == [-1.5, 0.5]


def test_margin_over_the_answer_in_the_data(write):
    rows = [{"human": "2"}, {"human": "5"}, {"human": "2"}]
    episodes = write("1 <stop>", "9 <stop>", "6 <stop>", prompts=["a", "b", "a"], rows=rows)
    # 1 - 2, 9 - 5, 6 - 2
    assert totals(Margin(numbers, "human"), episodes) == [-1.0, 4.0, 4.0]


def test_margin_asks_once_per_prompt(write):
    asked = []

    def reference(prompts):
        asked.extend(prompts)
        return ["2"] * len(prompts)

    term = Margin(numbers, reference)
    assert totals(term, write("1 <stop>", "9 <stop>", prompts=["a", "a"])) == [-1.0, 7.0]
    assert totals(term, write("4 <stop>", prompts=["a"])) == [2.0]
    assert asked == ["a"]


def test_margin_answers_end_like_responses(write):
    seen = []

    def length(prompts, responses):
        return [0.0] * len(responses)

    class Watch(FunctionReward):
        def token_rewards(self, episodes):
            seen.append((episodes.response_ids.tolist(), episodes.stopped.tolist()))
            return super().token_rewards(episodes)

    episodes = write("x <stop>", "x y z", prompts=["a", "b"], rows=[{"t": "y"}, {"t": "z y x z"}])
    Margin(Watch(length), "t").token_rewards(episodes)
    # the first answer ends with a stop token, the second is cut at the budget of 3
    x, y, z = episodes.response_ids[1].tolist()
    assert seen[1] == ([[y, 1, 0], [z, y, x]], [True, False])


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Clipped(numbers, 1, 1), "low"),
        (lambda: Clipped(numbers, float("nan"), 1), "low"),
        (lambda: RunningNormalised(numbers, clip=0), "clip"),
        (lambda: Centred(numbers, float("inf")), "baseline"),
        (lambda: Margin(numbers, 3), "answers"),
        (lambda: Clipped(3), "reward"),
    ],
)
def test_arguments(make, field):
    with pytest.raises(InvalidArgument, match=field):
        make()


def test_margin_without_answers(write):
    with pytest.raises(InvalidData, match="no such column"):
        Margin(numbers, "human").token_rewards(write("1 <stop>"))
    with pytest.raises(InvalidData, match="one answer per prompt"):
        Margin(numbers, lambda prompts: []).token_rewards(write("1 <stop>"))
