"""What a user types as schemes, and which reward it becomes."""

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.rewards import (
    FunctionReward,
    PartialScores,
    PotentialShaping,
    RewardPotential,
    RunningNormalised,
    Whitened,
    as_weighted,
)
from rlhf_gym.rewards.base import WeightedReward
from rlhf_gym.rewards.scheme_terms import TaskReward, scheme_reward
from rlhf_gym.rewards.schemes import PRESETS, parse_schemes


def points(prompts, responses):
    """3 for every "good", minus 1 for every other word."""
    words = [text.split() for text in responses]
    return [float(sum(3 if word == "good" else -1 for word in text)) for text in words]


@pytest.fixture
def task():
    return TaskReward(WeightedReward([(1.0, FunctionReward(points))]), None, None)


def paid(expression, task, episodes):
    return scheme_reward(expression, task).token_rewards(episodes).tolist()


def test_names_arguments_and_labels():
    schemes = parse_schemes("score, whitened,short=score-length(0.05), score - 0.5*regex('a,b=c')")
    assert [(scheme.name, scheme.expression) for scheme in schemes] == [
        ("score", "score"),
        ("whitened", "whitened(score)"),
        ("short", "score-length(0.05)"),
        ("score-0.5xregex_a_b_c", "score - 0.5*regex('a,b=c')"),
    ]
    assert [scheme.moves for scheme in schemes] == ["no", "batch", None, None]


@pytest.mark.parametrize("text", ["", "score,,lump", "a/b=score", "=score", "x=", "score,score"])
def test_lists_that_are_none(text):
    with pytest.raises(InvalidArgument, match="schemes"):
        parse_schemes(text)


def test_presets_by_hand(task, write):
    episodes = write("good so good <stop>")  # the stop token is no word: 3 - 1 + 3 = 5
    assert paid("score", task, episodes) == [[0, 0, 0, 5]]
    assert paid("lump(score)", task, episodes) == [[0, 0, 0, 5]]
    assert paid("uniform(score)", task, episodes) == [[1.25, 1.25, 1.25, 1.25]]
    # so far: 3, 2, 5, 5
    assert paid("dense(score)", task, episodes) == [[3, -1, 3, 0]]
    # half of Phi: 0, 1.5, 1, 2.5, and 0 at the end: 1.5, -.5, 1.5, -2.5, and the score
    assert paid("score + 0.5 * shaping(score)", task, episodes) == [[1.5, -0.5, 1.5, 2.5]]
    assert paid("centred(score, 0.5)", task, episodes) == [[0, 0, 0, 4.5]]
    assert paid("clipped(score, -1, 1)", task, episodes) == [[0, 0, 0, 1]]
    # 5 - 4 * 0.5 at 0.5 a token; the one pair of words that comes twice is none here
    assert paid("score - length(coef=0.5)", task, episodes) == [[-0.5, -0.5, -0.5, 4.5]]
    assert paid("score - repetition(n=2)", task, episodes) == [[0, 0, 0, 5]]
    assert paid("-0.5 * score + 2 * keywords(['so'])", task, episodes) == [[0, 0, 0, -0.5]]


def test_a_term_around_a_reward_takes_the_score_unless_told(task, write):
    episodes = write("good", "bad")
    assert paid("whitened", task, episodes) == paid("whitened(score)", task, episodes)
    assert paid("whitened(2 * score)", task, episodes) == [[1], [-1]]
    assert paid("clipped(high=2)", task, episodes) == [[2], [-1]]


def test_what_the_user_names_by_module(task, write):
    episodes = write("good", "bad")
    assert paid("0.5 * function('operator_of_tests:points')", task, episodes) == [[1.5], [-0.5]]


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
    text = "def points(prompts, responses):\n    return [3.0 if r == 'good' else -1.0 for r in "
    (tmp_path / "operator_of_tests.py").write_text(text + "responses]\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("whitend(score)", "did you mean 'whitened'"),
        ("score -", "not an expression"),
        ("score.parts", "more than a scheme can say"),
        ("__import__('os')", "no such term"),
        ("3", "not a reward term"),
        ("length(1, 2, 3)", "positional"),
        ("score - target_length", "target"),
        ("attention", "no reward model"),
        ("score - kl", "no reference"),
        ("score + length", "Subtract it"),
        ("dense(whitened(score))", "changes with other texts"),
        ("'a' * score", "finite number"),
    ],
)
def test_what_is_refused(expression, problem, task):
    with pytest.raises(InvalidArgument, match=problem):
        as_weighted(scheme_reward(expression, task))


def test_every_preset_can_be_meant():
    from rlhf_gym.envs.exact import ExactVectorEnv
    from rlhf_gym.rewards.scheme_terms import taken_apart

    env = ExactVectorEnv(num_envs=2)
    task = taken_apart(env.reward, env.reference)
    for name, preset in PRESETS.items():
        if name == "attention":
            continue  # needs a reward model: see the test of refusals
        made = ExactVectorEnv(
            num_envs=2, ends="together", reward=scheme_reward(preset.expression, task)
        )
        assert made.kl_coef == (0.0 if name == "no_kl" else 0.1)


def test_kl_keeps_what_is_not_said():
    from rlhf_gym.envs.exact import ExactVectorEnv
    from rlhf_gym.rewards.scheme_terms import taken_apart

    env = ExactVectorEnv(num_envs=2, kl_estimator="k3", kl_coef=0.3)
    task = taken_apart(env.reward, env.reference)
    for expression, coef, placement in (
        ("score", 0.3, "token"),
        ("score - kl(placement='sequence')", 0.3, "sequence"),
        ("score - kl(0.7)", 0.7, "token"),
    ):
        (_, penalty) = scheme_reward(expression, task).parts[-1]
        assert (penalty.estimator, penalty.coef, penalty.placement) == ("k3", coef, placement)


def test_an_opinion_of_unfinished_texts(write):
    episodes = write("good so <stop>", "good", budget=3)
    potential = RewardPotential(points)
    assert potential.values(episodes).tolist() == [[0, 3, 2, 2], [0, 3, 0, 0]]
    assert potential.current(episodes).tolist() == [2, 3]
    gains = PartialScores(potential).token_rewards(episodes)
    assert gains.tolist() == [[3, -1, 0], [3, 0, 0]]


def test_dense_is_shaping_of_the_lump(write):
    episodes = write("good so good <stop>", "so", "good good")
    potential = RewardPotential(points)
    shaped = FunctionReward(points) + PotentialShaping(potential)
    torch.testing.assert_close(
        PartialScores(potential).token_rewards(episodes), shaped.token_rewards(episodes)
    )


def test_a_text_that_was_cut_did_not_stop(write):
    from rlhf_gym.rewards.prefixes import cut

    episodes = write("a b <stop>", "a <stop>")
    assert cut(episodes, torch.tensor([0, 1]), 2).stopped.tolist() == [False, True]


def test_an_opinion_may_be_transformed(task, write):
    # so far 3, 2, 5, 5, clipped to 2.5
    episodes = write("good so good <stop>")
    assert paid("dense(clipped(score, high=2.5))", task, episodes) == [[2.5, -0.5, 0.5, 0]]


def test_an_opinion_may_not_depend_on_other_texts():
    with pytest.raises(InvalidArgument, match="changes with other texts"):
        RewardPotential(Whitened(points))
    with pytest.raises(InvalidArgument, match="changes with other texts"):
        RewardPotential(RunningNormalised(points))
