"""A run that was stopped, by whatever means, and resumed equals one that never was: bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf_gym.agents.checkpoint import CheckpointCallback, newest_checkpoint
from rlhf_gym.agents.ppo import PPO
from rlhf_gym.agents.state_files import read_state, write_state
from rlhf_gym.core.errors import FolderNotWritable, InvalidArgument, InvalidCheckpoint
from rlhf_gym.core.models import load_causal_lm, load_tokenizer
from rlhf_gym.rewards import AdaptiveKL, KLPenalty

Maker = Callable[..., Any]
TOTAL = 260


def count_good(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(response.split().count("good")) for response in responses]


def new_env(make_env: Maker, make_model: Maker) -> Any:
    """An environment with a controller that moves, so that its state matters."""
    penalty = KLPenalty(make_model(), AdaptiveKL(0.1, target=0.5, horizon=100))
    return make_env(reward=count_good - penalty)


def parameters(agent: PPO) -> Tensor:
    return torch.nn.utils.parameters_to_vector(agent.policy.parameters()).detach()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adam-tf", "policy_kwargs": {"lora_rank": 2}},
        {"policy_kwargs": {"value_model": "separate", "freeze": 1}},
    ],
    ids=["plain", "lora", "separate"],
)
def test_resumed_equals_uninterrupted(
    make_env: Maker, make_model: Maker, tmp_path: Path, settings: dict[str, Any]
) -> None:
    def fresh() -> PPO:
        env = new_env(make_env, make_model)
        return PPO("LMPolicy", env, seed=0, device="cpu", learning_rate=1e-3, **settings)

    straight = fresh()
    straight.learn(TOTAL)
    assert straight._n_updates > 5

    class Crash(Exception):
        pass

    class Crashing(PPO):
        def update(self, batch: Any) -> None:
            if self._n_updates == 4:
                raise Crash
            super().update(batch)

    Crashing.__name__ = "PPO"
    interrupted = Crashing(
        "LMPolicy",
        new_env(make_env, make_model),
        seed=0,
        device="cpu",
        learning_rate=1e-3,
        **settings,
    )
    with pytest.raises(Crash):
        interrupted.learn(TOTAL, callback=CheckpointCallback(tmp_path, every=2))

    resumed = PPO.resume(tmp_path, new_env(make_env, make_model), device="cpu")
    assert resumed._n_updates == 4
    resumed.learn(TOTAL - resumed.num_timesteps, reset_num_timesteps=False)
    assert torch.equal(parameters(straight), parameters(resumed))
    assert straight.num_timesteps == resumed.num_timesteps
    assert straight.stepper.kl_coef == resumed.stepper.kl_coef != 0.1
    for name, generator in straight.generators.items():
        assert torch.equal(generator.get_state(), resumed.generators[name].get_state())


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads(1)
from conftest import PROMPTS, count_good, tiny_gpt2, word_tokenizer
from rlhf_gym.agents import PPO, CheckpointCallback
from rlhf_gym.envs.text import TextGenerationVectorEnv
env = TextGenerationVectorEnv(
    PROMPTS, word_tokenizer(), count_good, num_envs=8, max_response_tokens=6, reference=tiny_gpt2()
)
agent = PPO("LMPolicy", env, seed=0, device="cpu", learning_rate=1e-3)
agent.learn({total}, callback=CheckpointCallback({folder!r}, every=1))
"""


def test_sigkill_in_the_middle(make_env: Maker, tmp_path: Path) -> None:
    total, folder = 800, tmp_path / "run"
    here = str(Path(__file__).parent)
    script = SCRIPT.format(here=here, total=total, folder=str(folder))
    process = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 120
    while newest_checkpoint(folder) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    resumed = PPO.resume(folder, make_env(), device="cpu")
    assert 0 < resumed.num_timesteps < total
    resumed.learn(total - resumed.num_timesteps, reset_num_timesteps=False)
    straight = PPO("LMPolicy", make_env(), seed=0, device="cpu", learning_rate=1e-3)
    straight.learn(total)
    assert torch.equal(parameters(straight), parameters(resumed))


@pytest.fixture
def checkpoint(make_env: Maker, tmp_path: Path) -> Path:
    agent = PPO("LMPolicy", make_env(), seed=0, device="cpu")
    agent.learn(60, callback=CheckpointCallback(tmp_path / "run", every=1, keep=2))
    found = newest_checkpoint(tmp_path / "run")
    assert found is not None
    return found


def test_the_last_ones_are_kept(checkpoint: Path) -> None:
    kept = sorted(path.name for path in checkpoint.parent.iterdir())
    assert len(kept) == 2
    assert kept[-1] == checkpoint.name
    assert all(name.startswith("step-") for name in kept)


def test_a_run_keeps_its_own_where_a_longer_one_was_before(make_env: Maker, tmp_path: Path) -> None:
    for tokens in (200, 60):
        agent = PPO("LMPolicy", make_env(), seed=0, device="cpu", learning_rate=1e-3)
        agent.learn(tokens, callback=CheckpointCallback(tmp_path, every=1))
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == f"step-{agent.num_timesteps:012d}"
    assert len(list(tmp_path.iterdir())) == 2


def test_the_policy_folder_is_for_everyone(checkpoint: Path) -> None:
    model = load_causal_lm(checkpoint / "policy")
    assert model.config.vocab_size == len(load_tokenizer(checkpoint / "policy"))
    files = [path.suffix for path in checkpoint.rglob("*") if path.is_file()]
    assert set(files) <= {".json", ".safetensors"}  # nothing that could be executed


def test_truncated_checkpoints_are_refused(make_env: Maker, checkpoint: Path) -> None:
    weights = checkpoint / "state.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InvalidCheckpoint, match="cannot be read"):
        PPO.resume(checkpoint, make_env())
    (checkpoint / "state.json").write_text('{"format": "som')
    with pytest.raises(InvalidCheckpoint, match="cannot be read"):
        PPO.resume(checkpoint, make_env())


def test_foreign_checkpoints_are_refused(make_env: Maker, checkpoint: Path) -> None:
    class Other(PPO):
        pass

    with pytest.raises(InvalidCheckpoint, match="written by PPO, not by Other"):
        Other.resume(checkpoint, make_env())
    with pytest.raises(InvalidCheckpoint, match="num_envs"):
        PPO.resume(checkpoint, make_env(num_envs=4))
    (checkpoint / "state.json").write_text("{}")
    with pytest.raises(InvalidCheckpoint, match="not written by a checkpoint"):
        PPO.resume(checkpoint, make_env())
    shutil.rmtree(checkpoint.parent)
    with pytest.raises(InvalidCheckpoint, match="no checkpoint"):
        PPO.resume(checkpoint.parent, make_env())


def test_an_unfinished_folder_is_no_checkpoint(checkpoint: Path) -> None:
    (checkpoint.parent / "step-999999999999").mkdir()
    (checkpoint.parent / ".unfinished-step-1").mkdir()
    assert newest_checkpoint(checkpoint.parent) == checkpoint


def test_a_folder_that_cannot_be_written_is_found_out_before_training(
    make_env: Maker, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    agent = PPO("LMPolicy", make_env(), seed=0, device="cpu")
    with pytest.raises(FolderNotWritable, match="folder="):
        agent.learn(60, callback=CheckpointCallback(tmp_path / "file" / "run"))
    assert agent.num_timesteps == 0
    with pytest.raises(InvalidArgument, match="every=0"):
        CheckpointCallback(tmp_path, every=0)


def test_state_round_trip(tmp_path: Path) -> None:
    shared = torch.randn(3, 2)
    state = {
        "tensor": shared,
        "tied": shared,
        "array": np.arange(4, dtype=np.uint8).reshape(2, 2)[:, ::-1],
        "numbers": {0: 1.5, 1: [True, None, "text"]},
        "large": 2**100,
        "float64": np.float64(0.1),
        "empty": torch.empty(0),
        "nan": float("nan"),
    }
    write_state(tmp_path, state)
    loaded = read_state(tmp_path)
    assert torch.equal(loaded["tensor"], shared)
    assert torch.equal(loaded["tied"], shared)
    assert np.array_equal(loaded["array"], state["array"])
    assert loaded["array"].dtype == np.uint8
    assert loaded["numbers"] == state["numbers"]
    assert loaded["large"] == 2**100
    assert loaded["float64"] == 0.1
    assert loaded["empty"].shape == (0,)
    assert np.isnan(loaded["nan"])
    assert list(loaded) == list(state)
