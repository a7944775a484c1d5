"""Documents of all lengths in rows of one length, without any seeing its neighbour.

Every piece of a document starts at position 0, and transformers reads jumps in `position_ids` as
borders that attention does not cross: a packed row has exactly the losses of its pieces alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from rlhf_gym.core.supervised.trainer import Batch, Examples

Ids = np.ndarray[Any, np.dtype[np.int32]]


class Row(NamedTuple):
    """Pieces of documents behind each other.

    Attributes:
        input_ids: int32, shape (tokens,).
        positions: of each token within its piece, int32, shape (tokens,).
    """

    input_ids: Ids
    positions: Ids


def pack(documents: Sequence[Sequence[int]], context: int) -> Examples[Row]:
    """Cut documents into pieces of at most `context` tokens and fill rows with them.

    Best fit, longest first: a piece goes where it leaves the least room. A lone last token, which
    nothing would predict, is left out.

    Args:
        documents: token ids of each.
        context: longest row, in tokens.

    Source: Ding et al., "Fewer Truncations Improve Language Modeling" (2024), section 3.
    """
    pieces = [
        np.asarray(document[start : start + context], dtype=np.int32)
        for document in documents
        for start in range(0, len(document) - 1, context)
    ]
    pieces.sort(key=len, reverse=True)
    rows: list[list[Ids]] = []
    rows_with_room: list[list[int]] = [[] for _ in range(context + 1)]
    rooms = 0  # bit r is set if some row has room for r tokens
    for piece in pieces:
        fitting = rooms >> len(piece)
        if fitting:
            room = len(piece) + (fitting & -fitting).bit_length() - 1  # the smallest that fits
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                rooms ^= 1 << room
        else:
            room, row = context, len(rows)
            rows.append([])
        rows[row].append(piece)
        left = room - len(piece)
        rows_with_room[left].append(row)
        rooms |= 1 << left
    packed = [
        Row(np.concatenate(row), np.concatenate([np.arange(len(p), dtype=np.int32) for p in row]))
        for row in rows
    ]
    return Examples(packed, [len(row.input_ids) for row in packed])


def collate_rows(rows: Sequence[Row], pad_id: int) -> Batch:
    """Pad rows on the right; the first token of a piece, which nothing predicts, has no label.

    Returns:
        `input_ids`, `position_ids`, `labels` (-100 where there is none), int64, each of shape
        (batch, longest row), and `use_cache=False`: with a cache transformers would overlook the
        borders.
    """
    width = max(len(row.input_ids) for row in rows)
    input_ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    positions = np.zeros((len(rows), width), dtype=np.int64)
    for line, row in enumerate(rows):
        input_ids[line, : len(row.input_ids)] = row.input_ids
        positions[line, : len(row.positions)] = row.positions
    labels = np.where(positions == 0, -100, input_ids)
    return {
        "input_ids": torch.from_numpy(input_ids),
        "position_ids": torch.from_numpy(positions),
        "labels": torch.from_numpy(labels),
        "use_cache": False,
    }
