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

    All arrays are allocated once. A step writes one column per row through flat views, so its cost
    does not grow with the response. (Kept views would be cut off by deepcopy and pickle.)

    Args:
        num_envs: rows.
        prompt_width: columns of the left-padded prompt.
        max_response_tokens: columns of the response.
        pad_id: fills columns without a token.

    Attributes:
        ids, mask: shape (rows, prompt_width + max_response_tokens), int64 and int8.
        lengths: response tokens so far, shape (rows,).
        live: True where an episode is running, shape (rows,).
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
        self.lengths = np.zeros(num_envs, dtype=np.int64)
        self.live = np.zeros(num_envs, dtype=np.bool_)
        self.prompt_index = np.zeros(num_envs, dtype=np.int64)
        self.log_probs = np.full((num_envs, max_response_tokens), np.nan, dtype=np.float32)
        rows = np.arange(num_envs)
        self._first_column = rows * width + prompt_width
        self._first_log_prob = rows * max_response_tokens

    def begin(
        self, rows: IntArray, prompt_index: IntArray, ids: IntArray, mask: NDArray[np.int8]
    ) -> None:
        """Start new episodes in some rows, shape (k,), with left-padded prompts."""
        self.ids[rows, : self.prompt_width] = ids
        self.ids[rows, self.prompt_width :] = self._pad_id
        self.mask[rows, : self.prompt_width] = mask
        self.mask[rows, self.prompt_width :] = 0
        self.lengths[rows] = 0
        self.live[rows] = True
        self.prompt_index[rows] = prompt_index
        self.log_probs[rows] = np.nan

    def append(self, tokens: IntArray, log_probs: Tensor | None) -> None:
        """Write one token in every row; every row must be live.

        Args:
            tokens: shape (rows,).
            log_probs: log pi of each, shape (rows,), or None if nobody wrote them.
        """
        at = self._first_column + self.lengths
        self.ids.reshape(-1)[at] = tokens
        self.mask.reshape(-1)[at] = 1
        if log_probs is not None:
            at = self._first_log_prob + self.lengths
            self.log_probs.reshape(-1)[at] = log_probs.numpy()
        self.lengths += 1

    def append_at(self, rows: IntArray, tokens: IntArray, log_probs: Tensor | None) -> None:
        """`append` for some rows, shape (k,); `tokens` and `log_probs` are of all rows."""
        lengths = self.lengths[rows]
        at = self._first_column[rows] + lengths
        self.ids.reshape(-1)[at] = tokens[rows]
        self.mask.reshape(-1)[at] = 1
        if log_probs is not None:
            at = self._first_log_prob[rows] + lengths
            self.log_probs.reshape(-1)[at] = log_probs.numpy()[rows]
        self.lengths[rows] += 1

    def state_dict(self) -> dict[str, Any]:
        """Copies of all arrays."""
        return {name: getattr(self, name).copy() for name in self._arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            InvalidCheckpoint: the state is of another number of rows or another width.
        """
        for name in self._arrays:
            array, saved = getattr(self, name), np.asarray(state[name])
            if saved.shape != array.shape:
                raise InvalidCheckpoint(
                    name,
                    saved.shape,
                    f"the environment has {array.shape}",
                    "Resume with the num_envs, prompts and max_response_tokens of the saved run",
                )
            array[...] = saved

    _arrays = ("ids", "mask", "lengths", "live", "prompt_index", "log_probs")
