"""Nested state as JSON and safetensors: exact, and nothing in it can be executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rlhf_gym.core.errors import InvalidCheckpoint

FORMAT = "rlhf_gym state, version 1"
STATE = "state.json"
TENSORS = "state.safetensors"


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write nested dictionaries, lists, tensors, NumPy arrays and plain values.

    Args:
        folder: an existing folder; gets `state.safetensors` and then `state.json`.
        state: keys of dictionaries are strings or integers.
    """
    packer = _Packer()
    tree = {"format": FORMAT, "state": packer.pack(state)}
    save_file(packer.tensors, folder / TENSORS)
    # Last, because a folder with this file counts as complete.
    (folder / STATE).write_text(json.dumps(tree), encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """Read what `write_state` wrote.

    Raises:
        InvalidCheckpoint: files that are missing, truncated or of something else.
    """
    try:
        tree = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if not isinstance(tree, dict) or tree.get("format") != FORMAT:
            raise ValueError("state.json was not written by a checkpoint of this library")
        with safe_open(folder / TENSORS, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        state: dict[str, Any] = _unpack(tree["state"], tensors)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InvalidCheckpoint(
            "folder",
            str(folder),
            f"it cannot be read ({type(error).__name__}: {error})",
            "Use an older checkpoint of the same run",
        ) from error
    return state


class _Packer:
    """Parts a tree into what JSON holds and what safetensors holds."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._seen: dict[tuple[Any, ...], str] = {}

    def pack(self, node: Any) -> Any:
        if isinstance(node, torch.Tensor):
            return {"tensor": self._store(node)}
        if isinstance(node, np.ndarray):
            # A copy: arrays handed over by NumPy need not be writable or contiguous.
            return {"array": self._store(torch.from_numpy(np.array(node)))}
        if isinstance(node, np.generic):
            return {"value": node.item()}
        if isinstance(node, dict):
            return {"pairs": [[key, self.pack(value)] for key, value in node.items()]}
        if isinstance(node, list | tuple):
            return {"list": [self.pack(value) for value in node]}
        return {"value": node}

    def _store(self, tensor: torch.Tensor) -> str:
        tensor = tensor.detach()
        # Tied weights are one tensor under two names: written once.
        where = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and where in self._seen:
            return self._seen[where]
        key = str(len(self.tensors))
        self._seen[where] = key
        self.tensors[key] = tensor.cpu().contiguous()
        return key


def _unpack(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "pairs":
        return {key: _unpack(value, tensors) for key, value in content}
    if kind == "list":
        return [_unpack(value, tensors) for value in content]
    return content
