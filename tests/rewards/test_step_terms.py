"""What steps of acting are paid, worked out by hand; and what a user types for it."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from rlhf_gym.core.errors import InvalidArgument, InvalidReward
from rlhf_gym.core.preferences import Encoding, RewardEnsemble
from rlhf_gym.rewards.control_schemes import control_scheme, moves_optimum
from rlhf_gym.rewards.learned import ControlSteps, LearnedReward
from rlhf_gym.rewards.registry import CONTROL_REWARDS
from rlhf_gym.rewards.schemes import CONTROL_PRESETS, parse_schemes
from rlhf_gym.rewards.step_payment import LearnedPotential, SchemePayment
from rlhf_gym.rewards.step_sums import StepShaping
from rlhf_gym.rewards.step_terms import Preferences, RunningScale

LEARNED = np.array([0.5, -1.0, 2.0])


def steps(automated=(1.0, 2.0, -3.0), gold=(0.0, 4.0, 1.0), ended=(False, False, False)):
    count = len(automated)
    return ControlSteps(
        np.zeros((count, 2), np.float32),
        np.zeros(count, np.int64),
        np.array(automated),
        np.array(gold),
        np.array(ended),
    )


def paid(expression):
    return control_scheme(expression).pay(steps(), LEARNED).tolist()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("automated", [1, 2, -3]),
        ("gold", [0, 4, 1]),
        ("preferences", [0.5, -1, 2]),
        ("preferences + 0.5 * automated", [1, 0, 0.5]),
        ("0.5 * automated", [0.5, 1, -1.5]),
        ("-automated + 2 * gold", [-1, 6, 5]),
        ("clipped", [1, 1, -1]),  # of the task's own, unless told
        ("clipped(gold, high=2)", [0, 2, 1]),
        ("clipped(gold - automated, -1, 1.5)", [-1, 1.5, 1.5]),
        ("gold - 2 * time(0.25)", [-0.5, 3.5, 0.5]),
        ("automated + shaping('step_functions:height')", [1, 2, -3]),  # paid around the agent
        ("function('step_functions:squares') - gold", [1, 0, 8]),
    ],
)
def test_by_hand(expression, expected):
    assert paid(expression) == expected


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
    (tmp_path / "step_functions.py").write_text(
        "def squares(steps):\n    return steps.automated ** 2\n"
        "def few(steps):\n    return [1.0]\n"
        "def height(observations):\n    return observations[:, 0]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_running_divides_by_the_deviation_of_returns():
    # gamma = 0.5, one environment; returns 2, then 0.5 * 2 + 1 = 2, then 0.5 * 2 + 4 = 5.
    # SB3's moments begin with 1e-4 observations of mean 0 and variance 1.
    term = RunningScale(control_scheme("automated"), gamma=0.5)
    rewards = [2.0, 1.0, 4.0]
    found = [term.pay(steps((r,), (0.0,), (False,)), np.zeros(1))[0] for r in rewards]
    assert found[2] == pytest.approx(4 / np.sqrt(np.var([2, 2, 5])), rel=1e-3)
    term.pay(steps((0.0,), (0.0,), (True,)), np.zeros(1))  # 2.5; the episode ends
    last = term.pay(steps((1.0,), (0.0,), (False,)), np.zeros(1))[0]
    assert last == pytest.approx(1 / np.sqrt(np.var([2, 2, 5, 2.5, 1])), rel=1e-3)


def test_running_is_what_sb3_does():
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    from rlhf_gym.envs.control.pizza import PizzaEnv
    from rlhf_gym.envs.taught import TaughtVecEnv

    theirs = VecNormalize(
        DummyVecEnv([PizzaEnv] * 3), norm_obs=False, gamma=0.9, clip_reward=np.inf
    )
    ours = TaughtVecEnv(
        DummyVecEnv([PizzaEnv] * 3), SchemePayment(control_scheme("running(gamma=0.9)"))
    )
    rng = np.random.default_rng(0)
    for env in (ours, theirs):
        env.seed(0)
        env.reset()
    for _ in range(60):
        actions = rng.integers(13, size=3)
        rewards = [env.step(actions)[1] for env in (ours, theirs)]
        np.testing.assert_allclose(*rewards, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("whitened", "for tasks of writing only"),
        ("score - length(0.1)", "for tasks of writing only"),
        ("automatd", "did you mean 'automated'"),
        ("gold + time(1)", "Subtract it"),
        ("time(1)", "Subtract it"),
        ("gold - time(-1)", "0 or more"),
        ("gold - time", "coef"),
        ("clipped(gold, 1, -1)", "not below"),
        ("gold + gold", "twice"),
        ("gold + 1", "not a reward term"),
        ("3", "not a reward term"),
        ("gold * 'a'", "finite number"),
        ("gold +", "not an expression"),
        ("shaping('step_functions:height')", "nothing is paid but shaping"),
        ("gold + shaping(3)", "not a potential"),
        ("gold + shaping(preferences, gamma=2)", "not a discount"),
        ("clipped(gold + shaping(preferences))", "no shaping any more"),
        ("running(gold, gamma=2)", "not a discount"),
        ("gold + shaping('step_functions:nothing')", "nothing"),
    ],
)
def test_what_is_refused(expression, problem):
    with pytest.raises(InvalidArgument, match=problem):
        control_scheme(expression)


def test_a_function_of_steps_must_answer_for_each():
    with pytest.raises(InvalidReward, match="not 3 finite numbers"):
        paid("function('step_functions:few')")


def test_terms_for_acting_are_refused_where_the_task_is_to_write():
    from rlhf_gym.rewards import FunctionReward
    from rlhf_gym.rewards.base import WeightedReward
    from rlhf_gym.rewards.scheme_terms import TaskReward, scheme_reward

    task = TaskReward(
        WeightedReward([(1.0, FunctionReward(lambda prompts, responses: [], "score"))]), None, None
    )
    for expression in ("gold", "score - time(0.1)", "timed"):
        with pytest.raises(InvalidArgument, match="for tasks of acting only"):
            scheme_reward(expression, task)


def test_every_name_means_something():
    for preset in CONTROL_PRESETS.values():
        assert control_scheme(preset.expression).terms
    for name in CONTROL_REWARDS:
        assert CONTROL_REWARDS.load(name).__doc__
    [scheme] = parse_schemes("timed", CONTROL_PRESETS)
    assert scheme.expression == "automated - time(0.05)"


def test_what_moves_the_optimum():
    for preset in CONTROL_PRESETS.values():
        assert moves_optimum(control_scheme(preset.expression)) == preset.moves
    found = {
        "2 * gold + shaping(preferences)": "no",
        "-1 * gold": "yes",
        "running(2 * gold)": "batch",
        "running(clipped(gold))": "yes",
        "gold + running(2 * gold)": "yes",
        "gold - time(0.1)": "yes",
    }
    assert {text: moves_optimum(control_scheme(text)) for text in found} == found


def test_what_is_learned_is_told_apart_and_terms_are_noted():
    ensemble = RewardEnsemble(Encoding(Box(-1, 1, (2,)), Discrete(3)), 2)
    rule = SchemePayment(
        control_scheme("preferences + 0.5 * automated - time(0.25)"), LearnedReward(ensemble)
    )
    now = steps(ended=(False, True, False))
    learned = ensemble.rewards(now.observations, now.actions)
    payment = rule(now)
    np.testing.assert_allclose(payment.learned, learned)
    np.testing.assert_allclose(payment.fixed, 0.5 * now.automated - 0.25)
    rule(now)
    first, second = rule.episodes  # of the one that ended, each of one step
    assert first == second
    assert first["automated"] == 1.0
    assert first["time"] == -0.25
    rule(steps(ended=(True, False, False)))
    assert rule.episodes[-1]["automated"] == pytest.approx(3 * 0.5)


def test_old_steps_can_be_paid_anew_only_if_the_learned_reward_is_a_summand():
    found = {
        expression: control_scheme(expression).pays_learned_as_it_is
        for expression in (
            "preferences",
            "preferences - time(1)",
            "2 * preferences",
            "clipped(preferences)",
            "gold + shaping(preferences)",
        )
    }
    assert list(found.values()) == [True, True, False, False, False]


def test_a_learned_potential_is_what_the_learned_reward_adds_up():
    encoding = Encoding(Box(-1, 1, (2,)), Discrete(3), both_ends=True)
    ensemble = RewardEnsemble(encoding, 2, judges_acts=True, seed=1)
    potential = LearnedPotential(ensemble)
    seen = np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype(np.float32)
    act = np.zeros(4, np.int64)
    change = ensemble.rewards(encoding.of_steps(seen[:-1], seen[1:]), act)
    # without a weight on acts, the reward of a step is the change of the potential
    np.testing.assert_allclose(np.diff(potential(seen)), change, atol=1e-6)


def test_potentials_are_told_apart():
    assert StepShaping(Preferences()).reads_learned
    assert not StepShaping("runs/critic/agent.zip").reads_learned
    assert StepShaping("runs/critic/agent.zip").gamma is None  # the agent's
