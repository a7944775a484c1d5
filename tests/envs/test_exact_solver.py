"""The exact solver: a case worked out by hand, two ways to every number, and its limits."""

import math

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs.exact.solver import (
    ResponseTree,
    evaluate,
    evaluate_by_enumeration,
    solve,
    value_by_enumeration,
)

PAD, STOP, X, Y = range(4)
RULES = TokenRules(vocab_size=4, pad_id=PAD, stop_ids=(STOP,))


def table(*rows):
    """Probabilities as a table of log-probabilities, one prompt."""
    return tuple(torch.tensor([row], dtype=torch.float64).log() for row in rows)


def payments(*rows):
    return tuple(torch.tensor([row], dtype=torch.float64) for row in rows)


def random_problem(seed=0, horizon=3, prompts=2):
    generator = torch.Generator().manual_seed(seed)
    tree = ResponseTree(RULES, horizon)
    shapes = [(prompts, 2**d, 4) for d in range(horizon)]
    draw = [torch.randn(s, generator=generator, dtype=torch.float64) * 2 for s in shapes]
    for logits in draw:
        logits[..., PAD] = -torch.inf
    reference = tuple(logits.log_softmax(-1) for logits in draw)
    rewards = tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return tree, reference, rewards


# One step, and a second one behind x only in earnest: behind y nothing is paid.
HAND_TREE = ResponseTree(TokenRules(3, PAD, (STOP,)), 2)
HAND_REFERENCE = table([[0, 0.5, 0.5]], [[0, 0.5, 0.5]])
HAND_REWARDS = payments([[0, 0, 0]], [[0, math.log(2), math.log(6)]])


def test_optimum_of_a_hand_worked_case():
    # Responses, beta = 1:       probability   reward   weight p * exp(r)
    #   stop                        1/2          0          1/2
    #   x stop                      1/4        log 2        1/2
    #   x x                         1/4        log 6        3/2
    # Z = 5/2, value = log 2.5. First token: x with 2 / 2.5 = 0.8; behind x: stop 1/4, x 3/4.
    solution = solve(HAND_TREE, HAND_REFERENCE, HAND_REWARDS, 1.0)
    assert solution.values[0].item() == pytest.approx(0.9162907318741551)
    assert solution.log_probs[0].exp().flatten().tolist() == pytest.approx([0, 0.2, 0.8])
    assert solution.log_probs[1].exp().flatten().tolist() == pytest.approx([0, 0.25, 0.75])


def test_performance_of_a_hand_worked_case():
    # The optimum's responses have probabilities 0.2, 0.2, 0.6.
    #   E[r] = 0.2 log 2 + 0.6 log 6                               = 1.213685
    #   KL   = 0.2 log 0.4 + 0.2 log 0.8 + 0.6 log 2.4             = 0.297394
    # and E[r] - KL is the value, log 2.5 = 0.916291.
    solution = solve(HAND_TREE, HAND_REFERENCE, HAND_REWARDS, 1.0)
    best = evaluate(HAND_TREE, solution.log_probs, HAND_REFERENCE, HAND_REWARDS)
    assert best.reward.item() == pytest.approx(1.213685, abs=1e-6)
    assert best.kl.item() == pytest.approx(0.297394, abs=1e-6)
    assert best.objective(1.0) == pytest.approx(0.916291, abs=1e-6)


def test_two_step_values_agree_with_the_hand_worked_case():
    # Behind x: log(1/2 * 2 + 1/2 * 6) = log 4.
    solution = solve(HAND_TREE, HAND_REFERENCE, HAND_REWARDS, 1.0)
    assert solution.values[1].item() == pytest.approx(1.3862943611198906)


@pytest.mark.parametrize("kl_coef", [0.05, 0.3, 2.0])
def test_enumeration_and_dynamic_programming_agree(kl_coef):
    tree, reference, rewards = random_problem()
    solution = solve(tree, reference, rewards, kl_coef)
    summed = value_by_enumeration(tree, reference, rewards, kl_coef)
    torch.testing.assert_close(solution.values[0].squeeze(-1), summed, rtol=0, atol=1e-9)
    for policy in (solution.log_probs, reference, random_problem(seed=1)[1]):
        backward = evaluate(tree, policy, reference, rewards)
        forward = evaluate_by_enumeration(tree, policy, reference, rewards)
        torch.testing.assert_close(backward.reward, forward.reward, rtol=0, atol=1e-9)
        torch.testing.assert_close(backward.kl, forward.kl, rtol=0, atol=1e-9)


def test_nothing_beats_the_optimum():
    tree, reference, rewards = random_problem()
    solution = solve(tree, reference, rewards, 0.5)
    best = evaluate(tree, solution.log_probs, reference, rewards).objective(0.5)
    assert best == pytest.approx(float(solution.values[0].mean()), abs=1e-9)
    for seed in range(1, 20):
        other = evaluate(tree, random_problem(seed)[1], reference, rewards)
        assert other.objective(0.5) < best


def test_optimum_is_the_reference_tilted_by_the_reward():
    # pi*(y) / pi_ref(y) is proportional to exp(r(y) / beta), response by response.
    tree, reference, rewards = random_problem()
    solution = solve(tree, reference, rewards, 0.5)
    tilt = tree.along(solution.log_probs) - tree.along(reference) - tree.along(rewards) / 0.5
    torch.testing.assert_close(tilt, tilt[:, :1].expand_as(tilt), rtol=0, atol=1e-9)


def test_a_policy_equal_to_the_reference_has_no_kl():
    tree, reference, rewards = random_problem()
    assert evaluate(tree, reference, reference, rewards).kl.tolist() == [0.0, 0.0]


def test_a_deterministic_policy_is_fine():
    # Always stop at once: reward of stopping, KL = -log pi_ref(stop).
    tree, reference, rewards = random_problem()
    stop = tuple(torch.full_like(entry, -torch.inf) for entry in reference)
    for entry in stop:
        entry[..., STOP] = 0.0
    for way in (evaluate, evaluate_by_enumeration):
        performance = way(tree, stop, reference, rewards)
        torch.testing.assert_close(performance.reward, rewards[0][:, 0, STOP])
        torch.testing.assert_close(performance.kl, -reference[0][:, 0, STOP])


def test_all_responses_are_there_once():
    # 2 letters, horizon 3: stop at step 1, 2 or 3 (1 + 2 + 4), or 8 that run to the limit.
    rows, lengths = ResponseTree(RULES, 3).responses()
    assert len(rows) == 15
    assert len({tuple(row) for row in rows.tolist()}) == 15
    assert sorted(lengths.tolist()) == [1, 2, 2] + [3] * 12
    assert ((rows != PAD).sum(-1) == lengths).all()


def test_probabilities_of_all_responses_sum_to_one():
    tree, reference, _ = random_problem()
    total = tree.along(reference).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64))


def test_prefixes_are_numbered_like_numbers():
    tree = ResponseTree(RULES, 4)
    for length in range(4):
        numbers = [tree.node(prefix) for prefix in tree.prefixes(length).tolist()]
        assert numbers == list(range(2**length))


def test_banned_tokens_are_no_letters():
    tree = ResponseTree(TokenRules(4, PAD, (STOP,), banned_ids=(X,)), 3)
    assert tree.letters == (Y,)
    with pytest.raises(InvalidArgument, match="token 2 is no letter"):
        tree.node([X])


@pytest.mark.parametrize("kl_coef", [0.0, -0.1, float("nan")])
def test_no_optimum_without_a_penalty(kl_coef):
    tree, reference, rewards = random_problem()
    with pytest.raises(InvalidArgument, match="kl_coef"):
        solve(tree, reference, rewards, kl_coef)
    with pytest.raises(InvalidArgument, match="kl_coef"):
        value_by_enumeration(tree, reference, rewards, kl_coef)


@pytest.mark.parametrize("horizon", [0, 60])
def test_horizons_that_cannot_be_enumerated_are_refused(horizon):
    with pytest.raises(InvalidArgument, match="max_response_tokens"):
        ResponseTree(RULES, horizon)
