"""Finished episodes as one batch of tensors: all that a reward may look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_gym.core.tokens import TokenRules


@dataclass
class Episodes:
    """A batch of finished (prompt, response) episodes, prompts left padded, responses right padded.

    Attributes:
        input_ids: prompt and response, int64, shape (batch, prompt_width + time).
        attention_mask: True at real tokens, shape as `input_ids`.
        prompt_width: column at which every response begins.
        stopped: True where a stop token ended the response, False at the budget, shape (batch,).
        rules: vocabulary, PAD, stop tokens and temperature of the environment.
        tokenizer: decodes the responses.
        prompts: the prompts as the user wrote them, batch strings.
        rows: the data rows the prompts came from; a reward may read reference answers there.
        log_probs: log pi of each response token in nats, shape (batch, time), NaN where unknown;
            None if no policy wrote any.
        log_distributions: log pi of the whole vocabulary, shape (batch, time, vocab), or None.
        action_masks: True where an action was allowed, shape (batch, time, vocab), or None.
    """

    input_ids: Tensor
    attention_mask: Tensor
    prompt_width: int
    stopped: Tensor
    rules: TokenRules
    tokenizer: Any
    prompts: Sequence[str]
    rows: Sequence[Mapping[str, Any]] = ()
    log_probs: Tensor | None = None
    log_distributions: Tensor | None = None
    action_masks: Tensor | None = None
    _cache: dict[Any, Tensor] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def response_ids(self) -> Tensor:
        """Response tokens, PAD behind the last, shape (batch, time)."""
        return self.input_ids[:, self.prompt_width :]

    @property
    def mask(self) -> Tensor:
        """True where a response token counts, the stop token included, shape (batch, time)."""
        return self.attention_mask[:, self.prompt_width :].bool()

    @cached_property
    def lengths(self) -> Tensor:
        """Response lengths in tokens, the stop token included, shape (batch,)."""
        return self.mask.sum(-1)

    @cached_property
    def responses(self) -> list[str]:
        """The responses as text, special tokens left out; decoded once."""
        rows = zip(self.response_ids.tolist(), self.lengths.tolist(), strict=True)
        ids = [row[:length] for row, length in rows]
        return list(self.tokenizer.batch_decode(ids, skip_special_tokens=True))

    def at_last_token(self, scores: Tensor) -> Tensor:
        """Credit one score per episode to the token that earned it: the last one of the response.

        Args:
            scores: shape (batch,).

        Returns:
            Shape (batch, time): the score on the stop token, or on the last token when there is
            none; 0 elsewhere. One slot later it would enter GAE with weight lambda.
        """
        rewards = torch.zeros(self.response_ids.shape, dtype=torch.float32)
        index = (self.lengths - 1).unsqueeze(-1)
        return rewards.scatter_(1, index.cpu(), scores.float().cpu().unsqueeze(-1))

    def reference_log_probs(self, reference: nn.Module) -> Tensor:
        """log pi_ref of each response token, 0 off the mask, shape (batch, time); kept."""
        from rlhf_gym.core.scoring import token_log_probs

        return self._teacher_forced(token_log_probs, reference)

    def reference_log_distributions(self, reference: nn.Module) -> Tensor:
        """log pi_ref of the whole vocabulary, shape (batch, time, vocab); kept."""
        from rlhf_gym.core.scoring import token_log_distributions

        return self._teacher_forced(token_log_distributions, reference)

    def _teacher_forced(self, score: Callable[..., Tensor], reference: nn.Module) -> Tensor:
        """One pass of the reference over these episodes, made once however many terms ask."""
        key = (score, id(reference))
        if key not in self._cache:
            self._cache[key] = score(
                reference,
                self.input_ids,
                self.attention_mask,
                self.prompt_width,
                self.rules,
                action_masks=self.action_masks,
            )
        return self._cache[key]
