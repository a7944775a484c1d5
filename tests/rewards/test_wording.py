"""Keywords, lexicon, regular expressions and checkers on sentences counted by hand."""

import pytest

from rlhf_gym.core.errors import InvalidArgument, InvalidData, InvalidReward
from rlhf_gym.rewards import (
    KeywordReward,
    LexiconReward,
    RegexReward,
    VerifiableReward,
    exact_match,
    numeric_match,
)
from rlhf_gym.rewards.verifiable import last_number


def test_keywords_pay_the_share_found(write):
    episodes = write("Thanks , my friend <stop>", "thankful c++ <stop>", "no <stop>")
    term = KeywordReward(["thanks", "my friend", "C++", "friend"])
    # three of four; "thankful" is another word, "c++" is found; none
    assert term.scores(episodes).tolist() == [0.75, 0.25, 0.0]
    # paid on the stop token
    assert term.token_rewards(episodes)[0].tolist() == [0, 0, 0, 0, 0.75]
    strict = KeywordReward(["thanks", "C++"], ignore_case=False)
    assert strict.scores(episodes).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("keywords", [[], "thanks", ["a", " "]])
def test_keywords_must_be_a_list_of_words(keywords):
    with pytest.raises(InvalidArgument, match="keywords"):
        KeywordReward(keywords)


def test_lexicon_sums_or_averages(write):
    episodes = write("Good, good but DULL! <stop>", "don't <stop>", "<stop>")
    weights = {"good": 1.0, "dull": -0.5, "don't": -2.0}
    # 1 + 1 - .5; -2; nothing
    assert LexiconReward(weights).scores(episodes).tolist() == [1.5, -2.0, 0.0]
    # four words, one, none
    averaged = LexiconReward(weights, average=True).scores(episodes)
    assert averaged.tolist() == [0.375, -2.0, 0.0]


@pytest.mark.parametrize("weights", [{}, {"two words": 1.0}, {"": 1.0}, {"good": float("nan")}])
def test_lexicon_is_checked(weights):
    with pytest.raises(InvalidArgument, match="weights"):
        LexiconReward(weights)


def test_regex(write):
    episodes = write("answer: 4 <stop>", "the answer: 12 yes <stop>", "four <stop>")
    assert RegexReward(r"answer: \d+").scores(episodes).tolist() == [1.0, 1.0, 0.0]
    assert RegexReward(r"answer: \d+", full=True).scores(episodes).tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(InvalidArgument, match="pattern"):
        RegexReward("(")


def test_a_checker_sees_prompt_response_and_row(write):
    rows = [{"answer": "4"}, {"answer": "9"}]
    episodes = write("4 <stop>", "3 <stop>", prompts=["2 + 2", "3 * 3"], rows=rows)
    seen = []

    def check(prompt, response, row):
        seen.append((prompt, response, row))
        return response == row["answer"]

    rewards = VerifiableReward(check).token_rewards(episodes)
    assert seen == [("2 + 2", "4", rows[0]), ("3 * 3", "3", rows[1])]
    assert rewards.tolist() == [[0, 1.0], [0, 0]]


def test_a_checker_needs_no_rows_and_may_give_parts(write):
    term = VerifiableReward(lambda prompt, response, row: 0.5 * ("a" in response), "half")
    assert term.scores(write("a <stop>", "b <stop>")).tolist() == [0.5, 0.0]


def test_exact_match(write):
    rows = [{"answer": " New  York"}] * 3
    episodes = write("new york <stop>", "New York City <stop>", "New York <stop>", rows=rows)
    assert VerifiableReward(exact_match()).scores(episodes).tolist() == [1.0, 0.0, 1.0]
    by_case = VerifiableReward(exact_match(ignore_case=False))
    assert by_case.scores(episodes).tolist() == [0.0, 0.0, 1.0]


def test_numeric_match(write):
    rows = [{"result": "#### 1,234.5"}, {"result": 10}, {"result": 10}, {"result": -3}]
    episodes = write(
        "2 * 617.25 = 1234.50 . <stop>", "10.4 <stop>", "ten <stop>", "-3 <stop>", rows=rows
    )
    assert VerifiableReward(numeric_match("result")).scores(episodes).tolist() == [1, 0, 0, 1]
    # |10.4 - 10| = .4 <= .05 * 10
    near = VerifiableReward(numeric_match("result", relative=0.05))
    assert near.scores(episodes).tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so it is 1,234.50.", 1234.5),
        ("10-20", 20.0),
        ("x=-3", -3.0),
        ("a .5", 0.5),
        ("6e2 m", 600.0),
        ("12,34", 34.0),
        ("none", None),
    ],
)
def test_last_number(text, number):
    assert last_number(text) == number


def test_checkers_say_what_they_miss(write):
    with pytest.raises(InvalidData, match="no such column"):
        VerifiableReward(exact_match("label")).scores(write("a <stop>", rows=[{"answer": "a"}]))
    with pytest.raises(InvalidData, match="no number"):
        VerifiableReward(numeric_match()).scores(write("a <stop>", rows=[{"answer": "a"}]))
    with pytest.raises(InvalidReward, match="no number"):
        VerifiableReward(lambda *seen: "yes").scores(write("a <stop>"))
    with pytest.raises(InvalidArgument, match="cannot be called"):
        VerifiableReward("exact")
    with pytest.raises(InvalidArgument, match="tolerance"):
        numeric_match(tolerance=-1)


def test_automated_and_learned_mix_by_weight(write):
    def learned(prompts, responses):
        return [2.0, -1.0]

    reward = learned + 0.5 * KeywordReward(["thanks"]) - RegexReward("[0-9]")
    episodes = write("thanks <stop>", "4 thanks <stop>")
    # 2 + .5 - 0 and -1 + .5 - 1
    assert reward.token_rewards(episodes).sum(-1).tolist() == [2.5, -1.5]
    assert reward.token_rewards(episodes)[0].tolist() == [0.0, 2.5, 0.0]
