"""What ways of choosing pairs are called (`selection`). Light to import."""

from __future__ import annotations

from typing import Literal, cast, get_args

from rlhf_gym.core.errors import InvalidArgument

MethodName = Literal["uniform", "disagreement", "entropy", "kcenter"]


def methods_named(name: str) -> list[MethodName]:
    """The methods that a name joins by `+`, in order.

    Raises:
        InvalidArgument: no such method.
    """
    known = get_args(MethodName)
    stages = name.split("+")
    if unknown := [stage for stage in stages if stage not in known]:
        raise InvalidArgument(
            "selection",
            name,
            f"no such method: {', '.join(unknown)}",
            f"Choose from {', '.join(known)}, or join some of them with +",
        )
    return cast(list[MethodName], stages)
