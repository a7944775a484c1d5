"""`rlhf-gym train`: a run folder that is complete, resumes, and refuses what cannot work."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rlhf_gym.agents.ppo import PPOConfig
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.pipelines.curves import draw_training, read_scalars
from rlhf_gym.pipelines.environment import EnvironmentConfig
from rlhf_gym.pipelines.train import TrainConfig, train


def config(folder: Path, **changes: object) -> TrainConfig:
    base = TrainConfig(
        environment=EnvironmentConfig(env="rlhf_gym/Exact-v0", num_envs=16),
        output=str(folder),
        total_timesteps=300,
        checkpoint_every=2,
        progress=False,
        ppo=PPOConfig(learning_rate=1e-3, schedule="constant", epochs=1),
    )
    return replace(base, **changes)


def test_a_run_folder_is_complete(tmp_path: Path) -> None:
    result = train(config(tmp_path))
    assert result.timesteps >= 300
    assert json.loads((tmp_path / "config.json").read_text())["ppo"]["learning_rate"] == 1e-3
    assert json.loads((tmp_path / "summary.json").read_text())["updates"] == result.updates
    assert (tmp_path / "policy/model.safetensors").exists()
    scalars = read_scalars(tmp_path)
    assert {"reward/score", "kl/reference", "train/loss"} <= set(scalars)
    picture = draw_training(tmp_path, tmp_path / "training.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_run_in_two_parts_equals_one_that_never_stopped(tmp_path: Path) -> None:
    whole = train(config(tmp_path / "whole", total_timesteps=600))
    train(config(tmp_path / "parts", total_timesteps=250))
    parts = train(config(tmp_path / "parts", total_timesteps=600))
    assert parts.timesteps == whole.timesteps
    expected = load_file(whole.policy / "model.safetensors")
    found = load_file(parts.policy / "model.safetensors")
    assert all(found[name].equal(weight) for name, weight in expected.items())


def test_no_resume_starts_again(tmp_path: Path) -> None:
    train(config(tmp_path))
    again = train(config(tmp_path, resume=False, total_timesteps=200))
    assert again.timesteps < 300


def test_training_without_a_reward_is_refused(tmp_path: Path) -> None:
    from rlhf_gym.envs.exact.babbler import babbler, letter_tokenizer

    babbler().save_pretrained(tmp_path / "lm")
    letter_tokenizer().save_pretrained(tmp_path / "lm")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a b"}\n')
    environment = EnvironmentConfig(
        model=str(tmp_path / "lm"),
        prompts=str(tmp_path / "prompts.jsonl"),
        gold="rlhf_gym.envs.sentiment.oracle:gold_sentiment",
        max_response_tokens=4,
    )
    with pytest.raises(InvalidArgument, match="reward=None"):
        train(config(tmp_path / "run", environment=environment))


@pytest.mark.parametrize("field", ["total_timesteps", "checkpoint_every"])
def test_numbers_that_cannot_work(field: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=field):
        config(tmp_path, **{field: -1})
