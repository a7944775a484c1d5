"""What every supervised stage shares: its configuration, its folder and its summary.

Light to import (no torch, no transformers), so that a command line can show its help at once.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlhf_gym.core.errors import FolderNotWritable, InvalidArgument, InvalidCheckpoint
from rlhf_gym.core.seeds import check_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SUMMARY_FILE = "summary.json"
STAGE_FILE = "stage.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"

# Fields that may change between a run and its resumption: they do not change what is learned.
_FREE_TO_CHANGE = frozenset(
    {
        "output",
        "evaluate_every",
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
        "progress",
        "resume",
        "device",
    }
)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Fields of every stage that is trained by `transformers.Trainer`."""

    output: str
    """Folder of the result: a Hugging Face directory, summary.json, tensorboard/, checkpoints/."""
    epochs: float = 1.0
    """Passes over the training data."""
    max_steps: int | None = None
    """Stop after this many updates; None trains all epochs."""
    batch_size: int = 32
    """Examples per forward pass."""
    accumulate: int = 1
    """Forward passes per update; the update is exactly that of one batch of their joint size."""
    learning_rate: float = 1e-3
    """Peak of AdamW's learning rate."""
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup: float = 0.05
    """Share of the updates over which the learning rate rises from 0."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    held_out: float = 0.05
    """Share of the data kept for evaluation, split so that no prompt or text is on both sides."""
    evaluate_every: int | None = None
    """Updates between evaluations on held-out data; None evaluates at the end of each epoch."""
    checkpoint_every: int | None = None
    """Updates between checkpoints; None writes one at the end of each epoch."""
    keep_checkpoints: bool = False
    """Keep the last checkpoint (with optimiser state) after the run has finished."""
    resume: bool = True
    """Continue an unfinished run found in the output folder; --no-resume deletes it."""
    log_every: int = 10
    """Updates between TensorBoard points."""
    seed: int = 0
    """Of initial weights, split and order of the data."""
    device: Literal["auto", "cpu"] = "auto"
    """auto takes an accelerator if there is one."""
    bf16: bool = False
    """Train in bfloat16 mixed precision."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("batch_size", "accumulate", "log_every"):
            self._check(name, getattr(self, name) >= 1, "a count", "Give 1 or more")
        for name in ("max_steps", "evaluate_every", "checkpoint_every"):
            value = getattr(self, name)
            self._check(name, value is None or value >= 1, "a count", "Give 1 or more, or None")
        for name in ("epochs", "learning_rate", "max_grad_norm"):
            self._check(name, getattr(self, name) > 0, "above 0", "Give a positive number")
        for name in ("held_out", "warmup"):
            self._check(
                name, 0 <= getattr(self, name) < 1, "a share", "Give a number from 0 to below 1"
            )
        self._check("weight_decay", self.weight_decay >= 0, "0 or more", "Give 0 for no decay")

    def _check(self, name: str, right: bool, kind: str, remedy: str) -> None:
        if not right:
            raise InvalidArgument(name, getattr(self, name), f"it must be {kind}", remedy)


def open_folder(config: StageConfig, stage: str) -> Path:
    """Make the output folder ready, before any work is done.

    An unfinished run of the same configuration is left there to be resumed.

    Args:
        config: the stage's configuration.
        stage: its name, recorded with the configuration.

    Raises:
        FolderNotWritable: the folder cannot be made or written to.
        InvalidCheckpoint: it holds an unfinished run of another configuration.
    """
    folder = Path(config.output)
    check_writable(folder)
    described = {"stage": stage, "config": to_json(dataclasses.asdict(config))}
    checkpoints = folder / CHECKPOINTS
    if not config.resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
    elif last_checkpoint(folder) is not None:
        _refuse_other_run(folder, described)
    write_json(folder / STAGE_FILE, described)
    return folder


def close_folder(
    config: StageConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    summary: Mapping[str, Any],
) -> None:
    """Write the stage's result, and only then delete what it could have been resumed from.

    Args:
        config: of the stage.
        model: what it trained.
        tokenizer: of the model.
        summary: numbers and texts for summary.json, beside stage and configuration.
    """
    from rlhf_gym.core.models import save_model

    folder = Path(config.output)
    save_model(model, tokenizer, folder)
    described = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
    write_json(folder / SUMMARY_FILE, {**described, **summary})
    if not config.keep_checkpoints:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Make a folder if need be.

    Raises:
        FolderNotWritable: nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FolderNotWritable(
            "output",
            os.fspath(folder),
            f"nothing can be written there ({error.strerror})",
            "Give a folder you may write to",
        ) from error


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of an unfinished run, or None.

    Trainer writes trainer_state.json last: a checkpoint without a readable one was cut off.
    """
    found = sorted(
        (folder / CHECKPOINTS).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])
    )
    return next((path for path in reversed(found) if _is_complete(path)), None)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all; NaN, which JSON does not know, becomes null."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(to_json(content), indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def to_json(value: Any) -> Any:
    """Reduce tuples, paths, dataclasses and NumPy numbers to what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item()


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _refuse_other_run(folder: Path, described: Mapping[str, Any]) -> None:
    try:
        there = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        there = {}
    if there.get("stage") != described["stage"]:
        differing = ["stage"]
    else:
        old, new = there["config"], described["config"]
        differing = sorted(
            name
            for name in old.keys() | new.keys()
            if name not in _FREE_TO_CHANGE and old.get(name) != new.get(name)
        )
    if differing:
        raise InvalidCheckpoint(
            "output",
            os.fspath(folder),
            f"it holds an unfinished run that differs in {', '.join(differing)}",
            "Give another folder, or --no-resume to delete that run",
        )
