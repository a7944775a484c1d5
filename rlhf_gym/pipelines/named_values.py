"""Settings as a command line gives them, `name=value`."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from rlhf_gym.core.errors import InvalidArgument

_WORDS = {"true": True, "false": False, "null": None}
"""As JSON writes what Python writes with a capital, or otherwise."""


def parse_settings(
    pairs: Sequence[str], field: str = "agent_kwargs", example: str = "learning_rate=1e-3"
) -> dict[str, Any]:
    """Settings from `name=value`, values as Python or JSON writes them; others are strings.

    Args:
        pairs: one setting each.
        field: the flag they were given to, for messages.
        example: likewise.

    Raises:
        InvalidArgument: without an equals sign, or with nothing before it.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise InvalidArgument(field, pair, "not of the form name=value", f"Write {example}")
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name] = _WORDS.get(value, value)
    return settings
