"""What the page sends, checked before it becomes a label."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from rlhf_gym.core.errors import InvalidData
from rlhf_gym.core.labels import Label
from rlhf_gym.core.store.content import LABEL_KINDS


def read_label(answer: Any) -> Label:
    """A label from JSON, such as `{"kind": "ranking", "order": [1, 0]}`.

    Args:
        answer: the fields of a class in `rlhf_gym.core.labels`, and its name in lower case.

    Raises:
        InvalidData: no such kind, a field that is missing, unknown or of another type, or half of a
            character (a lone surrogate) in a text.
    """
    if not isinstance(answer, Mapping) or str(answer.get("kind")) not in LABEL_KINDS:
        raise InvalidData(
            "label", answer, "no kind of label", f"Send kind, one of {', '.join(LABEL_KINDS)}"
        )
    kind = LABEL_KINDS[str(answer["kind"])]
    hints, make = get_type_hints(kind), cast(Callable[..., Label], kind)
    values = {name: value for name, value in answer.items() if name != "kind"}
    for name, value in values.items():
        if name not in hints or not _fits(value, hints[name]):
            expected = hints.get(name, "nothing of that name")
            raise InvalidData(f"label.{name}", value, f"expected {expected}", "Send it so")
    frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return make(**frozen)
    except TypeError as error:
        needed = ", ".join(field.name for field in fields(kind))
        raise InvalidData("label", answer, str(error), f"Send {needed}") from error


def read_text(value: Any, field: str) -> str:
    """A text that can be stored.

    Raises:
        InvalidData: no text, or half of a character in it.
    """
    if not _fits(value, str):
        raise InvalidData(field, value, "not a text", "Send a string of whole characters")
    return str(value)


def read_number(value: Any, field: str) -> int:
    """A whole number.

    Raises:
        InvalidData: something else.
    """
    if not _fits(value, int):
        raise InvalidData(field, value, "not a whole number", "Send one")
    return int(value)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of a type; tuples come as lists."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    if hint is str:
        return isinstance(value, str) and _whole(value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, hint)


def _whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
