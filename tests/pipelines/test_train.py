"""`rlhf-gym train`: a run folder that is complete, resumes, and refuses what cannot work."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from rlhf_gym.agents.checkpoint import newest_checkpoint
from rlhf_gym.agents.ppo import PPOConfig
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint, InvalidData
from rlhf_gym.core.models import load_causal_lm, load_tokenizer, save_model
from rlhf_gym.pipelines.curves import draw_training, read_scalars
from rlhf_gym.pipelines.environment import EnvironmentConfig, make_environment
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


def test_no_resume_leaves_nothing_of_the_run_before(tmp_path: Path) -> None:
    train(config(tmp_path, total_timesteps=600))
    again = train(config(tmp_path, resume=False, total_timesteps=200))
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.name == f"step-{again.timesteps:012d}"


def test_a_run_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    first = config(tmp_path)
    train(first)
    told = json.loads((tmp_path / "config.json").read_text())
    steeper = replace(first, ppo=replace(first.ppo, learning_rate=1e-2))
    with pytest.raises(InvalidCheckpoint, match=r"ppo.learning_rate \(there 0.001, here 0.01\)"):
        train(steeper)
    free = replace(first, environment=replace(first.environment, kl_coef=0.0))
    with pytest.raises(InvalidCheckpoint, match=r"kl_coef \(there None, here 0.0\).*--no-resume"):
        train(free)
    assert json.loads((tmp_path / "config.json").read_text()) == told
    train(replace(first, total_timesteps=320, checkpoint_every=1, verbose=0))
    train(replace(steeper, resume=False, total_timesteps=64))


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


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        ({"end_token": "."}, "end_token"),
        ({"chat_template": True}, "chat_template"),
        ({"max_prompt_tokens": 4}, "max_prompt_tokens"),
        ({"max_response_tokens": 0}, "max_response_tokens"),
        ({"kl_coef": float("nan")}, "kl_coef"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(flags: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{field}="):
        EnvironmentConfig(**flags)


def test_prompts_may_be_lines_and_chats(tmp_path: Path) -> None:
    from rlhf_gym.envs.sentiment.task import REFERENCE

    tokenizer = load_tokenizer(REFERENCE)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} ,{% endfor %}"
    save_model(load_causal_lm(REFERENCE), tokenizer, tmp_path / "lm")
    (tmp_path / "lines.txt").write_text("i saw\n\nwe watched this film\n")
    (tmp_path / "chats.jsonl").write_text(
        json.dumps({"prompt": [{"role": "user", "content": "i saw"}]}) + "\n"
    )
    own = EnvironmentConfig(
        model=str(tmp_path / "lm"),
        prompts=str(tmp_path / "lines.txt"),
        gold="rlhf_gym.envs.sentiment.oracle:gold_sentiment",
        num_envs=2,
    )
    lines = make_environment(own).unwrapped.prompts.texts
    assert lines == ["i saw", "we watched this film"]
    chats = replace(own, prompts=str(tmp_path / "chats.jsonl"), chat_template=True)
    assert make_environment(chats).unwrapped.prompts.texts == ["i saw ,"]


def test_prompts_are_read_before_models_and_a_reward_is_called_by_its_flag(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    nowhere, some = str(tmp_path / "nowhere"), tmp_path / "some.txt"
    some.write_text("i saw this film\n")
    own = EnvironmentConfig(model=nowhere, prompts=str(empty), reward=nowhere, num_envs=2)
    with pytest.raises(InvalidData, match=r"empty\.txt"):
        make_environment(own)
    with pytest.raises(InvalidCheckpoint, match=r"reward='.*nowhere'"):
        make_environment(replace(own, prompts=str(some)))
    with pytest.raises(InvalidCheckpoint, match=r"gold='.*nowhere'"):
        make_environment(replace(own, prompts=str(some), reward=None, gold=nowhere))
    with pytest.raises(InvalidCheckpoint, match=r"model='.*nowhere'"):
        make_environment(replace(own, prompts=str(some), reward="operator:concat"))
