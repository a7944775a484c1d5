"""Numbers over the whole vocabulary, remembered at every token until the episode ends."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.core.errors import InvalidArgument

IntArray = NDArray[np.int64]


class VocabularyHistory:
    """One number per row, response token and vocabulary entry, kept until the episode ends.

    Args:
        shape: (rows, time, vocab).
        dtype: float32 for log-probabilities, bool for masks.
        unknown: what stands where nothing was written.
        limit: most bytes this may take.
        reason: which setting needs it, for the message.

    Raises:
        InvalidArgument: more bytes than the limit.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        unknown: float | bool,
        *,
        limit: int,
        reason: str,
    ) -> None:
        size = int(np.prod(shape)) * dtype.itemsize
        if size > limit:
            raise InvalidArgument(
                "max_distribution_bytes",
                limit,
                f"{reason} keeps {shape[0]} x {shape[1]} x {shape[2]} values, {size} bytes",
                "Use reward_timing='step' (for the estimator), fewer num_envs, or a higher limit",
            )
        self.values = torch.full(shape, unknown, dtype=dtype)
        self._unknown = unknown

    def begin(self, rows: IntArray) -> None:
        """Forget what was written in some rows, shape (k,)."""
        self.values[torch.from_numpy(rows)] = self._unknown

    def write(self, rows: IntArray, lengths: IntArray, values: Tensor) -> None:
        """Keep values, shape (k, vocab), at the token that comes next in some rows, shape (k,)."""
        at = torch.from_numpy(rows), torch.from_numpy(lengths)
        self.values[at] = values.to(self.values)

    def read(self, rows: IntArray) -> Tensor:
        """A copy of some rows, shape (k, time, vocab)."""
        return self.values[torch.from_numpy(rows)]
