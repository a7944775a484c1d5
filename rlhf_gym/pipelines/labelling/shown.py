"""Queries as the page shows them: texts as they are, clips as strips of pictures."""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
from typing import Any

import numpy as np
from PIL import Image

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.feedback import ControlSegment, Segment, TextSegment
from rlhf_gym.core.store import StoredQuery

ENVIRONMENT = "supervised_environment"
"""Under this name the provenance of a step's rating says in which task an agent was taught."""
LARGEST_SIDE = 16_000
"""Pixels; WebP ends at 16,383."""
STRIP_PIXELS = 12_000_000
"""A strip larger than this is shrunk: packing it takes seconds, and a phone refuses it."""
STEPS_AS_TEXT = 200
"""Of a clip without pictures."""


def shown_query(stored: StoredQuery, rater: str) -> dict[str, Any]:
    """A query as JSON.

    The segments are in an order of the rater's own, the same whenever the page is loaded, so that
    neither place nor habit favours the first; `place` is each one's number in the query. The gold
    answer and the provenance stay here.

    Args:
        stored: the query.
        rater: for whom.
    """
    query = stored.query
    first = query.segments[0]
    shown: dict[str, Any] = {
        "id": stored.id,
        "question": query.question,
        "levels": query.levels,
        "choices": list(query.choices),
        "prompt": first.prompt if isinstance(first, TextSegment) else None,
        "segments": [
            {"place": place, **_shown_segment(query.segments[place], stored.id, place)}
            for place in screen_order(len(query.segments), stored.id, rater)
        ],
    }
    # Names the drafts a browser keeps: another query under the same number has another key.
    content = json.dumps(shown, ensure_ascii=False).encode()
    shown["key"] = hashlib.blake2b(content, digest_size=12).hexdigest()
    return shown


def screen_order(count: int, query_id: int, rater: str) -> list[int]:
    """Places of segments from left to right, drawn once for each rater and query."""
    order = list(range(count))
    random.Random(f"{query_id} {rater}").shuffle(order)
    return order


def strip(segment: Segment) -> bytes:
    """The pictures of a clip as one WebP image, row by row.

    Raises:
        InvalidArgument: a segment without pictures.
    """
    if not isinstance(segment, ControlSegment) or segment.frames is None:
        raise InvalidArgument("clip", type(segment).__name__, "no pictures", "Record frames")
    frames = np.asarray(segment.frames)
    columns, rows = _grid(frames.shape)
    count, height, width, channels = frames.shape
    sheet = np.zeros((columns * rows, height, width, channels), np.uint8)
    sheet[:count] = frames
    sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    image = Image.fromarray(sheet.reshape(rows * height, columns * width, channels))
    size = (columns * width, rows * height)
    excess = max(max(size) / LARGEST_SIDE, math.sqrt(size[0] * size[1] / STRIP_PIXELS))
    if excess > 1:
        # Whole pixels a frame, so that the page can cut the frames out again.
        small = (int(width / excess) or 1) * columns, (int(height / excess) or 1) * rows
        image = image.resize(small)
    return picture(image)


def picture(image: Image.Image) -> bytes:
    """An image as WebP, every pixel as it was, packed in the quickest way."""
    file = io.BytesIO()
    image.save(file, "webp", lossless=True, quality=0, method=0)
    return file.getvalue()


def _shown_segment(segment: Segment, query_id: int, place: int) -> dict[str, Any]:
    if isinstance(segment, TextSegment):
        return {"kind": "text", "text": segment.completion}
    if segment.frames is None:
        return {"kind": "numbers", "text": _as_text(segment)}
    columns, _ = _grid(segment.frames.shape)
    count, height, width = segment.frames.shape[:3]
    return {
        "kind": "clip",
        "url": f"/clips/{query_id}/{place}",
        "frames": count,
        "columns": columns,
        "width": width,
        "height": height,
    }


def _grid(shape: tuple[int, ...]) -> tuple[int, int]:
    """Columns and rows of a strip that is about as wide as high."""
    count, height, width = shape[:3]
    columns = min(count, max(1, round(math.sqrt(count * height / width))))
    return columns, -(-count // columns)


def _as_text(segment: ControlSegment) -> str:
    """What there is to see of a clip that has no pictures: its steps."""
    with np.printoptions(precision=3, suppress=True, threshold=40):
        lines = [
            f"{step + 1}. saw {segment.observations[step]} did {segment.actions[step]}"
            for step in range(min(len(segment), STEPS_AS_TEXT))
        ]
    left = len(segment) - len(lines)
    return "\n".join([*lines, *([f"and {left} more steps"] if left else [])])
