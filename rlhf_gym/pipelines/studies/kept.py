"""Results that outlive an interrupted study: computed once, and read back if nothing changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhf_gym.core.supervised.common import to_json, write_json


def kept(
    path: Path, settings: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """A result from its file, or else computed and written there.

    Args:
        path: the file, JSON.
        settings: all that the result depends on; with others it is computed anew.
        compute: gives the result, in what JSON can hold.

    Returns:
        The result as JSON holds it: lists for tuples, None for NaN.
    """
    key = to_json(settings)
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] == key:
            return dict(found["result"])
    result = dict(to_json(compute()))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"settings": key, "result": result})
    return result
