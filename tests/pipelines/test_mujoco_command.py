"""The real robots through the command, by comparisons."""

from pathlib import Path

import pytest
import tyro

from rlhf_gym.pipelines.control import ControlResult
from rlhf_gym.pipelines.train import TrainConfig, train_either

TINY = [
    *("--num-envs", "2", "--total-timesteps", "80", "--no-progress", "--evaluation-episodes", "2"),
    *("--reward", "preferences", "--labels", "6", "--preferences.explore", "60"),
    *("--preferences.learner.segment-length", "5", "--preferences.learner.fit.epochs", "1"),
]
ON_POLICY = ("--agent", "sb3.ppo", "--agent-kwargs", "n_steps=20", "batch_size=40")
OFF_POLICY = ("--agent", "sb3.sac", "--agent-kwargs", "learning_starts=60", "batch_size=8")


@pytest.mark.parametrize(
    ("env", "agent"),
    [("Reacher-v5", ON_POLICY), ("Reacher-v5", OFF_POLICY), ("Hopper-v5", ON_POLICY)],
)
def test_a_robot_is_taught(env: str, agent: tuple[str, ...], tmp_path: Path) -> None:
    flags = ["--env", env, *agent, *TINY, "--output", str(tmp_path)]
    result = train_either(tyro.cli(TrainConfig, args=flags))
    assert isinstance(result, ControlResult)
    assert result.labels == 6
    # Nobody but the task judges: gold is the task's own reward.
    assert result.gold_return == result.automated_return
