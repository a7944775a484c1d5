"""Likelihoods of judgements against hand-worked numbers, and where the kinds must agree."""

import itertools
import math

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.likelihoods import (
    bernoulli,
    bradley_terry,
    davidson,
    mean_loss,
    ordinal,
    plackett_luce,
    regression,
)

NAN = torch.nan


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=0, atol=atol)


# --- pairs -------------------------------------------------------------------------------------


def test_bradley_terry():
    first, second = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 0.0, 2.0 + math.log(3)])
    # ln sigmoid(1) = -ln(1 + e^-1) = -.313262; ln 1/2; ln sigmoid(-ln 3) = ln 1/4
    close(bradley_terry(first, second), [-0.313262, -0.693147, -1.386294])
    # the other way round: ln sigmoid(-1) = -1.313262; ln 1/2; ln 3/4
    close(bradley_terry(first, second, 0.0), [-1.313262, -0.693147, -0.287682])
    # a tie is half of each: (-.313262 - 1.313262) / 2
    close(bradley_terry(first, second, 0.5)[0], -0.813262)


def test_a_noisy_rater_bounds_the_loss():
    first, second = torch.tensor([0.0, -1000.0]), torch.tensor([math.log(3), 0.0])
    # .9 * 1/4 + .1 / 2 = .275; .9 * 0 + .05
    close(bradley_terry(first, second, noise=0.1), [math.log(0.275), math.log(0.05)])


def test_skips_count_nothing_and_have_no_gradient():
    scores = torch.tensor([1.0, 2.0], requires_grad=True)
    log_probs = bradley_terry(scores, torch.zeros(2), torch.tensor([1.0, NAN]))
    close(log_probs.detach(), [-0.313262, 0.0])
    loss = mean_loss(log_probs, torch.tensor([True, False]))
    close(loss.detach(), 0.313262)
    (gradient,) = torch.autograd.grad(loss, scores)
    # d/ds -ln sigmoid(s) = -(1 - sigmoid(1)) = -.268941
    close(gradient, [-0.268941, 0.0])
    assert mean_loss(torch.zeros(2), torch.zeros(2, dtype=torch.bool)).item() == 0.0


def test_davidson():
    first, second = torch.tensor([0.0] * 3 + [math.log(4)] * 3), torch.zeros(6)
    outcome = torch.tensor([1.0, 0.5, 0.0] * 2)
    # equal scores: a third each; a = 4, b = 1, sqrt(a b) = 2: 4/7, 2/7, 1/7
    expected = [1 / 3, 1 / 3, 1 / 3, 4 / 7, 2 / 7, 1 / 7]
    close(davidson(first, second, outcome).exp(), expected)
    # nu = 2: 1 : 2 : 1 and 4 : 4 : 1
    expected = [1 / 4, 1 / 2, 1 / 4, 4 / 9, 4 / 9, 1 / 9]
    close(davidson(first, second, outcome, math.log(2)).exp(), expected)
    assert davidson(first[:1], second[:1], torch.tensor([NAN])).item() == 0.0


# --- rankings ----------------------------------------------------------------------------------


def test_plackett_luce():
    # weights 3, 2, 1: 3/6 * 2/3 * 1 = 1/3; worst first: 1/6 * 2/5 * 1 = 1/15
    scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]).log()
    close(plackett_luce(scores).exp(), [1 / 3, 1 / 15])
    # only the best is known: 3/6 and 1/6
    close(plackett_luce(scores, places=1).exp(), [1 / 2, 1 / 6])


def test_a_ranking_of_two_is_a_pair():
    scores = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    expected = bradley_terry(scores[:, 0], scores[:, 1], noise=0.1)
    torch.testing.assert_close(plackett_luce(scores, noise=0.1), expected)


def test_items_that_are_not_there_change_nothing():
    scores = torch.tensor([[3.0, 2.0, 1.0, 99.0], [1.0, 2.0, 99.0, 99.0], [1.0, 99.0, 99.0, 99.0]])
    scores = scores.log().requires_grad_()
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    log_probs = plackett_luce(scores, mask)
    close(log_probs.exp().detach(), [1 / 3, 1 / 3, 1.0])
    # random rankings of three and of two: .9/3 + .1/6, .9/3 + .1/2; one alone is certain
    noisy = plackett_luce(scores, mask, noise=0.1)
    close(noisy.exp().detach(), [0.9 / 3 + 0.1 / 6, 0.9 / 3 + 0.05, 1.0])
    (gradient,) = torch.autograd.grad(noisy.sum(), scores)
    assert gradient.isfinite().all()
    assert torch.equal(gradient[~mask], torch.zeros(6))


@pytest.mark.parametrize(("places", "noise"), [(None, 0.0), (None, 0.2), (2, 0.2), (1, 0.0)])
def test_all_rankings_together_are_certain(places, noise):
    scores = torch.tensor([0.3, -1.0, 0.7, 0.1])
    orders = torch.tensor(list(itertools.permutations(range(4))))
    total = plackett_luce(scores[orders], places=places, noise=noise).exp().sum().item()
    # the items behind the ranked places stand in every order: 2! or 3! times
    repeated = {None: 1, 2: 2, 1: 6}[places]
    assert total == pytest.approx(repeated, abs=1e-5)


# --- one response ------------------------------------------------------------------------------


def test_bernoulli():
    scores = torch.tensor([math.log(3)] * 4)
    labels = torch.tensor([1.0, 0.0, 0.5, NAN])
    # ln 3/4, ln 1/4, half of both, nothing
    close(bernoulli(scores, labels), [-0.287682, -1.386294, -0.836988, 0.0])


def test_ordinal():
    # cuts -ln 3 and ln 3 at score 0: sigmoid(-ln 3) = 1/4, 3/4 - 1/4, 1 - 3/4
    cuts = torch.tensor([-math.log(3), math.log(3)])
    close(ordinal(torch.zeros(4), torch.tensor([0, 1, 2, -1]), cuts).exp(), [0.25, 0.5, 0.25, 1.0])


def test_two_levels_cut_at_nothing_are_a_thumb():
    scores = torch.linspace(-5, 5, 11)
    for level in (0, 1):
        expected = bernoulli(scores, float(level))
        actual = ordinal(scores, torch.full((11,), level), torch.zeros(1))
        torch.testing.assert_close(actual, expected)


def test_ordinal_keeps_its_digits_far_from_the_cuts():
    scores = torch.tensor([200.0, -200.0], requires_grad=True)
    log_probs = ordinal(scores, torch.tensor([1, 1]), torch.tensor([-1.0, 1.0]))
    # sigmoid(1 - 200) sigmoid(201) (1 - e^-2): -199 + ln .864665
    close(log_probs.detach(), [-199.145415, -199.145415], atol=1e-3)
    (gradient,) = torch.autograd.grad(log_probs.sum(), scores)
    close(gradient, [-1.0, 1.0])


def test_ordinal_learns_its_cuts():
    cuts = torch.tensor([-1.0, 0.5, 1.0], requires_grad=True)
    levels = torch.tensor([0, 1, 2, 3, -1])
    (gradient,) = torch.autograd.grad(ordinal(torch.zeros(5), levels, cuts).sum(), cuts)
    assert gradient.isfinite().all()
    assert (gradient != 0).all()


def test_regression():
    scores, ratings = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, 3.0, NAN])
    # -ln sqrt(2 pi) = -.918939; at std 2: -(1)^2 / 2 - ln 2 - .918939 = -2.112086
    close(regression(scores, ratings)[0], -0.918939)
    close(regression(scores, ratings, 2.0)[1:], [-2.112086, 0.0])


@pytest.mark.parametrize("noise", [-0.1, 1.0, NAN])
def test_noise_is_a_probability(noise):
    for likelihood in (
        lambda: bernoulli(torch.zeros(1), 1.0, noise=noise),
        lambda: plackett_luce(torch.zeros(1, 2), noise=noise),
    ):
        with pytest.raises(InvalidArgument, match="noise"):
            likelihood()


def test_bad_arguments():
    with pytest.raises(InvalidArgument, match="places=0"):
        plackett_luce(torch.zeros(1, 2), places=0)
    for cuts in ([1.0, 0.0], [1.0, 1.0], []):
        with pytest.raises(InvalidArgument, match="ascending"):
            ordinal(torch.zeros(1), torch.tensor([0]), torch.tensor(cuts))
    for level in (-2, 2):
        with pytest.raises(InvalidArgument, match="levels 0 to 1"):
            ordinal(torch.zeros(1), torch.tensor([level]), torch.tensor([0.0]))


def test_noise_may_differ_by_answer():
    first, second = torch.tensor([1.0, 1.0, -2.0]), torch.zeros(3)
    noise = torch.tensor([0.0, 0.1, 0.9])
    each = [bradley_terry(first[i], second[i], noise=n) for i, n in enumerate(noise.tolist())]
    torch.testing.assert_close(bradley_terry(first, second, noise=noise), torch.stack(each))
    ranked = torch.tensor([[1.0, 0.0, -1.0]]).expand(3, -1)
    each = [plackett_luce(ranked[i : i + 1], noise=n)[0] for i, n in enumerate(noise.tolist())]
    torch.testing.assert_close(plackett_luce(ranked, noise=noise), torch.stack(each))
    with pytest.raises(InvalidArgument, match="noise"):
        bradley_terry(first, second, noise=torch.tensor([0.0, 1.0, 0.0]))
