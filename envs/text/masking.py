"""Which actions are allowed right now, as sb3-contrib's MaskablePPO asks for it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import TokenRules, legal_logits


class ActionMasks:
    """Banned tokens, minimum length, and top-k / top-p of the reference.

    In that order, as in transformers' `generate`: stop tokens leave before the reference's
    distribution is cut. Policy, reference and exact optimum apply the same mask, so KL stays 0 at
    the start.

    Args:
        rules: PAD and banned tokens are never allowed.
        max_response_tokens: upper limit of the minimum length.
        min_response_tokens: no stop token among the first so many.
        top_k: allow the k likeliest tokens of the reference (more if several are equal).
        top_p: allow the smallest set of the reference's tokens whose probability reaches p.

    Raises:
        InvalidArgument: a number out of range.
    """

    def __init__(
        self,
        rules: TokenRules,
        *,
        max_response_tokens: int,
        min_response_tokens: int = 0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> None:
        if not 0 <= min_response_tokens <= max_response_tokens:
            raise InvalidArgument(
                "min_response_tokens",
                min_response_tokens,
                f"not between 0 and max_response_tokens={max_response_tokens}",
                "Give a number in between",
            )
        if top_k is not None and top_k < 1:
            raise InvalidArgument("top_k", top_k, "no token would be left", "Give 1 or more")
        if top_p is not None and not 0 < top_p <= 1:
            raise InvalidArgument("top_p", top_p, "not a probability", "Give 0 < top_p <= 1")
        self.rules = rules
        self.min_response_tokens = min_response_tokens
        self.top_k = top_k
        self.top_p = top_p
        self._always = np.ones(rules.vocab_size, dtype=np.bool_)
        self._always[list(rules.illegal_ids)] = False
        self._no_stop = self._always.copy()
        self._no_stop[list(rules.stop_ids)] = False
        if min_response_tokens > 0 and not self._no_stop.any():
            raise InvalidArgument(
                "min_response_tokens",
                min_response_tokens,
                "stop tokens are the only legal ones, so no response could begin",
                "Ban fewer tokens",
            )

    @property
    def needs_reference(self) -> bool:
        """True if the reference's next-token logits decide."""
        return self.top_k is not None or self.top_p is not None

    @property
    def depends_on_state(self) -> bool:
        """True if more than PAD and banned tokens is excluded somewhere."""
        return self.needs_reference or self.min_response_tokens > 0

    def by_length(self, lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """What the ban and the minimum length allow, shape (n, vocab).

        Args:
            lengths: response tokens so far, shape (n,).
        """
        return np.where(lengths[:, None] < self.min_response_tokens, self._no_stop, self._always)

    def of_reference(self, logits: Tensor, lengths: NDArray[np.int64]) -> Tensor:
        """All masks together.

        Args:
            logits: the reference's raw next-token logits, shape (n, at least vocab).
            lengths: response tokens so far, shape (n,).

        Returns:
            True at allowed tokens, shape (n, vocab); at least one per row.
        """
        allowed = torch.from_numpy(self.by_length(lengths)).to(logits.device)
        legal = legal_logits(logits.float(), self.rules, allowed)
        if self.top_k is not None and self.top_k < self.rules.vocab_size:
            kth = legal.topk(self.top_k, dim=-1).values[:, -1:]
            allowed = allowed & (legal >= kth)
        if self.top_p is not None and self.top_p < 1:
            legal = legal.masked_fill(~allowed, -torch.inf)
            probabilities, tokens = legal.softmax(-1).sort(dim=-1, descending=True, stable=True)
            # A token stays while the likelier ones have not reached p yet; so the first always
            # does.
            kept = probabilities.cumsum(-1) - probabilities < self.top_p
            allowed = allowed & torch.zeros_like(allowed).scatter(-1, tokens, kept)
        return allowed & (legal > -torch.inf)
