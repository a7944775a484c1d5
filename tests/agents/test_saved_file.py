"""Files that another agent saved are refused by name, before anything in them is used."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stable_baselines3
import torch

from rlhf_gym.agents import PPO, RLOO
from rlhf_gym.core.errors import InvalidCheckpoint

Maker = Callable[..., Any]


def test_another_agents_file_is_refused(make_env: Maker, tmp_path: Path) -> None:
    PPO("LMPolicy", make_env(), device="cpu").save(tmp_path / "ppo")
    with pytest.raises(InvalidCheckpoint, match=r"ppo.*saved by PPO, not by RLOO.*class that"):
        RLOO.load(tmp_path / "ppo", device="cpu")
    RLOO("LMPolicy", make_env(), responses_per_prompt=2, device="cpu").save(tmp_path / "rloo")
    with pytest.raises(InvalidCheckpoint, match=r"rloo.*saved by RLOO, not by PPO"):
        PPO.load(str(tmp_path / "rloo.zip"), device="cpu")


def test_a_foreign_file_is_named_as_such(tmp_path: Path) -> None:
    stable_baselines3.A2C("MlpPolicy", "CartPole-v1").save(tmp_path / "a2c")
    with pytest.raises(InvalidCheckpoint, match=r"a2c.*not saved by an agent of rlhf_gym"):
        PPO.load(tmp_path / "a2c", device="cpu")
    with zipfile.ZipFile(tmp_path / "any.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    (tmp_path / "text.zip").write_text("nothing")
    for name in ("any.zip", "text.zip"):
        with pytest.raises(InvalidCheckpoint, match=rf"{name}.*not a zip file that an agent saved"):
            PPO.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        PPO.load(tmp_path / "missing")


def test_open_files_are_read_from_where_they_stand(make_env: Maker) -> None:
    agent = PPO("LMPolicy", make_env(), device="cpu")
    file = io.BytesIO()
    agent.save(file)
    file.seek(0)
    loaded = PPO.load(file, device="cpu")
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, loaded.policy.state_dict()[name])


def test_a_subclass_with_the_same_settings_loads(make_env: Maker, tmp_path: Path) -> None:
    class Mine(PPO):
        pass

    PPO("LMPolicy", make_env(), device="cpu").save(tmp_path / "ppo")
    assert isinstance(Mine.load(tmp_path / "ppo", device="cpu"), Mine)
