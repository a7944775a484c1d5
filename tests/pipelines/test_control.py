import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import tyro
from stable_baselines3 import SAC

from rlhf_gym.agents.preference_learning import PreferenceConfig
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
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


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--teacher", "mistake"), r"teacher \(there 'oracle', here 'mistake'\)"),
        (("--env-kwargs", "taste=spicy"), r"env_kwargs \(there \[\], here \['taste=spicy'\]\)"),
        (("--preferences.learner.segment-length", "6"), r"preferences.learner.segment_length"),
        (("--env", "rlhf_gym/Tutor-v0"), r"env \(there 'rlhf_gym/Pizza-v0'"),
    ],
)
def test_answers_to_other_questions_are_not_gone_on_with(
    flags: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    run(tmp_path, "--reward", "preferences", "--labels", "9")
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    with pytest.raises(InvalidCheckpoint, match=f"{problem}.*another --output"):
        run(tmp_path, "--reward", "preferences", "--labels", "9", *flags)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == kept


def test_a_run_that_never_began_may_be_put_right(tmp_path: Path) -> None:
    long = ("--preferences.learner.segment-length", "500")
    with pytest.raises(InvalidArgument, match="segment_length=500"):
        run(tmp_path, "--reward", "preferences", "--labels", "9", *long)
    assert run(tmp_path, "--reward", "preferences", "--labels", "9").labels == 9


def test_a_run_may_be_given_more_labels(tmp_path: Path) -> None:
    run(tmp_path, "--reward", "preferences", "--labels", "9")
    flags = ("--reward", "preferences", "--labels", "15", "--total-timesteps", "600")
    assert run(tmp_path, *flags).labels == 15


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


def test_settings_that_were_found_are_for_the_kind_of_actions_they_were_found_with() -> None:
    pizza, amounts = "rlhf_gym/Pizza-v0", {"continuous": True}
    spicy = {"taste": "spicy", "continuous": False}
    assert TeachingConfig().for_task(pizza, spicy) == TeachingConfig().for_task(pizza)
    assert TeachingConfig().for_agent(pizza, "sb3.ppo", amounts) == {}
    task, over, steps = gym.make(pizza, **amounts), False, 0
    task.reset(seed=0)
    while not over:
        *_, terminated, truncated, _ = task.step(task.action_space.sample())
        over, steps = terminated or truncated, steps + 1
    assert TeachingConfig().for_task(pizza, amounts).learner.segment_length == steps


def test_arguments_of_the_task_reach_training_and_judging(tmp_path: Path) -> None:
    flags = ("--agent", "sb3.sac", "--reward", "gold", "--agent-kwargs", "learning_starts=100")
    run(tmp_path, *flags, "--env-kwargs", "taste=vegetarian", "continuous=true")
    agent = SAC.load(tmp_path / "agent")
    task = gym.make("rlhf_gym/Pizza-v0", taste="vegetarian", continuous=True)
    assert (agent.observation_space, agent.action_space) == (
        task.observation_space,
        task.action_space,
    )
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["environment"]["env_kwargs"] == ["taste=vegetarian", "continuous=true"]


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
        (("--env-kwargs", "colour=red"), r"env_kwargs=.*red.*colour"),
        (("--env-kwargs", "taste"), "env_kwargs='taste'.*taste=spicy"),
        (("--env-kwargs", "taste=sweet"), "taste='sweet'.*'spicy'"),
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
