"""Where models live: `auto` is a GPU if there is one, as in Stable-Baselines3."""

from __future__ import annotations

import torch

from rlhf_gym.core.errors import InvalidArgument

Device = torch.device | str


def same_device(first: torch.device, second: torch.device) -> bool:
    """Whether two names stand for one device: "cuda" is the GPU in use, as "cuda:0" may be."""
    if first.type != second.type:
        return False
    indices = {first.index, second.index}
    if first.type == "cuda":
        indices = {torch.cuda.current_device() if i is None else i for i in indices}
    return len(indices) == 1


def choose_device(device: Device = "auto") -> torch.device:
    """The device that a name stands for.

    Args:
        device: "auto", or what `torch.device` takes: "cpu", "cuda", "cuda:1".

    Raises:
        InvalidArgument: no such device, on this machine or at all.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InvalidArgument(
            "device", device, "no device is called so", "Give auto, cpu, cuda or cuda:1"
        ) from None
    count = torch.cuda.device_count()
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        raise InvalidArgument(
            "device",
            str(device),
            f"torch {torch.__version__} sees {count} GPU{'' if count == 1 else 's'}",
            "Give auto or cpu, or install a build of torch for your GPU",
        )
    return chosen
