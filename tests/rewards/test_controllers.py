"""The KL controllers against the hand-worked steps of Ziegler et al. (2019)."""

import math

import pytest

from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
from rlhf_gym.rewards.controllers import AdaptiveKL, FixedKL, KLController, as_controller


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        # error = 12/6 - 1 = 1, clipped to .2: .15 (1 + .2 * 512/10000) = .15 * 1.01024
        (12.0, 0.151536),
        # error = 6.6/6 - 1 = .1: .15 (1 + .1 * .0512) = .15 * 1.00512
        (6.6, 0.150768),
        (6.0, 0.15),
        # error = 5.4/6 - 1 = -.1: .15 * .99488
        (5.4, 0.149232),
        # error = 0/6 - 1 = -1, clipped to -.2: .15 * .98976
        (0.0, 0.148464),
        # a negative sampled KL is no more than the largest error
        (-50.0, 0.148464),
    ],
)
def test_one_adaptive_step_of_512_episodes(kl, expected):
    controller = AdaptiveKL(initial=0.15, target=6.0, horizon=10_000)
    assert controller.update(kl, 512) == pytest.approx(expected, abs=1e-12)
    assert controller.coef == pytest.approx(expected, abs=1e-12)


def test_negative_kl_never_drives_the_coefficient_away():
    controller = AdaptiveKL()
    for _ in range(100):
        controller.update(-3.0, 1_000_000)
    # each call counts at most one horizon: .15 * .8^100
    assert controller.coef == pytest.approx(0.15 * 0.8**100)
    assert controller.coef > 0


def test_no_episodes_move_nothing():
    controller = AdaptiveKL()
    assert controller.update(60.0, 0) == 0.15


def test_state_survives():
    controller = AdaptiveKL()
    controller.update(12.0, 512)
    resumed = AdaptiveKL()
    resumed.load_state_dict(controller.state_dict())
    assert resumed.update(3.0, 64) == controller.update(3.0, 64)


def test_fixed_stays():
    controller = FixedKL(0.05)
    assert controller.update(100.0, 512) == 0.05
    restored = FixedKL(0.3)
    restored.load_state_dict(controller.state_dict())
    assert restored.coef == 0.05


def test_numbers_become_fixed_and_controllers_stay():
    adaptive = AdaptiveKL()
    assert as_controller(adaptive) is adaptive
    assert as_controller(0).coef == 0.0
    assert isinstance(as_controller(0.1), FixedKL)
    assert isinstance(adaptive, KLController)


@pytest.mark.parametrize("coef", [-0.05, math.nan, math.inf, "0.1", None, True])
def test_bad_coefficients_are_refused(coef):
    with pytest.raises(InvalidArgument, match=r"coef=.*0 or more.*subtract"):
        as_controller(coef)


@pytest.mark.parametrize("field", ["initial", "target", "horizon"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_bad_adaptive_arguments_are_refused(field, value):
    with pytest.raises(InvalidArgument, match=field):
        AdaptiveKL(**{field: value})


def test_bad_updates_and_states_are_refused():
    with pytest.raises(InvalidArgument, match="kl=nan"):
        AdaptiveKL().update(math.nan, 5)
    with pytest.raises(InvalidArgument, match="episodes=-1"):
        AdaptiveKL().update(1.0, -1)
    with pytest.raises(InvalidCheckpoint, match="same configuration"):
        AdaptiveKL().load_state_dict({"beta": 0.1})
