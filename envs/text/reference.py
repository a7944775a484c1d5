"""The reference, decoded along with the episodes: for masks and rewards that need it each step."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlhf_gym.core.decoding import Decoder, make_decoder

IntArray = NDArray[np.int64]


class ReferenceAlongside:
    """The reference's next-token logits in every row's current state, from its own cache.

    Args:
        reference: the frozen causal LM.
        capacity: most tokens a row holds, prompt and padding included.
        device: where the reference is.
    """

    def __init__(self, reference: nn.Module, capacity: int, device: torch.device | str) -> None:
        self.capacity = capacity
        self.device = device
        self._decoder: Decoder = make_decoder(reference)
        self._hidden: Tensor | None = None
        self._logits: Tensor | None = None
        # Columns each row takes in the cache, shape (rows,).
        self._used = np.empty(0, dtype=np.int64)

    @torch.no_grad()
    def begin(self, ids: IntArray, mask: NDArray[np.int8]) -> None:
        """Read the prompts of all rows.

        Args:
            ids: left padded, shape (rows, width).
            mask: 1 at real tokens, shape (rows, width).
        """
        self._hidden = self._decoder.prefill(*self._tensors(ids, mask), self.capacity)
        self._used = np.full(len(ids), ids.shape[1])
        self._logits = None

    @torch.no_grad()
    def replace(self, rows: IntArray, ids: IntArray, mask: NDArray[np.int8]) -> None:
        """Read new prompts in some rows, shape (k,), while the others go on."""
        if self._hidden is None:
            raise RuntimeError("begin must come before replace")
        which = torch.from_numpy(rows).to(self.device)
        hidden = self._hidden.clone()
        hidden[which] = self._decoder.replace(which, *self._tensors(ids, mask))
        self._hidden, self._logits = hidden, None
        self._used[rows] = ids.shape[1]

    @torch.no_grad()
    def advance(self, tokens: IntArray) -> None:
        """Read one token in every row, shape (rows,); rows without an episode may get any."""
        full = np.flatnonzero(self._used >= self.capacity)
        if len(full):
            # Only rows that wait for their reset get here; any short content will do.
            self.replace(full, tokens[full, None], np.ones((len(full), 1), dtype=np.int8))
        self._hidden = self._decoder.step(torch.from_numpy(tokens).to(self.device))
        self._used += 1
        self._logits = None

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Raw next-token logits, shape (rows, at least vocab); computed once per state."""
        if self._hidden is None:
            raise RuntimeError("begin must come before logits")
        if self._logits is None:
            self._logits = self._decoder.logits(self._hidden)
        return self._logits

    def _tensors(self, ids: IntArray, mask: NDArray[np.int8]) -> tuple[Tensor, Tensor]:
        return (
            torch.from_numpy(ids).to(self.device),
            torch.from_numpy(mask.astype(np.int64)).to(self.device),
        )
