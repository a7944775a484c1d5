"""Action masks for whoever has an observation alone, such as a policy asked to `predict`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlhf_gym.core.tokens import next_token_logits
from rlhf_gym.envs.text.masking import ActionMasks, Written


class ObservedMasks:
    """What an environment allows behind a text, whichever episode the text belongs to.

    Everything is worked out from the text, so a step costs as much as the text is long; the
    environment itself, which follows its episodes, is cheaper to ask during a rollout.

    Args:
        masks: of the environment.
        reference: whose top-k and top-p the masks cut to; None if they do not.
        prompt_width: column at which responses begin.
    """

    def __init__(self, masks: ActionMasks, reference: nn.Module | None, prompt_width: int) -> None:
        self._masks = masks
        self._reference = reference
        self._prompt_width = prompt_width

    def __deepcopy__(self, memo: dict[int, Any]) -> ObservedMasks:
        # The reference is frozen: a copied policy asks the same one.
        return self

    @torch.no_grad()
    def allowed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor | None:
        """Which tokens may follow, True at allowed ones, shape (batch, vocab); None if all may.

        Args:
            input_ids: observations, shape (batch, width).
            attention_mask: True at real tokens, shape (batch, width).
        """
        if not self._masks.depends_on_state:
            return None
        ids, mask = input_ids.cpu().numpy(), attention_mask.cpu().numpy().astype(np.int8)
        lengths = mask[:, self._prompt_width :].sum(1, dtype=np.int64)
        by_text = self._masks.by_text(Written(ids, mask, self._prompt_width, lengths))
        allowed = torch.from_numpy(by_text)
        if self._masks.needs_reference and self._reference is not None:
            observation = {"input_ids": input_ids, "attention_mask": attention_mask}
            logits = next_token_logits(self._reference, observation)
            allowed = self._masks.of_reference(logits, allowed)
        return allowed.to(input_ids.device)
