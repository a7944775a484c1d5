"""What an agent sees: prompt and response so far, as the spaces of Gymnasium have it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium.spaces import Box, Dict, Space
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs.text.checks import choice
from rlhf_gym.envs.text.responses import Responses

Observation = dict[str, NDArray[Any]] | NDArray[np.int64]


class Observations:
    """Observations of all rows, always copies: callers keep what they are given.

    Args:
        form: "dict" for `input_ids` and `attention_mask`, "ids" for the ids alone.
        responses: the episodes.
        rules: the vocabulary.

    Attributes:
        single_space: of one row.
        space: of all rows.
    """

    def __init__(
        self, form: Literal["dict", "ids"], responses: Responses, rules: TokenRules
    ) -> None:
        self._with_mask = choice("observation", form, ("dict", "ids")) == "dict"
        self._responses = responses
        rows, width = responses.ids.shape
        ids = Box(0, rules.vocab_size - 1, (width,), np.int64)
        mask = Box(0, 1, (width,), np.int8)
        self.single_space: Space[Any] = ids
        if self._with_mask:
            self.single_space = Dict({"input_ids": ids, "attention_mask": mask})
        self.space = batch_space(self.single_space, rows)

    def batch(self) -> Observation:
        """Of all rows: `input_ids` and `attention_mask`, each of shape (rows, width)."""
        ids = self._responses.ids.copy()
        if not self._with_mask:
            return ids
        return {"input_ids": ids, "attention_mask": self._responses.mask.copy()}

    def single(self, rows: NDArray[np.int64]) -> NDArray[np.object_]:
        """Of some rows, as Gymnasium's `final_obs`: an object array over all rows, else None."""
        final = np.full(len(self._responses.ids), None, dtype=object)
        ids, mask = self._responses.ids[rows], self._responses.mask[rows]
        for at, row in enumerate(rows):
            both = {"input_ids": ids[at], "attention_mask": mask[at]}
            final[row] = both if self._with_mask else ids[at]
        return final
