"""KL estimators against hand-worked numbers and the properties that define them."""

import math

import pytest
import torch

from rlhf_gym.rewards.kl_estimators import kl_exact, kl_k1, kl_k2, kl_k3

# pi = (1/2, 1/4, 1/4), pi_ref = (1/4, 1/4, 1/2)
LOG_PI = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()
LOG_REF = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        # log ratios: ln 2 = .693147, 0, -ln 2
        (kl_k1, [0.693147, 0.0, -0.693147]),
        # (ln 2)^2 / 2 = .240227
        (kl_k2, [0.240227, 0.0, 0.240227]),
        # exp(-ln 2) - 1 + ln 2 = .5 - 1 + .693147; exp(ln 2) - 1 - ln 2 = 2 - 1 - .693147
        (kl_k3, [0.193147, 0.0, 0.306853]),
    ],
)
def test_sampled_estimators_of_each_token(estimator, expected):
    torch.testing.assert_close(
        estimator(LOG_PI, LOG_REF), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_exact_kl():
    # 1/2 ln 2 + 0 - 1/4 ln 2 = .25 ln 2
    assert kl_exact(LOG_PI, LOG_REF).item() == pytest.approx(0.1732868, abs=1e-7)


@pytest.mark.parametrize("estimator", [kl_k1, kl_k3])
def test_k1_and_k3_are_unbiased(estimator):
    mean = (LOG_PI.exp() * estimator(LOG_PI, LOG_REF)).sum()
    assert mean.item() == pytest.approx(0.25 * math.log(2), abs=1e-12)


def test_exact_ignores_what_the_policy_never_emits():
    never = -torch.inf
    log_pi = torch.tensor([[0.0, never, never], [math.log(0.5), math.log(0.5), never]])
    log_ref = torch.tensor([[math.log(0.5), math.log(0.5), never], [math.log(0.25)] * 2 + [0.0]])
    # row 0: 1 (0 - ln 1/2) = ln 2, though the reference would emit token 1 and neither token 2;
    # row 1: 2 * 1/2 (ln 1/2 - ln 1/4) = ln 2
    torch.testing.assert_close(kl_exact(log_pi, log_ref), torch.tensor([math.log(2)] * 2))


def test_exact_is_infinite_where_only_the_reference_excludes_a_token():
    log_ref = torch.tensor([0.0, -torch.inf, -torch.inf], dtype=torch.float64)
    assert kl_exact(LOG_PI, log_ref).item() == math.inf


def test_exact_keeps_nan_and_has_a_finite_gradient():
    assert kl_exact(torch.full((3,), torch.nan), LOG_REF).isnan()
    logits = torch.tensor([0.3, -0.2, -torch.inf], requires_grad=True)
    log_ref = torch.tensor([0.1, 0.4, -torch.inf]).log_softmax(-1)
    (gradient,) = torch.autograd.grad(kl_exact(logits.log_softmax(-1), log_ref), logits)
    assert gradient.isfinite().all()
    assert gradient[:2].abs().min() > 0


def test_k3_keeps_its_digits_where_the_models_nearly_agree():
    # lr = 1e-4: lr^2/2 - lr^3/6 = 5e-9 - 1.7e-13; exp(-lr) - 1 + lr in float32 would give 0
    estimate = kl_k3(torch.tensor(1e-4), torch.tensor(0.0)).item()
    assert estimate == pytest.approx(5e-9, rel=0.01)


@pytest.mark.parametrize("estimator", [kl_k1, kl_k2, kl_k3])
def test_equal_models_have_exactly_no_kl(estimator):
    assert torch.equal(estimator(LOG_PI, LOG_PI), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("estimator", [kl_k2, kl_k3])
def test_k2_and_k3_are_never_negative(estimator):
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(2, 1000, generator=generator) * 5
    assert estimator(log_probs[0], log_probs[1]).min() >= 0
