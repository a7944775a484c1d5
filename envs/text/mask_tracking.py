"""The action masks of running episodes: what is allowed now, and what was at each token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.envs.text.history import VocabularyHistory
from rlhf_gym.envs.text.masking import ActionMasks, Written
from rlhf_gym.envs.text.responses import Responses

IntArray = NDArray[np.int64]


class MaskTracker:
    """Follows the rows of an environment.

    Args:
        responses: the episodes.
        masks: which actions are allowed.
        reference_logits: the reference's raw next-token logits in every row's current state, shape
            (rows, at least vocab); None without a reference.
        max_bytes: limit of what is remembered.

    Attributes:
        is_needed: False if masks depend on nothing but the length.
    """

    def __init__(
        self,
        responses: Responses,
        masks: ActionMasks,
        reference_logits: Callable[[], Tensor] | None,
        *,
        max_bytes: int,
    ) -> None:
        self._responses = responses
        self._masks = masks
        self._reference_logits = reference_logits if masks.needs_reference else None
        self.is_needed = masks.depends_on_text or self._reference_logits is not None
        # Where the masks' automata are in each row, shape (automata, rows).
        self._states = np.zeros((len(masks.automata), len(responses)), dtype=np.int64)
        # Of the current state; asked for by the agent and again by `remember`.
        self._allowed: Tensor | None = None
        self._history = None
        if self.is_needed:
            shape = (*responses.log_probs.shape, masks.rules.vocab_size)
            reason = "a mask that depends on the text"
            self._history = VocabularyHistory(
                shape, torch.bool, True, limit=max_bytes, reason=reason
            )

    def begin(self, rows: IntArray) -> None:
        """Episodes have begun in some rows, shape (k,)."""
        self._states[:, rows] = 0
        self._allowed = None
        if self._history is not None:
            self._history.begin(rows)

    def allowed(self) -> Tensor:
        """Which actions are allowed in every row, shape (rows, vocab)."""
        if not self.is_needed:
            return torch.from_numpy(self._masks.by_length(self._responses.lengths))
        if self._allowed is None:
            by_text = self._masks.by_text(self._written(), self._states)
            self._allowed = torch.from_numpy(by_text)
            if self._reference_logits is not None:
                logits = self._reference_logits()
                self._allowed = self._masks.of_reference(logits, self._allowed).cpu()
        return self._allowed

    def remember(self, rows: IntArray) -> None:
        """Keep what is allowed now in some rows, shape (k,), which are about to act."""
        if self._history is not None:
            lengths = self._responses.lengths[rows]
            self._history.write(rows, lengths, self.allowed()[torch.from_numpy(rows)])

    def advance(self, tokens: IntArray) -> None:
        """Every row emits a token, shape (rows,)."""
        self._states = self._masks.advance(self._states, tokens)
        self._allowed = None

    def at_tokens(self, rows: IntArray) -> Tensor | None:
        """What was allowed at each token of some rows, shape (k, time, vocab); None if all was."""
        if self._history is not None:
            return self._history.read(rows)
        if not self._masks.depends_on_state:
            return None
        # The same in every row: no copies.
        times = np.arange(self._responses.max_response_tokens)
        return torch.from_numpy(self._masks.by_length(times)).expand(len(rows), -1, -1)

    def state_dict(self) -> dict[str, Any]:
        """What was remembered of running episodes."""
        return {} if self._history is None else {"masks": self._history.values.numpy().copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; the responses must be loaded before."""
        if self._history is not None:
            self._history.values.copy_(torch.as_tensor(state["masks"]))
        self._states = self._masks.states_of(self._written())
        self._allowed = None

    def _written(self) -> Written:
        responses = self._responses
        return Written(responses.ids, responses.mask, responses.prompt_width, responses.lengths)
