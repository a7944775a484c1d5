"""N responses being written, as arrays: the whole state that `step` touches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.core.errors import InvalidCheckpoint

IntArray = NDArray[np.int64]


class Responses:
    """Prompt and response of every row, and what the policy wrote about its tokens.

    All arrays are allocated once, and a step writes one column. After a model's pass every cache is
    cold, and then NumPy's arithmetic on even a few numbers takes longer than all of the writing. So
    while the rows are equally long, as they are until the first one ends, their length is a Python
    number and a step is plain copies.

    Args:
        num_envs: rows.
        prompt_width: columns of the left-padded prompt.
        max_response_tokens: columns of the response.
        pad_id: fills columns without a token.

    Attributes:
        ids, mask: shape (rows, prompt_width + max_response_tokens), int64 and int8.
        live: True where an episode is running, shape (rows,).
        live_rows: the numbers of those rows, ascending.
        all_live: True if they are all rows.
        waiting: True where a response has ended and its episode will with others, shape (rows,).
        even_length: response tokens of every row if all are live and equally long, else None.
        prompt_index: which prompt each row answers, shape (rows,).
        log_probs: log pi of each response token in nats, NaN where unknown, shape (rows, time).
    """

    def __init__(
        self, num_envs: int, prompt_width: int, max_response_tokens: int, pad_id: int
    ) -> None:
        self.prompt_width = prompt_width
        self.max_response_tokens = max_response_tokens
        self._pad_id = pad_id
        width = prompt_width + max_response_tokens
        self.ids = np.full((num_envs, width), pad_id, dtype=np.int64)
        self.mask = np.zeros((num_envs, width), dtype=np.int8)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self.live = np.zeros(num_envs, dtype=np.bool_)
        self.live_rows = np.flatnonzero(self.live)
        self.all_live = False
        self.waiting = np.zeros(num_envs, dtype=np.bool_)
        self.even_length: int | None = None
        self.prompt_index = np.zeros(num_envs, dtype=np.int64)
        self.log_probs = np.full((num_envs, max_response_tokens), np.nan, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> IntArray:
        """Response tokens so far, shape (rows,); a copy."""
        if self.even_length is not None:
            return np.full(len(self), self.even_length)
        return self._lengths.copy()

    @property
    def idle(self) -> IntArray:
        """Rows without an episode: neither live nor waiting, shape (k,)."""
        if self.all_live:
            return NO_ROWS
        return np.flatnonzero(~(self.live | self.waiting))

    def begin(
        self, rows: IntArray, prompt_index: IntArray, ids: IntArray, mask: NDArray[np.int8]
    ) -> None:
        """Start new episodes in some rows, shape (k,), with left-padded prompts."""
        self.ids[rows, : self.prompt_width] = ids
        self.ids[rows, self.prompt_width :] = self._pad_id
        self.mask[rows, : self.prompt_width] = mask
        self.mask[rows, self.prompt_width :] = 0
        self.prompt_index[rows] = prompt_index
        self.log_probs[rows] = np.nan
        self.waiting[rows] = False
        self._set(rows, live=True, length=0)

    def close(self, rows: IntArray) -> None:
        """End the episodes of some rows, shape (k,); what they wrote stays until `begin`."""
        self._set(rows, live=False)

    def wait(self, rows: IntArray) -> IntArray:
        """Close some rows, shape (k,), and let them wait until no row is live.

        Returns:
            The rows whose waiting is over, shape (n,): all that waited, or none.
        """
        self.close(rows)
        self.waiting[rows] = True
        if len(self.live_rows):
            return NO_ROWS
        rows = np.flatnonzero(self.waiting)
        self.waiting[:] = False
        return rows

    def append(self, tokens: IntArray, log_probs: Tensor | None) -> None:
        """Write one token in every live row.

        Args:
            tokens: shape (num_envs,); what stands in other rows is ignored.
            log_probs: log pi of each, shape (num_envs,), or None if nobody wrote them.
        """
        if self.even_length is not None:
            column = self.prompt_width + self.even_length
            self.ids[:, column] = tokens
            self.mask[:, column] = 1
            if log_probs is not None:
                self.log_probs[:, self.even_length] = log_probs.numpy()
            self.even_length += 1
            return
        rows, lengths = self.live_rows, self._lengths[self.live_rows]
        columns = self.prompt_width + lengths
        self.ids[rows, columns] = tokens[rows]
        self.mask[rows, columns] = 1
        if log_probs is not None:
            self.log_probs[rows, lengths] = log_probs.numpy()[rows]
        self._lengths[rows] += 1

    def state_dict(self) -> dict[str, Any]:
        """Copies of all arrays."""
        return {name: getattr(self, name).copy() for name in _SAVED}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            InvalidCheckpoint: the state is of another number of rows or another width.
        """
        for name in _SAVED:
            shape, saved = getattr(self, name).shape, np.asarray(state[name])
            if saved.shape != shape:
                raise InvalidCheckpoint(
                    name,
                    saved.shape,
                    f"the environment has {shape}",
                    "Resume with the num_envs, prompts and max_response_tokens of the saved run",
                )
        for name in ("ids", "mask", "live", "waiting", "prompt_index", "log_probs"):
            getattr(self, name)[...] = state[name]
        self._lengths[...] = state["lengths"]
        self.even_length = None
        self._set(NO_ROWS, live=True)

    def _set(self, rows: IntArray, *, live: bool, length: int | None = None) -> None:
        """Change which rows are live, and how long they are."""
        self._lengths = self.lengths
        self.live[rows] = live
        if length is not None:
            self._lengths[rows] = length
        self.live_rows = np.flatnonzero(self.live)
        self.all_live = len(self.live_rows) == len(self)
        first = int(self._lengths[0])
        even = self.all_live and bool((self._lengths == first).all())
        self.even_length = first if even else None


_SAVED = ("ids", "mask", "lengths", "live", "waiting", "prompt_index", "log_probs")
NO_ROWS = np.empty(0, dtype=np.int64)
