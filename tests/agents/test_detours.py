from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize

import rlhf_gym  # noqa: F401
from rlhf_gym.agents.detours import Detours, take_detours
from rlhf_gym.agents.preference_learning import PreferenceConfig, PreferenceLearning
from rlhf_gym.agents.sb3.control import CONTROL_AGENTS
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences import FitConfig, LabelSchedule, RewardLearnerConfig
from rlhf_gym.envs.sb3 import make_sb3_env

ROWS, STEPS = 4096, 28
SMALL = RewardLearnerConfig(
    segment_length=5, hidden=(8,), members=2, memory=400, fit=FitConfig(epochs=2)
)


class Watched(VecEnvWrapper):
    """Keeps the actions of each step."""

    def __init__(self, venv: Any) -> None:
        super().__init__(venv)
        self.done: list[NDArray[Any]] = []
        self.resets = 0

    def reset(self) -> Any:
        self.resets += 1
        return self.venv.reset()

    def step_async(self, actions: NDArray[Any]) -> None:
        self.done.append(np.array(actions))
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        return self.venv.step_wait()


def left_by(detours: Detours, steps: int = STEPS, rows: int = ROWS) -> NDArray[np.bool_]:
    """Whether each step was not the agent's (it does -1), shape (rows, steps)."""
    own = np.full(rows, -1)
    return np.stack([detours.step(own) for _ in range(steps)], 1) >= 0


def test_an_episode_has_one_stretch_that_begins_early_half_the_time() -> None:
    away = left_by(Detours(Discrete(13), ROWS, 6, STEPS, (0,)))
    begins = (np.diff(away, axis=1, prepend=False) & away).sum(1)
    assert begins.max() == 1
    assert begins.mean() == 1.0  # all of them begin within the episode
    assert away[:, 0].mean() == pytest.approx(0.5 + 0.5 / STEPS, abs=0.03)
    whole = away[away[:, 0]].sum(1)  # not cut off by the end
    assert np.bincount(whole, minlength=7)[1:7] / len(whole) == pytest.approx(1 / 6, abs=0.03)
    late = away[~away[:, 0]].argmax(1)
    assert np.bincount(late, minlength=STEPS)[1:] / len(late) == pytest.approx(1 / 27, abs=0.02)


def test_a_detour_is_one_act_and_each_act_is_as_likely() -> None:
    detours = Detours(Discrete(13), ROWS, 6, STEPS, (0,))
    acts = np.stack([detours.step(np.full(ROWS, -1)) for _ in range(STEPS)], 1)
    both = (acts[:, 1:] >= 0) & (acts[:, :-1] >= 0)
    assert (acts[:, 1:] == acts[:, :-1])[both].all()
    assert np.bincount(acts.max(1), minlength=13) / ROWS == pytest.approx(1 / 13, abs=0.02)
    detours.begin_episodes(np.ones(ROWS, np.bool_))
    again = np.stack([detours.step(np.full(ROWS, -1)) for _ in range(STEPS)], 1).max(1)
    assert (again == acts.max(1)).mean() == pytest.approx(1 / 13, abs=0.02)  # drawn anew


def test_long_episodes_have_one_each_spacing() -> None:
    away = left_by(Detours(Discrete(3), 64, 2, 10, (0,)), steps=400, rows=64)
    begins = (np.diff(away, axis=1, prepend=False) & away).sum(1)
    assert np.all((begins >= 400 // 13) & (begins <= 400 // 10 + 1))


def test_continuous_actions_are_taken_whole() -> None:
    detours = Detours(Box(-1.0, 1.0, (3,), np.float32), 64, 4, 8, (0,))
    own = np.full((64, 3), 9.0, np.float32)
    for _ in range(20):
        rows = detours.step(own) == 9.0
        assert np.all(rows.all(1) | ~rows.any(1))


def test_what_is_not_allowed_is_not_done() -> None:
    detours = Detours(Discrete(4), 256, 6, 8, (0,))
    masks = np.tile([True, False, True, False], (256, 1))
    own = np.full(256, -1)
    seen = {int(act) for _ in range(40) for act in detours.step(own, masks)}
    assert seen == {-1, 0, 2}


def agent_on(env: Any, kind: type[BaseAlgorithm] = PPO) -> BaseAlgorithm:
    if kind is SAC:
        return SAC("MlpPolicy", env, buffer_size=200, learning_starts=4, batch_size=8, seed=0)
    policy = "MlpLstmPolicy" if kind is RecurrentPPO else "MlpPolicy"
    return kind(policy, env, n_steps=20, batch_size=40, n_epochs=1, seed=0)  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", [PPO, RecurrentPPO, SAC])
def test_an_agent_learns_on_where_new_episodes_begin(kind: type[BaseAlgorithm]) -> None:
    env = Watched(make_sb3_env("rlhf_gym/Pizza-v0", 4, continuous=kind is SAC))
    agent = agent_on(env, kind)
    agent.learn(80)
    steps, resets = agent.num_timesteps, env.resets
    before = [p.detach().clone() for p in agent.policy.parameters()]
    env.done.clear()
    take_detours(agent, 130, 6, 28, (0,))
    assert len(env.done) == 33  # 130 steps of 4 rows
    assert agent.num_timesteps == steps
    assert env.resets == resets + 2  # before and after
    assert all((a == b).all() for a, b in zip(before, agent.policy.parameters(), strict=True))
    assert isinstance(agent._last_obs, np.ndarray)
    assert np.all(agent._last_obs[:, -1] == 0)  # the share of the episode that is over
    agent.learn(80, reset_num_timesteps=False)
    assert agent.num_timesteps == steps + 80


def test_between_detours_an_agent_does_its_best() -> None:
    env = Watched(make_sb3_env("rlhf_gym/Pizza-v0", 64))
    agent = agent_on(env)
    seen: list[NDArray[Any]] = []
    predict = agent.predict

    def watch(observation: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(np.array(observation))
        return predict(observation, *args, **kwargs)

    agent.predict = watch  # type: ignore[method-assign]
    take_detours(agent, 64 * 28, 8, 28, (0,))
    best = np.stack([predict(one, deterministic=True)[0] for one in seen])
    # A detour of 4.5 steps on average is cut off by the end at times; by chance some are the best.
    assert np.mean(best == np.stack(env.done)) == pytest.approx(1 - 4 / 28, abs=0.04)


def test_what_was_measured_of_observations_stays() -> None:
    env = VecNormalize(make_sb3_env("rlhf_gym/Pizza-v0", 4, continuous=True))
    agent = agent_on(env, SAC)
    agent.learn(80)
    assert isinstance(env.obs_rms, RunningMeanStd)
    mean = env.obs_rms.mean.copy()
    take_detours(agent, 130, 6, 28, (0,))
    assert np.array_equal(env.obs_rms.mean, mean)
    assert env.training
    here, there = env.get_original_obs(), agent._last_original_obs
    assert isinstance(here, np.ndarray)
    assert isinstance(there, np.ndarray)
    assert np.array_equal(here, there)
    agent.learn(40, reset_num_timesteps=False)


def test_masked_agents_and_their_detours_play_by_the_rules() -> None:
    env = Watched(make_sb3_env("rlhf_gym/Go-v0", 4))
    agent = CONTROL_AGENTS.load("contrib.maskable_ppo").make(env, seed=0)
    masks: list[NDArray[np.bool_]] = []
    step = env.step_async

    def watch(actions: NDArray[Any]) -> None:
        masks.append(np.stack(env.env_method("action_masks")))
        step(actions)

    env.step_async = watch  # type: ignore[method-assign]
    take_detours(agent, 400, 6, 6, (0,))
    assert len(masks) == 100
    assert not np.stack(masks).all()
    assert np.take_along_axis(np.stack(masks), np.stack(env.done)[..., None], -1).all()


def test_the_loop_asks_about_detours(tmp_path: Path) -> None:
    config = PreferenceConfig(
        schedule=LabelSchedule(total=12, initial=0.5), learner=SMALL, rounds=3, explore=80,
        detours=120,
    )  # fmt: skip

    def run(folder: Path, detours: int) -> PreferenceLearning:
        env = make_sb3_env("rlhf_gym/Pizza-v0", 4)
        loop = PreferenceLearning(env, folder, config=replace(config, detours=detours))
        agent = agent_on(loop.env)
        loop.learn(agent, 480)
        assert agent.num_timesteps == 480
        return loop

    with_them, without = run(tmp_path / "a", 120), run(tmp_path / "b", 0)
    assert with_them.learner.asked == without.learner.asked == 12
    extra = with_them.learner.replay._written - without.learner.replay._written
    assert extra == 30 * (len(with_them.history) - 1)  # each round but the first
    assert not with_them.taught.episodes


@pytest.mark.parametrize("wrong", [{"detours": -1}, {"detour_length": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        PreferenceConfig(**wrong)
