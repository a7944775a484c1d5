"""The noise of raters: one step by hand, and what expectation maximisation finds."""

import math

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.likelihoods import bradley_terry, mean_loss, random_share
from rlhf_gym.core.raters import MOST, RaterNoise


def test_random_share_by_hand():
    # P = 0.9 and 0.1, a coin is 0.5, noise 0.2: random 0.1 of 0.82 in all, and 0.1 of 0.18.
    share = random_share(torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log(), 0.2)
    assert share.tolist() == pytest.approx([0.1 / 0.82, 0.1 / 0.18], rel=1e-5)
    assert random_share(torch.tensor([0.9]).log(), torch.tensor([0.5]).log(), 0.0).item() == 0.0


def test_noise_by_hand():
    raters = RaterNoise(["anna", "bob"], prior=0.1, strength=10)
    assert raters.by_rater == {"anna": 0.1, "bob": 0.1}
    # anna's answers are impossible at random, bob's impossible by the scores.
    certain, impossible = torch.zeros(3), torch.full((3,), -1e9)
    who = raters.index(["anna", "bob", "bob"])
    by_scores = torch.where(who == 0, certain, impossible)
    raters.observe(who, by_scores, -1e9 - by_scores)
    raters.update()
    # anna (0 + 1) / (1 + 10), bob (2 + 1) / (2 + 10).
    assert raters.by_rater == pytest.approx({"anna": 1 / 11, "bob": 3 / 12})
    raters.update()  # nothing noted since: what was found stays
    assert raters.by_rater == pytest.approx({"anna": 1 / 11, "bob": 3 / 12})


def test_one_update_finds_the_maximum_of_the_posterior():
    # P = 0.9 for 60 answers and 0.1 for 40; by chance 0.5. The posterior's maximum, by a fine grid.
    probability = torch.tensor([0.9] * 60 + [0.1] * 40, dtype=torch.float64)
    raters = RaterNoise(["anna"], prior=0.2, strength=5)
    raters.observe(
        torch.zeros(100, dtype=torch.long), probability.log(), torch.full((100,), 0.5).log()
    )
    raters.update()
    grid = torch.linspace(0.001, 0.989, 9881, dtype=torch.float64)
    posterior = ((1 - grid[:, None]) * probability + 0.5 * grid[:, None]).log().sum(1)
    posterior += 5 * 0.2 * grid.log() + 5 * 0.8 * (1 - grid).log()
    assert raters.by_rater["anna"] == pytest.approx(float(grid[posterior.argmax()]), abs=2e-3)


def test_old_answers_are_forgotten():
    raters = RaterNoise(["anna"], window=3)
    who, impossible, certain = (
        torch.zeros(3, dtype=torch.long),
        torch.full((3,), -1e9),
        torch.zeros(3),
    )
    raters.observe(who, impossible, certain)
    raters.observe(who, certain, impossible)
    raters.update()
    assert raters.by_rater["anna"] == pytest.approx(1 / 13)  # (0 + 1) / (3 + 10)
    with pytest.raises(InvalidArgument, match="window="):
        RaterNoise(["anna"], window=0)


def test_an_answer_that_says_nothing_leaves_the_prior():
    raters = RaterNoise(["anna"], prior=0.3)
    half = torch.full((500,), -math.log(2.0))
    raters.observe(torch.zeros(500, dtype=torch.long), half, half)
    raters.update()
    assert raters.by_rater["anna"] == pytest.approx(0.3)


def test_it_finds_who_answers_at_random_while_scores_are_learned():
    """Four raters, 40 items, one of them a coin; the scores start from nothing."""
    rng = torch.Generator().manual_seed(0)
    truth = torch.randn(40, generator=rng) * 1.5
    count = 4000
    pairs = torch.randint(40, (count, 2), generator=rng)
    who = torch.randint(4, (count,), generator=rng)
    chance = torch.sigmoid(truth[pairs[:, 0]] - truth[pairs[:, 1]])
    chance = torch.where(who == 3, torch.full_like(chance, 0.5), chance)
    answers = torch.bernoulli(chance, generator=rng)
    raters = RaterNoise(["anna", "bob", "carla", "coin"])
    scores = torch.zeros(40, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=0.1)
    half = torch.full((count,), -math.log(2.0))
    for _ in range(60):
        first, second = scores[pairs[:, 0]], scores[pairs[:, 1]]
        optimizer.zero_grad()
        mean_loss(bradley_terry(first, second, answers, noise=raters.noise(who))).backward()
        optimizer.step()
        clean = bradley_terry(first.detach(), second.detach(), answers)
        raters.observe(who, clean, half)
        raters.update()
    found = raters.by_rater
    assert found["coin"] > 0.8
    assert max(found[name] for name in ("anna", "bob", "carla")) < 0.2
    assert torch.corrcoef(torch.stack([scores.detach(), truth]))[0, 1] > 0.97


def test_nobody_is_written_off():
    raters = RaterNoise(["anna"])
    who = raters.index(["anna"] * 10_000)
    raters.observe(who, torch.full((10_000,), -1e9), torch.zeros(10_000))
    raters.update()
    assert raters.by_rater["anna"] == MOST


def test_state_goes_on_where_it_was():
    first, second = RaterNoise(["anna", "bob"]), RaterNoise(["anna", "bob"])
    first.observe(first.index(["anna"]), torch.tensor([-2.0]), torch.tensor([-0.7]))
    second.load_state_dict(first.state_dict())
    for raters in (first, second):
        raters.update()
    assert first.by_rater == second.by_rater
    assert first.by_rater["anna"] > 0.1 == pytest.approx(first.by_rater["bob"])
    with pytest.raises(InvalidArgument, match="not the raters"):
        RaterNoise(["carla"]).load_state_dict(first.state_dict())


def test_bad_input():
    with pytest.raises(InvalidArgument, match="a name twice"):
        RaterNoise(["anna", "anna"])
    for prior in (0.0, 1.0, math.nan):
        with pytest.raises(InvalidArgument, match="prior="):
            RaterNoise(["anna"], prior=prior)
    with pytest.raises(InvalidArgument, match="strength="):
        RaterNoise(["anna"], strength=0.0)
    with pytest.raises(InvalidArgument, match="rater='bob'"):
        RaterNoise(["anna"]).index(["bob"])
