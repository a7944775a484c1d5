"""Segments and labels as what a row of the store holds, and back."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, get_args

import numpy as np

from rlhf_gym.core.errors import InvalidData, InvalidStore
from rlhf_gym.core.feedback import ControlSegment, Query, Segment, TextSegment
from rlhf_gym.core.labels import Label

LABEL_KINDS: dict[str, type[Label]] = {kind.__name__.lower(): kind for kind in get_args(Label)}
"""Every class of labels by the name it is stored under."""


class Item(NamedTuple):
    """A segment as columns of the table `items`.

    Attributes:
        digest: of the content.
        kind: "text" or "control".
        prompt: of a text.
        completion: of a text.
        arrays: of control, NumPy's .npz.
    """

    digest: bytes
    kind: str
    prompt: str | None
    completion: str | None
    arrays: bytes | None


def to_item(segment: Segment) -> Item:
    """A segment as it is stored.

    Raises:
        InvalidData: a text with half of a character (a lone surrogate) in it.
    """
    if isinstance(segment, TextSegment):
        try:
            parts = [segment.prompt.encode(), segment.completion.encode()]
        except UnicodeEncodeError as error:
            raise InvalidData(
                "segments", segment, f"not a text ({error.reason})", "Leave out half characters"
            ) from error
        return Item(_digest("text", *parts), "text", segment.prompt, segment.completion, None)
    arrays = {
        "observations": segment.observations,
        "actions": segment.actions,
        "rewards": segment.rewards,
        "frames": segment.frames,
    }
    given = {name: np.asarray(array) for name, array in arrays.items() if array is not None}
    headers = [f"{name} {array.dtype.str} {array.shape}".encode() for name, array in given.items()]
    data = [np.ascontiguousarray(array).tobytes() for array in given.values()]
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **given)
    return Item(_digest("control", *headers, *data), "control", None, None, file.getvalue())


def to_segment(item: Item) -> Segment:
    """The segment that `to_item` stored.

    Raises:
        InvalidStore: damaged arrays.
    """
    if item.arrays is None:
        return TextSegment(item.prompt or "", item.completion or "")
    try:
        with np.load(io.BytesIO(item.arrays), allow_pickle=False) as file:
            return ControlSegment(**{name: file[name] for name in file.files})
    except (ValueError, OSError, EOFError, TypeError) as error:
        raise InvalidStore(
            "item", item.digest.hex(), f"its arrays are damaged ({error})", "Restore a copy"
        ) from error


def query_digest(query: Query, items: Sequence[Item]) -> bytes:
    """What makes two queries the same: question, scale, choices, and segments in their order."""
    scale = json.dumps([query.question, query.levels, query.choices], ensure_ascii=False)
    return _digest("query", scale.encode(), *(item.digest for item in items))


def label_to_json(label: Label) -> tuple[str, str]:
    """Kind and answer, as the columns of the table `labels`."""
    return type(label).__name__.lower(), json.dumps(asdict(label), ensure_ascii=False)


def label_from_json(kind: str, answer: str) -> Label:
    """The label that `label_to_json` stored.

    Raises:
        InvalidStore: a kind or a field that there is not.
    """
    try:
        chosen: Callable[..., Label] = LABEL_KINDS[kind]
        values: dict[str, Any] = json.loads(answer)
        # JSON has lists where labels have tuples.
        frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return chosen(**frozen)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InvalidStore(
            "label", answer, f"not a label of the kind {kind!r} ({error})", "Restore a copy"
        ) from error


def _digest(kind: str, *parts: bytes) -> bytes:
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    for part in parts:
        # The length keeps ("ab", "c") apart from ("a", "bc").
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
