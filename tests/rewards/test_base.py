"""Terms add, subtract and scale; each keeps its name; scores land on the last token."""

import math

import numpy as np
import pytest
import torch

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint, InvalidReward
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.rewards.base import (
    FunctionReward,
    RewardTerm,
    SignedTerm,
    TokenStep,
    as_reward,
    as_weighted,
)

PAD, STOP = 0, 1


class Words:
    """Decodes token i as the letter i; leaves PAD and the stop token out."""

    def batch_decode(self, rows, skip_special_tokens):
        assert skip_special_tokens
        return ["".join(chr(97 + i) for i in row if i not in (PAD, STOP)) for row in rows]


@pytest.fixture
def episodes():
    # prompt of 2 columns; responses "cd" + stop, "cde" + f without a stop, stop alone
    responses = [[2, 3, STOP, PAD], [2, 3, 4, 5], [STOP, PAD, PAD, PAD]]
    prompts = [[PAD, 7], [7, 8], [PAD, 7]]
    ids = torch.tensor([p + r for p, r in zip(prompts, responses, strict=True)])
    return Episodes(
        input_ids=ids,
        attention_mask=ids != PAD,
        prompt_width=2,
        stopped=torch.tensor([True, False, True]),
        rules=TokenRules(vocab_size=9, pad_id=PAD, stop_ids=(STOP,)),
        tokenizer=Words(),
        prompts=["h", "hi", "h"],
    )


class PerToken(RewardTerm):
    """Pays 1 for each token, the stop token included."""

    def __init__(self, name):
        self.name = name
        self.calls = 0

    def token_rewards(self, episodes):
        return episodes.mask.float()

    def step_rewards(self, step):
        return torch.ones(len(step.actions))

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


class Penalty(SignedTerm, PerToken):
    def check_weight(self, weight):
        if weight >= 0:
            raise InvalidArgument(self.name, weight, "added", "Subtract it")


def length(prompts, responses):
    return [len(r) for r in responses]


def step_of(n):
    ids = torch.ones(n, 3, dtype=torch.long)
    ended = torch.zeros(n, dtype=torch.bool)
    return TokenStep(torch.arange(n), ids, ids, torch.ones(n, dtype=torch.long), ended)


def test_a_function_sees_texts_and_its_score_lands_on_the_last_token(episodes):
    seen = []

    def score(prompts, responses):
        seen.append((prompts, responses))
        return [1.0, 2.0, 3.0]

    rewards = FunctionReward(score).token_rewards(episodes)
    assert seen == [(["h", "hi", "h"], ["cd", "cdef", ""])]
    # on the stop token (column 2), on the last token without one (column 3), on the stop token
    # that stands alone (column 0); never on PAD
    expected = torch.tensor([[0, 0, 1.0, 0], [0, 0, 0, 2.0], [3.0, 0, 0, 0]])
    assert torch.equal(rewards, expected)


def test_each_term_is_reported_by_name_and_the_sum_is_the_reward(episodes):
    reward = FunctionReward(length) + 0.5 * PerToken("tokens") - 2 * Penalty("kl")
    terms = reward.term_rewards(episodes)
    assert list(terms) == ["length", "tokens", "kl"]
    # lengths in letters 2, 4, 0; .5 and -2 for each token: 3, 4 and 1 of them
    assert terms["length"].sum(-1).tolist() == [2.0, 4.0, 0.0]
    assert terms["tokens"].sum(-1).tolist() == [1.5, 2.0, 0.5]
    assert terms["kl"].sum(-1).tolist() == [-6.0, -8.0, -2.0]
    assert torch.equal(reward.token_rewards(episodes), sum(terms.values()))
    # 2 + 1.5 - 6, 4 + 2 - 8, 0 + .5 - 2
    assert reward.token_rewards(episodes).sum(-1).tolist() == [-2.5, -2.0, -1.5]


def weights(reward):
    return [(weight, term.name) for weight, term in as_weighted(reward).parts]


def test_algebra_of_weights():
    a, b, c = PerToken("a"), PerToken("b"), PerToken("c")
    assert weights(2 * (a - 0.25 * b) + c) == [
        (2.0, "a"),
        (-0.5, "b"),
        (1.0, "c"),
    ]
    assert weights(-(a - b)) == [(-1.0, "a"), (1.0, "b")]
    assert weights(length - a) == [(1.0, "length"), (-1.0, "a")]
    assert weights(length + a) == [(1.0, "length"), (1.0, "a")]
    assert weights(a - length) == [(1.0, "a"), (-1.0, "length")]
    assert weights(np.float32(0.5) * a) == [(0.5, "a")]
    assert weights(a) == [(1.0, "a")]


def test_names_of_functions():
    assert FunctionReward(length).name == "length"
    assert FunctionReward(lambda prompts, responses: []).name == "score"
    assert FunctionReward(length, name="letters").name == "letters"


def test_a_penalty_must_be_subtracted():
    a, penalty = PerToken("a"), Penalty("kl")
    for good in (a - penalty, a - 0.5 * penalty, -penalty + a, -0.5 * penalty, 2 * (a - penalty)):
        as_weighted(good)
    for bad in (
        lambda: a + penalty,
        lambda: a + 0.5 * penalty,
        lambda: penalty - a,
        lambda: -(a - penalty),
        lambda: as_weighted(penalty),
        lambda: as_weighted(0.5 * penalty),
    ):
        with pytest.raises(InvalidArgument, match="Subtract"):
            bad()


def test_terms_paid_step_by_step():
    reward = FunctionReward(length) + 0.5 * PerToken("tokens") - PerToken("kl")
    shares = reward.step_term_rewards(step_of(2))
    assert {name: share.tolist() for name, share in shares.items()} == {
        "tokens": [0.5, 0.5],
        "kl": [-1.0, -1.0],
    }
    assert reward.step_rewards(step_of(2)).tolist() == [-0.5, -0.5]
    assert as_weighted(length).step_rewards(step_of(2)).tolist() == [0.0, 0.0]
    assert as_weighted(length).terminal
    assert not reward.terminal


def test_a_term_without_steps_says_so():
    with pytest.raises(InvalidArgument, match="reward_timing='end'"):
        FunctionReward(length).step_rewards(step_of(2))


def test_state_goes_to_the_term_of_that_name():
    a, b = PerToken("a"), PerToken("b")
    a.calls, b.calls = 3, 5
    state = (a + b).state_dict()
    fresh = PerToken("b") + PerToken("a")
    fresh.load_state_dict(state)
    assert fresh.state_dict() == {"b": {"calls": 5}, "a": {"calls": 3}}
    with pytest.raises(InvalidCheckpoint, match="terms a, c"):
        (PerToken("a") + PerToken("c")).load_state_dict(state)


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        ([1.0, 2.0], r"shape \(2,\) for 3 responses"),
        (1.0, r"shape \(\) for 3 responses"),
        ([[1.0], [2.0], [3.0]], r"shape \(3, 1\)"),
        ([1.0, math.nan, 2.0], "length=nan: response 1"),
        ([1.0, 2.0, -math.inf], "length=-inf: response 2"),
        ("good", "length='good': not a sequence of numbers"),
        (["a", "b", "c"], "not a sequence of numbers"),
        ([1.0, None, 2.0], "not a sequence of numbers"),
        (None, "length=None"),
    ],
)
def test_what_a_reward_may_not_return(episodes, returned, problem):
    term = FunctionReward(lambda prompts, responses: returned, name="length")
    with pytest.raises(InvalidReward, match=problem):
        term.token_rewards(episodes)


@pytest.mark.parametrize(
    "returned",
    [
        (1, 2, 3),
        [True, False, True],
        np.array([1.0, 2.0, 3.0]),
        torch.ones(3, dtype=torch.float64, requires_grad=True),
    ],
)
def test_what_a_reward_may_return(episodes, returned):
    scores = FunctionReward(lambda prompts, responses: returned).scores(episodes)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad


@pytest.mark.parametrize("weight", ["2", None, math.nan, math.inf, [1.0]])
def test_what_is_no_weight(weight):
    with pytest.raises(InvalidArgument, match="weight"):
        PerToken("a") * weight


def test_what_is_no_reward():
    with pytest.raises(InvalidArgument, match="callable"):
        as_reward(3)
    with pytest.raises(InvalidArgument, match="name='a'"):
        PerToken("a") + PerToken("a")


def test_a_function_must_take_prompts_and_responses():
    with pytest.raises(InvalidReward, match=r"shouting='\(responses\)'.*def reward\(prompts"):
        FunctionReward(lambda responses: [1.0], name="shouting")
    with pytest.raises(InvalidReward, match="Words"):
        as_reward(Words)  # a class where its object was meant
    assert as_reward(lambda *texts: [1.0]).name == "score"
    assert as_reward(max).name == "max"  # says nothing about its arguments
