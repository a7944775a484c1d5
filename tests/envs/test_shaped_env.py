"""Potential-based shaping of tasks of acting, on a corridor that is worked out by hand."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.vec_env import DummyVecEnv

from rlhf_gym.agents.callbacks import GammaCallback
from rlhf_gym.core.errors import InvalidArgument, InvalidReward
from rlhf_gym.envs.sb3 import required_gamma
from rlhf_gym.envs.shaped import ShapedEnv, ShapedVecEnv


class Corridor(gym.Env):
    """Places 0 to 3; action 1 goes on, 0 stays. 3 is the goal and pays 1; five steps at most."""

    observation_space = Box(0, 3, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = 0, 0
        return np.array([0], np.float32), {}

    def step(self, action):
        self.place += int(action)
        self.steps += 1
        there = self.place == 3
        reward = float(there)
        return np.array([self.place], np.float32), reward, there, self.steps == 5 and not there, {}


def squared(observation):
    """Phi(s) = s^2 + 1."""
    return float(observation[0]) ** 2 + 1


def squared_rows(observations):
    return observations[:, 0].astype(np.float64) ** 2 + 1


def play(env, actions):
    env.reset(seed=0)
    return [env.step(action)[1] for action in actions]


def test_by_hand():
    # Phi is 1, 2, 5 at 0, 1, 2, and 0 at the goal, which ends the episode:
    # .5 * 2 - 1, .5 * 2 - 2 (stays), .5 * 5 - 2, 1 + 0 - 5
    rewards = play(ShapedEnv(Corridor(), squared, gamma=0.5), [1, 0, 1, 1])
    assert rewards == [0.0, -1.0, 0.5, -4.0]


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_the_discounted_sum_is_minus_the_first_potential(gamma):
    discounts = gamma ** np.arange(5)
    shaped = play(ShapedEnv(Corridor(), squared, gamma), [0, 1, 1, 0, 1])
    plain = play(Corridor(), [0, 1, 1, 0, 1])
    assert discounts @ np.subtract(shaped, plain) == pytest.approx(-1)


def test_a_truncated_episode_goes_on():
    # at the limit after five steps in place 0 Phi is 1 still: gamma^5 * 1 - 1
    shaped = play(ShapedEnv(Corridor(), squared, 0.9), [0] * 5)
    assert 0.9 ** np.arange(5) @ shaped == pytest.approx(0.9**5 - 1)


def test_rows_side_by_side_are_paid_as_alone():
    def episodes(actions):
        env, rewards = ShapedEnv(Corridor(), squared, 0.9), []
        env.reset()
        for action in actions:
            _, reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)
            if terminated or truncated:
                env.reset()
        return rewards

    actions = np.random.default_rng(0).integers(2, size=(3, 40))
    venv = ShapedVecEnv(DummyVecEnv([Corridor] * 3), squared_rows, 0.9)
    venv.reset()
    side_by_side = np.stack([venv.step(column)[1] for column in actions.T], axis=1)
    np.testing.assert_allclose(side_by_side, [episodes(row) for row in actions], atol=1e-6)


def test_a_potential_may_move_while_it_is_learned():
    # Phi is 1 at first, and 1 more each time it is asked; in all still -1 in each episode of a
    # start at Phi = 1, 4, ...: asked once a step, episodes of three steps begin at 1, 4 and 7
    asked = []

    def moving(observations):
        asked.append(len(observations))
        return np.full(len(observations), float(len(asked)))

    venv = ShapedVecEnv(DummyVecEnv([Corridor]), moving, 0.5)
    venv.reset()
    shaping = np.array([venv.step(np.array([1]))[3][0]["shaping"] for _ in range(9)])
    np.testing.assert_allclose(shaping.reshape(3, 3) @ [1, 0.5, 0.25], [-1, -4, -7])
    # and what it came to without a discount: .5 * 2 - 1, .5 * 3 - 2, 0 - 3
    assert venv.episodes[0] == pytest.approx(0.0 - 0.5 - 3.0)


def test_agents_are_told_the_discount():
    from stable_baselines3 import A2C

    venv = ShapedVecEnv(DummyVecEnv([Corridor]), squared_rows, 0.9)
    assert required_gamma(venv) == 0.9
    with pytest.raises(InvalidArgument, match="shaped for a discount"):
        A2C("MlpPolicy", venv, gamma=0.99).learn(5, callback=GammaCallback())
    A2C("MlpPolicy", venv, gamma=0.9).learn(5, callback=GammaCallback())


def test_what_is_refused():
    with pytest.raises(InvalidArgument, match="gamma"):
        ShapedEnv(Corridor(), squared, 1.5)
    with pytest.raises(InvalidReward, match="not 2 finite numbers"):
        ShapedVecEnv(DummyVecEnv([Corridor] * 2), lambda rows: [np.nan, 0.0], 0.9).reset()
