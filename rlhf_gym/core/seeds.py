"""What may be a seed."""

from __future__ import annotations

from rlhf_gym.core.errors import InvalidArgument

SEEDS = 1 << 32
"""How many there are: what NumPy's global generator takes, which Stable-Baselines3 seeds too."""


def check_seed(seed: int | None, field: str = "seed") -> None:
    """Refuse what a generator would only refuse in the middle.

    Args:
        seed: None draws one.
        field: what the user gave it as.

    Raises:
        InvalidArgument: negative, or too large.
    """
    if seed is not None and not 0 <= seed < SEEDS:
        raise InvalidArgument(field, seed, "no seed", f"Give a whole number from 0 to {SEEDS - 1}")
