"""The folder of a training run: only the run that was begun there goes on there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf_gym.core.errors import InvalidCheckpoint
from rlhf_gym.core.supervised.common import to_json

CONFIG_FILE = "config.json"
BEGIN_ANEW = "Give another --output, or --no-resume to delete that run's checkpoints and begin anew"
ANOTHER_OUTPUT = "Give another --output; what was labelled there stays"
"""What to do where a run may not be deleted."""

# Fields that may change between a run and its resumption: they do not change what is learned, or,
# as `total_timesteps`, only for how long.
_FREE_TO_CHANGE = frozenset(
    {
        "output",
        "total_timesteps",
        "checkpoint_every",
        "resume",
        "progress",
        "verbose",
        "environment.device",
        "teaching.labels",
        "teaching.evaluation_episodes",
    }
)


def refuse_other_run(folder: Path, config: object, remedy: str = BEGIN_ANEW) -> None:
    """Refuse to go on in a folder with other settings than those the run there was begun with.

    A checkpoint brings its own settings: new ones would be written down and not be used.

    Args:
        folder: with the configuration of the run there, if it was written.
        config: a dataclass.
        remedy: what to do.

    Raises:
        InvalidCheckpoint: the settings differ.
    """
    try:
        there = dict(_flat(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))))
    except (OSError, ValueError):
        return
    here = dict(_flat(to_json(config)))
    # A field that only one of them has came or went with a version of the library.
    differing = [
        f"{_flag(name)} (there {there[name]!r}, here {here[name]!r})"
        for name in sorted(there.keys() & here.keys() - _FREE_TO_CHANGE)
        if there[name] != here[name]
    ]
    if differing:
        raise InvalidCheckpoint(
            "output",
            str(folder),
            f"it holds a run of other settings: {', '.join(differing)}",
            remedy,
        )


def _flag(name: str) -> str:
    """A field as the command line calls it."""
    return name.removeprefix("environment.").removeprefix("teaching.")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
