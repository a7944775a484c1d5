"""Which schemes move the optimum of Exact-v0, and how good theirs is by the task's own measure."""

import pytest

from rlhf_gym.envs.exact import ExactVectorEnv
from rlhf_gym.pipelines.experiments.optimum import optimum_of
from rlhf_gym.pipelines.studies.agent_cells import best_deterministic
from rlhf_gym.rewards.schemes import PRESETS


@pytest.fixture(scope="module")
def env():
    return ExactVectorEnv(max_response_tokens=4, kl_coef=0.2)


UNMOVED = [name for name, preset in PRESETS.items() if preset.moves == "no" and name != "attention"]


@pytest.mark.parametrize("name", UNMOVED)
def test_schemes_that_are_said_to_leave_it_do(name, env):
    assert optimum_of(PRESETS[name].expression, env) == pytest.approx((0, 1), abs=1e-5)


@pytest.mark.parametrize("name", ["scaled", "clipped", "length", "missing_stop", "no_kl"])
def test_schemes_that_are_said_to_move_it_do(name, env):
    distance, share = optimum_of(PRESETS[name].expression, env)
    assert 0.001 < distance <= 1
    assert share < 1


def test_a_reward_and_its_price_of_kl_scale_together(env):
    # half the reward at half of 0.2 a nat: the same ratio, the same optimum
    assert optimum_of("0.5 * score - kl(0.1)", env) == pytest.approx((0, 1), abs=1e-5)


def test_without_kl_the_best_response_is_certain(env):
    _, share = optimum_of("score - kl(0)", env)
    # no policy without chance does better than the best of them
    assert share <= best_deterministic(env.judge, 0.2) + 1e-9


@pytest.mark.parametrize("name", ["whitened", "group", "running", "kl_k2", "kl_adaptive"])
def test_schemes_without_a_fixed_optimum(name, env):
    assert optimum_of(PRESETS[name].expression, env) is None
