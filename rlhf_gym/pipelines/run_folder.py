"""A run is a folder: its configuration, TensorBoard events, checkpoints, samples and summary.

runs/<experiment>/<variant>/seed-<n>/
    config.json  summary.json  events.out.tfevents.*  checkpoints/  samples.md  policy/
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rlhf_gym.core.errors import FolderNotWritable, InvalidCheckpoint


def prepare_folder(path: str | Path, field: str = "output") -> Path:
    """Make a folder and prove that files can be written to it, before any work is done.

    Args:
        path: the folder; parents are made too.
        field: the flag it was given to, for the message.

    Raises:
        FolderNotWritable: it is a file, or there is no permission.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FolderNotWritable(
            field, str(path), error.strerror or str(error), "Choose a folder that you may write to"
        ) from error
    return folder


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(_plain(content), indent=2, sort_keys=True) + "\n")
    part.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON that a run wrote.

    Raises:
        InvalidCheckpoint: no such file, or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(
            "run folder", str(path), str(error), "Give the folder that the earlier stage wrote"
        ) from error


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return value.item() if callable(getattr(value, "item", None)) else str(value)
