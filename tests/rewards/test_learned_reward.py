import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from rlhf_gym.core.errors import InvalidArgument, InvalidReward
from rlhf_gym.core.preferences import Encoding, RewardEnsemble
from rlhf_gym.rewards.learned import (
    AutomatedReward,
    ControlSteps,
    GoldReward,
    LearnedReward,
    OccasionalSupervisor,
)

ENCODING = Encoding(Box(-1, 1, (2,)), Discrete(3))


def steps(count: int = 4) -> ControlSteps:
    rng = np.random.default_rng(0)
    return ControlSteps(
        rng.uniform(-1, 1, (count, 2)).astype(np.float32),
        rng.integers(3, size=count),
        automated=np.arange(count) * 1.0,
        gold=np.array([-2.0, 0.0, 0.5, 3.0] * (count // 4)),
        ended=np.zeros(count, np.bool_),
    )


def test_the_mixture_is_a_sum() -> None:
    ensemble, now = RewardEnsemble(ENCODING, 2), steps()
    rule = LearnedReward(
        ensemble, automated_weight=0.5, supervisor=lambda _: np.array([0.0, 1.0, 0.0, -1.0])
    )
    payment = rule(now)
    # 0.5 * (0, 1, 2, 3) + (0, 1, 0, -1)
    assert payment.fixed.tolist() == [0.0, 1.5, 1.0, 0.5]
    learned = ensemble.rewards(now.observations, now.actions)
    assert np.array_equal(payment.learned, learned)
    assert np.array_equal(payment.reward, learned + payment.fixed)


def test_gold_and_automated_are_paid_as_they_are() -> None:
    assert GoldReward()(steps()).reward.tolist() == [-2.0, 0.0, 0.5, 3.0]
    assert AutomatedReward()(steps()).reward.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_the_supervisor_looks_now_and_then() -> None:
    always = OccasionalSupervisor(1.0, strength=2.0)
    assert always(steps()).tolist() == [-2.0, 0.0, 2.0, 2.0]
    # 3 of 4 steps can be spoken about: 3000 draws, deviation sqrt(3000 * 0.1 * 0.9) = 16
    said = OccasionalSupervisor(0.1, seed=1)(steps(4000))
    assert abs(np.count_nonzero(said) - 300) < 80
    one, two = OccasionalSupervisor(0.5, seed=1), OccasionalSupervisor(0.5, seed=2)
    one(steps())
    two.load_state_dict(one.state_dict())
    assert np.array_equal(one(steps(40)), two(steps(40)))


@pytest.mark.parametrize("said", [np.zeros(3), np.array([0.0, np.nan, 0.0, 0.0]), 1.0])
def test_a_supervisor_who_says_nonsense(said: object) -> None:
    rule = LearnedReward(RewardEnsemble(ENCODING, 2), supervisor=lambda _: said)  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidReward, match="supervisor"):
        rule(steps())


def test_mistakes_are_named() -> None:
    with pytest.raises(InvalidArgument, match="automated_weight"):
        LearnedReward(RewardEnsemble(ENCODING, 2), automated_weight=float("nan"))
    with pytest.raises(InvalidArgument, match="probability"):
        OccasionalSupervisor(1.5)
    with pytest.raises(InvalidArgument, match="strength"):
        OccasionalSupervisor(0.5, 0.0)
