"""Whose file is it? What `save` wrote is looked at before anything in it is unpickled."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from stable_baselines3.common.save_util import open_path

from rlhf_gym.core.errors import InvalidCheckpoint

_CLASS = re.compile(r"<class '(?:.*\.)?(\w+)'>")
"""How SB3 notes the type of what it pickles."""


def check_saved_file(path: str | Path | io.BufferedIOBase, agent: str, config: str) -> None:
    """Refuse a file that another agent saved, or that is no agent at all.

    An agent is told by the class of its settings: those that share one cannot be told apart.

    Args:
        path: as SB3's `load` takes it.
        agent: name of the class that wants to load it.
        config: name of the class of its settings.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidCheckpoint: foreign, of another agent, truncated or no zip file.
    """
    shown = str(path)
    data = _description(path)
    if data is None:
        raise InvalidCheckpoint(
            "path",
            shown,
            "not a zip file that an agent saved, or cut short",
            f"Give a file that {agent}.save wrote",
        )
    saved = _class_of(data.get("config"))
    if saved is None:
        policy = data.get("policy_class")
        module = policy.get("__module__", "") if isinstance(policy, dict) else ""
        origin = f", but one whose policy is of {module}" if module else ""
        raise InvalidCheckpoint(
            "path",
            shown,
            f"not saved by an agent of rlhf_gym{origin}",
            f"Load it with the class that saved it, or give a file that {agent}.save wrote",
        )
    if saved != config:
        raise InvalidCheckpoint(
            "path",
            shown,
            f"saved by {saved.removesuffix('Config')}, not by {agent}",
            "Load it with the class that saved it",
        )


def _description(path: str | Path | io.BufferedIOBase) -> dict[str, Any] | None:
    """What the file says about its agent, still pickled inside; None if it says nothing."""
    file = open_path(path, "r", suffix="zip")
    try:
        start = file.tell()
        with zipfile.ZipFile(file) as archive:
            data = json.loads(archive.read("data"))
        file.seek(start)
    except (zipfile.BadZipFile, KeyError, ValueError):
        return None
    finally:
        if file is not path:
            file.close()
    return data if isinstance(data, dict) else None


def _class_of(entry: object) -> str | None:
    """Name of a pickled attribute's class; None if there is no such attribute."""
    kind = _CLASS.fullmatch(str(entry.get(":type:"))) if isinstance(entry, dict) else None
    return None if kind is None else kind.group(1)
