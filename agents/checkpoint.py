"""Checkpoints that a run can be resumed from exactly: policy, optimiser, environment, generators.

A checkpoint is a folder: `policy/` for whoever wants the model (a Hugging Face directory), and
`state.json` with `state.safetensors` for `resume`. It is written beside its place and moved there
in one step, so a killed process leaves a whole checkpoint or none. Nothing in it is executed.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

from rlhf_gym.agents.policy_folder import read_policy_parameters
from rlhf_gym.agents.state_files import STATE, read_state, write_state
from rlhf_gym.core.errors import FolderNotWritable, InvalidArgument, InvalidCheckpoint

if TYPE_CHECKING:
    from rlhf_gym.agents.lm_algorithm import LMAlgorithm

_NAME = re.compile(r"step-(\d+)")
COUNTERS = ("num_timesteps", "_total_timesteps", "_n_updates", "_episode_num")
"""Attributes of an algorithm that are plain counts."""


class CheckpointCallback(BaseCallback):
    """Keeps what `resume` needs to go on exactly as if nothing had happened; for our agents.

    Args:
        folder: where `step-<timesteps>` folders go.
        every: updates between two checkpoints.
        keep: how many of the latest are kept.

    Raises:
        FolderNotWritable: before training begins.
    """

    model: LMAlgorithm

    def __init__(self, folder: str | Path, every: int = 10, keep: int = 2) -> None:
        super().__init__()
        for name, value in (("every", every), ("keep", keep)):
            if value < 1:
                raise InvalidArgument(name, value, "nothing would be kept", "Give at least 1")
        self.folder = Path(folder)
        self.every = every
        self.keep = keep

    def _init_callback(self) -> None:
        prepare_folder(self.folder)
        self._saved_at = self.model._n_updates

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        # Here the update before is complete and nothing of the next has been drawn.
        if self.model._n_updates >= self._saved_at + self.every:
            self._save()

    def _on_training_end(self) -> None:
        if self.model._n_updates > self._saved_at:
            self._save()

    def _save(self) -> None:
        save_checkpoint(self.model, self.folder, keep=self.keep)
        self._saved_at = self.model._n_updates


def prepare_folder(folder: Path) -> None:
    """Make the folder and see that it can be written to.

    Raises:
        FolderNotWritable: it cannot.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FolderNotWritable(
            "folder", str(folder), error.strerror or str(error), "Choose one you may write to"
        ) from error


def save_checkpoint(algorithm: LMAlgorithm, folder: Path, *, keep: int = 2) -> Path:
    """Write a checkpoint, then remove the oldest ones, and those of more steps than it has.

    Args:
        algorithm: between two updates.
        folder: where checkpoints are collected.
        keep: how many of the latest stay.

    Returns:
        The checkpoint's own folder.
    """
    prepare_folder(folder)
    target = folder / f"step-{algorithm.num_timesteps:012d}"
    unfinished = folder / f".unfinished-{target.name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    algorithm.policy.save_pretrained(unfinished / "policy", algorithm.stepper.tokenizer)
    write_state(unfinished, _state_of(algorithm))
    # A run that was resumed from before this point may have written it already.
    shutil.rmtree(target, ignore_errors=True)
    os.replace(unfinished, target)
    whole = _checkpoints(folder)
    # What lies beyond is of another run, which began in this folder before: counted among the
    # latest it would push out those of this one.
    beyond = whole.index(target) + 1
    for other in whole[: max(0, beyond - keep)] + whole[beyond:]:
        shutil.rmtree(other)
    return target


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The newest whole checkpoint in a folder, or the folder itself if it is one; None if none."""
    folder = Path(folder)
    if (folder / STATE).is_file():
        return folder
    found = _checkpoints(folder)
    return found[-1] if found else None


def restore(algorithm: LMAlgorithm, state: dict[str, Any]) -> None:
    """Put an algorithm where the saved one was.

    Args:
        algorithm: built from the same configuration.
        state: what `read_checkpoint` returned.

    Raises:
        InvalidCheckpoint: the state does not fit the policy or the environment.
    """
    try:
        algorithm.policy.load_state_dict(state["policy"])
        algorithm.policy.optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise InvalidCheckpoint(
            "checkpoint",
            sorted(state),
            f"it does not fit the policy: {error}",
            "Resume with the class that wrote it",
        ) from error
    # The seed set by the constructor waits for the next reset; it must not meet the restored state.
    # Kept as the last observation, it also keeps `learn` from resetting once more.
    algorithm._last_obs = algorithm.stepper.reset()
    algorithm.stepper.load_state_dict(state["env"])
    for name, generator in _generators(algorithm).items():
        generator.set_state(state["generators"][name])
    for name in COUNTERS:
        setattr(algorithm, name, state["counters"][name])


def read_checkpoint(folder: str | Path, algorithm: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the newest checkpoint in a folder.

    Args:
        folder: the run's checkpoint folder, or one checkpoint.
        algorithm: name of the class that wants to resume.

    Returns:
        The state for `restore`, and the arguments that rebuild the policy without its weights.

    Raises:
        InvalidCheckpoint: truncated, foreign, or of another algorithm.
    """
    path = newest_checkpoint(folder)
    if path is None:
        raise InvalidCheckpoint(
            "folder",
            str(folder),
            "there is no checkpoint in it",
            "Give the folder that a CheckpointCallback wrote to",
        )
    state = read_state(path)
    if state.get("algorithm") != algorithm:
        raise InvalidCheckpoint(
            "folder",
            str(path),
            f"written by {state.get('algorithm')}, not by {algorithm}",
            "Resume with the class that wrote it",
        )
    return state, read_policy_parameters(path / "policy")


def _state_of(algorithm: LMAlgorithm) -> dict[str, Any]:
    return {
        "algorithm": type(algorithm).__name__,
        "config": dataclasses.asdict(algorithm.config),
        "policy_kwargs": algorithm.policy_kwargs,
        "seed": algorithm.seed,
        "counters": {name: getattr(algorithm, name) for name in COUNTERS},
        "policy": algorithm.policy.state_dict(),
        "optimizer": algorithm.policy.optimizer.state_dict(),
        "env": algorithm.stepper.state_dict(),
        "generators": {
            name: generator.get_state() for name, generator in _generators(algorithm).items()
        },
    }


def _generators(algorithm: LMAlgorithm) -> dict[str, torch.Generator]:
    return {**algorithm.generators, "predict": algorithm.policy.generator}


def _checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(path for path in found if (path / STATE).is_file())
