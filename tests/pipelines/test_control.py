from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import tyro

from rlhf_gym.agents.preference_learning import PreferenceConfig
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences import RewardLearnerConfig
from rlhf_gym.pipelines.control import ControlResult, TeachingConfig, is_control
from rlhf_gym.pipelines.control_settings import TASKS
from rlhf_gym.pipelines.train import TrainConfig, train_either

TINY = [
    "--env",
    "rlhf_gym/Pizza-v0",
    "--agent",
    "sb3.ppo",
    "--num-envs",
    "4",
    "--total-timesteps",
    "200",
    "--no-progress",
    "--evaluation-episodes",
    "4",
    "--preferences.explore",
    "80",
    "--preferences.learner.segment-length",
    "5",
    "--preferences.learner.fit.epochs",
    "2",
    "--agent-kwargs",
    "n_steps=25",
    "batch_size=50",
]


def run(folder: Path, *flags: str) -> ControlResult:
    result = train_either(tyro.cli(TrainConfig, args=[*TINY, "--output", str(folder), *flags]))
    assert isinstance(result, ControlResult)
    return result


@pytest.mark.parametrize("reward", ["preferences", "gold", "automated"])
def test_every_source_of_reward(reward: str, tmp_path: Path) -> None:
    result = run(tmp_path, "--reward", reward, "--labels", "9", "--teacher", "mistake")
    assert result.timesteps == 200
    assert result.labels == (9 if reward == "preferences" else 0)
    assert result.gold_return.low <= result.gold_return.value <= result.gold_return.high
    for name in ("config.json", "summary.json", "agent.zip"):
        assert (tmp_path / name).is_file()


def test_a_finished_run_is_gone_on_with(tmp_path: Path) -> None:
    run(tmp_path, "--reward", "preferences", "--labels", "9")
    longer = run(tmp_path, "--reward", "preferences", "--labels", "9", "--total-timesteps", "300")
    assert longer.timesteps == 300
    assert longer.labels == 9


def test_a_task_brings_its_settings_and_yours_win() -> None:
    pizza = "rlhf_gym/Pizza-v0"
    found = TeachingConfig(labels=9).for_task(pizza)
    assert (found.learner.judges, found.learner.segment_length) == ("both", 28)
    assert found.schedule.total == 9
    assert TeachingConfig(task_settings=False).for_task(pizza) == PreferenceConfig()
    mine = PreferenceConfig(learner=RewardLearnerConfig(segment_length=5))
    assert TeachingConfig(preferences=mine).for_task(pizza).learner == mine.learner
    assert TeachingConfig().for_agent(pizza, "sb3.ppo")["gamma"] == 1.0
    assert (found.rounds, found.detours) == (30, 7168)
    assert TeachingConfig().for_task("rlhf_gym/Navigation-v0").explore == 15_360
    assert TeachingConfig(preferences=PreferenceConfig(rounds=5)).for_task(pizza).rounds == 5
    assert TeachingConfig(task_settings=False).for_agent(pizza, "sb3.ppo") == {}
    assert TeachingConfig().for_task("CartPole-v1") == PreferenceConfig()


def test_settings_are_for_registered_tasks_whose_episodes_are_long_enough() -> None:
    for env_id, found in TASKS.items():
        env = gym.make(env_id)
        env.reset(seed=0)
        env.action_space.seed(0)
        steps = 0
        over = False
        while not over:
            masks = getattr(env.unwrapped, "action_masks", None)
            mask = masks().astype(np.int8) if env_id == "rlhf_gym/Go-v0" and masks else None
            _, _, terminated, truncated, _ = env.step(env.action_space.sample(mask))
            over, steps = terminated or truncated, steps + 1
        assert steps >= found.preferences().learner.segment_length, env_id


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--reward", "runs/some/model"), "reward=.*gold, preferences, mixture"),
        (("--agent", "ppo"), "agent='ppo': no such agent"),
        (("--agent", "sb3.sac"), "continuous actions"),
        (("--reward", "preferences", "--teacher", "nobody"), "teacher='nobody'"),
        (("--lora", "4"), "no language model"),
        (("--policy", "somewhere"), "no language model"),
        (("--agent-kwargs", "colour=1"), "agent_kwargs"),
    ],
)
def test_mistakes_are_named(flags: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        run(tmp_path, *flags)


def test_a_task_that_is_misspelt_is_named_before_its_reward_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"env='rlhf_gym/Piza-v0'"):
        run(tmp_path, "--env", "rlhf_gym/Piza-v0", "--agent", "ppo", "--reward", "gold")


def test_a_task_of_gymnasium_with_a_native_vector(tmp_path: Path) -> None:
    flags = ("--env", "CartPole-v1", "--reward", "gold", "--no-task-settings")
    assert run(tmp_path, *flags).timesteps >= 200


def test_what_is_a_task_of_acting() -> None:
    assert is_control("rlhf_gym/Pizza-v0")
    assert is_control("CartPole-v1")
    assert not is_control("rlhf_gym/Sentiment-v0")
    assert not is_control("rlhf_gym/Exact-v0")
    assert not is_control("rlhf_gym/Nothing-v0")


def test_no_labels() -> None:
    with pytest.raises(InvalidArgument, match="labels=0"):
        tyro.cli(TrainConfig, args=["--labels", "0"])
