import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import tyro
from gymnasium.error import DependencyNotInstalled

from rlhf_gym.agents.imitation import record_demonstrations
from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.envs.control.pizza.task import PizzaVectorEnv
from rlhf_gym.pipelines.control import ControlResult
from rlhf_gym.pipelines.studies.demonstrations import cook
from rlhf_gym.pipelines.train import TrainConfig, train_either

TINY = [
    *("--env", "rlhf_gym/Pizza-v0", "--agent", "sb3.ppo", "--num-envs", "4"),
    *("--total-timesteps", "200", "--no-progress", "--evaluation-episodes", "4"),
    *("--reward", "demonstrations", "--agent-kwargs", "n_steps=25", "batch_size=50"),
]


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shown = record_demonstrations(PizzaVectorEnv(num_envs=8), cook, 8, seed=0)
    assert shown.returns.mean() > 9.5  # about 10 is the best
    return shown.save(tmp_path_factory.mktemp("expert") / "cook.npz")


def run(folder: Path, *flags: str) -> ControlResult:
    result = train_either(tyro.cli(TrainConfig, args=[*TINY, "--output", str(folder), *flags]))
    assert isinstance(result, ControlResult)
    return result


@pytest.mark.parametrize("method", ["cloning", "adversarial", "features"])
def test_every_method(method: str, expert: Path, tmp_path: Path) -> None:
    result = run(tmp_path, "--demonstrations", str(expert), "--method", method)
    assert result.timesteps == (0 if method == "cloning" else 200)
    assert (tmp_path / "agent.zip").is_file()
    assert (tmp_path / "reward.safetensors").is_file() == (method != "cloning")
    assert json.loads((tmp_path / "imitation.json").read_text()) is not None
    if method == "cloning":
        assert result.gold_return.value > 7  # chance makes 1


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="demonstrations=None"):
        run(tmp_path)
    with pytest.raises(InvalidData, match="not readable"):
        run(tmp_path, "--demonstrations", str(tmp_path / "missing.npz"))
    other = record_demonstrations(
        gym.make_vec(
            "CartPole-v1",
            num_envs=1,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP},
        ),
        lambda observations: np.zeros(len(observations), np.int64),
        1,
    )
    with pytest.raises(InvalidData, match=r"observations=.*not of Box"):
        run(tmp_path, "--demonstrations", str(other.save(tmp_path / "cartpole.npz")))


def test_a_task_whose_package_is_missing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise DependencyNotInstalled("MuJoCo is not installed")

    monkeypatch.setattr(gym.envs.registration, "load_env_creator", missing)
    with pytest.raises(InvalidArgument, match=r"Reacher-v5.*rlhf-gym\[mujoco\]"):
        run(tmp_path, "--env", "Reacher-v5")
