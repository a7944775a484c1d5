"""A run that is resumed goes on exactly as the run that was never stopped."""

import copy
import json

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode

from rlhf_gym.core.errors import InvalidCheckpoint
from rlhf_gym.rewards.base import FunctionReward, ScoreTerm
from rlhf_gym.rewards.controllers import AdaptiveKL
from rlhf_gym.rewards.kl import KLPenalty

PROMPTS = ["a b", "c", "d e f", "g", "h", "a c", "b"]


class RunningMean(ScoreTerm):
    """A term with a state: words minus the mean number of words so far."""

    name = "centred"

    def __init__(self):
        self.total, self.count = 0.0, 0

    def scores(self, episodes):
        words = torch.tensor([float(len(r.split())) for r in episodes.responses])
        self.total, self.count = self.total + float(words.sum()), self.count + len(words)
        return words - self.total / self.count

    def state_dict(self):
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state):
        self.total, self.count = state["total"], state["count"]


SETTINGS = {
    "end": {},
    "step": {"reward_timing": "step"},
    "exact": {"estimator": "exact"},
    "top_k": {"top_k": 6, "min_response_tokens": 1},
    "step, top_k": {"reward_timing": "step", "top_k": 6},
    "together": {"ends": "together"},
}


@pytest.fixture
def build(make_env, reference, word_count):
    def make(mode, estimator="k1", **settings):
        controller = AdaptiveKL(initial=0.2, target=1.0, horizon=20)
        reward = RunningMean() - KLPenalty(reference, controller, estimator=estimator)
        return make_env(
            reward,
            prompts=PROMPTS,
            num_envs=4,
            max_response_tokens=5,
            prompt_order="shuffle",
            autoreset_mode=mode,
            gold=FunctionReward(word_count, "words") + RunningMean(),
            **settings,
        )

    return make


def act(env, rng):
    """One step with random legal actions and log-probabilities; a reset where one is due."""
    live = env.live
    if not live.any() and env.autoreset_mode is AutoresetMode.DISABLED:
        return env.reset()
    distribution = torch.from_numpy(rng.normal(size=(4, 12)))
    masks = torch.from_numpy(env.action_masks())
    distribution = distribution.masked_fill(~masks, -torch.inf).log_softmax(-1).float()
    actions = distribution.exp().numpy().cumsum(-1).__gt__(rng.random((4, 1))).argmax(-1)
    env.channel.write(actions, distribution[range(4), actions], distribution)
    return env.step(actions)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("steps", [0, 2, 9])
def test_resumed_in_the_middle_of_episodes(build, mode, settings, steps):
    env = build(mode, **SETTINGS[settings])
    env.reset(seed=3)
    rng = np.random.default_rng(1)
    for _ in range(steps):
        act(env, rng)
    saved = copy.deepcopy(env.state_dict())
    rng_state = rng.bit_generator.state
    expected = [act(env, rng) for _ in range(14)]
    coefficient, seen = env.update_kl(), env.episodes_seen

    resumed = build(mode, **SETTINGS[settings])
    resumed.load_state_dict(saved)
    rng.bit_generator.state = rng_state
    got = [act(resumed, rng) for _ in range(14)]
    # Rows that began at different times are read again in another grouping by the reference's
    # cache: equal to rounding. Everything else is equal to the last bit.
    replayed = settings in ("step", "step, top_k") and mode is not AutoresetMode.DISABLED
    assert data_equivalence(got, expected, exact=not replayed)
    assert (resumed.episodes_seen, seen > 4) == (seen, True)
    assert resumed.update_kl() == pytest.approx(coefficient, rel=1e-6 if replayed else 0)
    assert resumed.np_random_seed == 3


def test_state_is_arrays_numbers_and_strings(build):
    env = build(AutoresetMode.SAME_STEP, top_k=6)
    env.reset(seed=0)

    def plain(value):
        if isinstance(value, np.ndarray):
            return value.tolist()
        raise TypeError(type(value))

    again = json.loads(json.dumps(env.state_dict(), default=plain))
    other = build(AutoresetMode.SAME_STEP, top_k=6)
    other.load_state_dict(again)
    rng = np.random.default_rng
    assert data_equivalence(act(env, rng(0)), act(other, rng(0)), exact=True)


def test_state_before_the_first_reset(build):
    env = build(AutoresetMode.SAME_STEP)
    other = build(AutoresetMode.SAME_STEP)
    other.load_state_dict(env.state_dict())
    assert data_equivalence(env.reset(), other.reset(), exact=True)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"num_envs": 3}, "num_envs=4"),
        ({"max_response_tokens": 6}, "max_response_tokens=5"),
        ({"prompts": ["a b c", "c"]}, "prompts="),
        ({"autoreset_mode": AutoresetMode.NEXT_STEP}, "autoreset_mode='SameStep'"),
        ({"reward_timing": "step"}, "reward_timing='end'"),
    ],
)
def test_state_of_another_environment_is_refused(make_env, change, field):
    settings = {"num_envs": 4, "max_response_tokens": 5, "prompts": ["a b", "a b c"]}
    saved = make_env(**settings).state_dict()
    other = make_env(**(settings | change))
    with pytest.raises(InvalidCheckpoint, match=field):
        other.load_state_dict(saved)


def test_no_state_at_all_and_half_a_state_are_refused(make_env):
    env = make_env()
    for state in ({}, {"fingerprint": 3}, None, []):
        with pytest.raises(InvalidCheckpoint, match="not the state"):
            env.load_state_dict(state)
    state = env.state_dict()
    del state["engine"]["responses"]["lengths"]
    with pytest.raises(InvalidCheckpoint, match="incomplete"):
        env.load_state_dict(state)


def test_reward_of_another_run_is_refused(build, make_env):
    env = make_env(RunningMean())
    state = make_env().state_dict()
    with pytest.raises(InvalidCheckpoint, match="reward"):
        env.load_state_dict(state)
