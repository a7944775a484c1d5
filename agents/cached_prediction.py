"""`predict` without reading the whole prefix again at every token."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlhf_gym.core.sampler import Draw, Sampler


class CachedPrediction:
    """A sampler that follows the observations it is shown.

    A row is advanced by one token if its observation is the one it saw last plus that token and the
    weights are unchanged; any other row is read anew. So `predict` may be called with whatever,
    and is fast for whoever walks through episodes.

    Args:
        make_sampler: returns a fresh sampler on the model's current weights.
    """

    def __init__(self, make_sampler: Callable[[], Sampler]) -> None:
        self._make_sampler = make_sampler
        self._sampler: Sampler | None = None
        self._weights: tuple[int, ...] = ()
        self._ids = torch.empty(0, 0, dtype=torch.long)
        self._lengths = torch.empty(0, dtype=torch.long)

    def draw(self, model: nn.Module, ids: Tensor, mask: Tensor, deterministic: bool) -> Draw:
        """Choose the next token of every row.

        Args:
            model: whose weights are looked at.
            ids: observations, shape (rows, width).
            mask: True at real tokens, shape (rows, width).
            deterministic: take the most probable token.
        """
        lengths = mask.sum(-1)
        weights = _weights_version(model)
        content = ids.masked_fill(~mask, 0)
        if self._sampler is None or weights != self._weights or content.shape != self._ids.shape:
            self._restart(content, mask)
        else:
            self._follow(content, mask, lengths)
        self._weights, self._ids, self._lengths = weights, content, lengths
        assert self._sampler is not None
        return self._sampler.draw(deterministic=deterministic)

    def _restart(self, ids: Tensor, mask: Tensor) -> None:
        self._sampler = self._make_sampler()
        prompts, prompt_mask = _right_justified(ids, mask)
        # No row can grow beyond the width of an observation.
        self._sampler.prefill(prompts, prompt_mask, ids.shape[1] - prompts.shape[1])

    def _follow(self, ids: Tensor, mask: Tensor, lengths: Tensor) -> None:
        assert self._sampler is not None
        rows = torch.arange(len(ids), device=ids.device)
        last = _last_column(mask)
        before = ids.clone()
        before[rows, last] = 0
        grown = (lengths == self._lengths + 1) & (before == self._ids).all(-1)
        if not grown.any():
            self._restart(ids, mask)
            return
        self._sampler.advance(ids[rows, last])
        other = (~grown).nonzero().squeeze(-1)
        if len(other):
            self._sampler.replace(other, *_right_justified(ids[other], mask[other]))


def _last_column(mask: Tensor) -> Tensor:
    return mask.shape[1] - 1 - mask.flip(-1).int().argmax(-1)


def _right_justified(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the tokens of every row to the right edge, where a decoder wants them."""
    longest = max(1, int(mask.sum(-1).max()))
    order = mask.int().argsort(dim=-1, stable=True)[:, -longest:]
    return ids.gather(1, order), mask.gather(1, order)


def _weights_version(model: nn.Module) -> tuple[int, ...]:
    """Changes whenever a parameter is written to (`_version`) or replaced (`data_ptr`)."""
    parameters = list(model.parameters())
    return (sum(p._version for p in parameters), *(p.data_ptr() for p in parameters))
