from pathlib import Path

import pytest
import tyro

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.pipelines.control import ControlResult, is_control
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
        (("--reward", "runs/some/model"), "reward=.*preferences, gold, automated"),
        (("--agent", "ppo"), "agent='ppo': no such agent"),
        (("--agent", "sb3.sac"), "continuous actions"),
        (("--reward", "preferences", "--teacher", "nobody"), "teacher='nobody'"),
        (("--lora", "4"), "no language model"),
        (("--agent-kwargs", "colour=1"), "agent_kwargs"),
    ],
)
def test_mistakes_are_named(flags: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        run(tmp_path, *flags)


def test_what_is_a_task_of_acting() -> None:
    assert is_control("rlhf_gym/Pizza-v0")
    assert is_control("CartPole-v1")
    assert not is_control("rlhf_gym/Sentiment-v0")
    assert not is_control("rlhf_gym/Exact-v0")
    assert not is_control("rlhf_gym/Nothing-v0")


def test_no_labels() -> None:
    with pytest.raises(InvalidArgument, match="labels=0"):
        tyro.cli(TrainConfig, args=["--labels", "0"])
