"""Transitions of one episode read in one pass: the shorter ones are prefixes of the longest.

SB3 trains on transitions, each with the whole text so far. In a causal model a token's state has
seen nothing behind it, so one pass over a text has the states of all its prefixes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_gym.agents.packed_forward import PackedRows
from rlhf_gym.core.tokens import last_token_index

_NOTHING = -1
"""In the place of padding; sorts before every token, so a prefix comes before what continues it."""


class SharedPrefixes(NamedTuple):
    """A batch of observations without what is in it twice.

    Attributes:
        rows: the longest texts, each once; wanted are the last tokens of all observations.
        state_of: for every observation, which of the wanted states is its own, shape (batch,).
    """

    rows: PackedRows
    state_of: Tensor

    @classmethod
    def of(cls, input_ids: Tensor, attention_mask: Tensor) -> SharedPrefixes:
        """Find the observations that need a pass of their own.

        Args:
            input_ids: int64, shape (batch, width).
            attention_mask: True at real tokens, which stand side by side; shape (batch, width).
        """
        padded = input_ids.masked_fill(~attention_mask, _NOTHING)
        # Different observations in lexicographic order: whatever lies between a text and its
        # continuation continues it too, so looking at neighbours is enough.
        texts, state_of = torch.unique(padded, dim=0, return_inverse=True)
        mask = texts != _NOTHING
        last = last_token_index(mask)
        is_read = ~_starts_next(texts, last)
        # Row that each text is read in: the next one that is read itself.
        row = is_read.cumsum(0) - is_read.long()

        mask = mask[is_read]
        flat = mask.flatten().nonzero().squeeze(-1)
        lengths = mask.sum(-1)
        first = lengths.cumsum(0) - lengths
        row_of_token = flat // mask.shape[1]
        positions = torch.arange(len(flat), device=flat.device) - first[row_of_token]
        width = int(lengths.max())
        beginning = mask.int().argmax(-1)
        rows = PackedRows(
            ids=texts[is_read].flatten()[flat],
            positions=positions,
            slots=row_of_token * width + positions,
            rows=len(mask),
            width=width,
            # Ascending and distinct, as PackedRows wants it: by row, then by length.
            wanted=first[row] + last - beginning[row],
        )
        return cls(rows, state_of)

    @property
    def tokens(self) -> int:
        """Tokens that are read."""
        return len(self.rows.ids)


def _starts_next(texts: Tensor, last: Tensor) -> Tensor:
    """Whether the next text is the same up to this one's last token, shape (texts,).

    Args:
        texts: in lexicographic order, -1 at padding, shape (texts, width).
        last: column of each text's last token, shape (texts,).
    """
    behind = torch.arange(texts.shape[1], device=texts.device) > last[:, None]
    is_start = ((texts[:-1] == texts[1:]) | behind[:-1]).all(-1)
    return torch.cat([is_start, is_start.new_zeros(1)])
