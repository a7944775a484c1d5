"""Cached decoding for whoever is shown observations one at a time, in whatever order they come."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlhf_gym.core.sampler import Draw, Sampler
from rlhf_gym.core.tokens import last_token_index

MOST_BATCHES = 2
"""Batches that are followed at once: a rollout, and an evaluation in the middle of it."""

_NOTHING = -1
"""In the place of padding: no token has this id."""


@dataclass
class _Batch:
    """What a sampler holds.

    Attributes:
        sampler: its rows stand at these observations.
        ids: the observations, -1 at padding, shape (rows, width).
    """

    sampler: Sampler
    ids: Tensor


class CachedPrediction:
    """Samplers that follow the observations they are shown.

    A row is advanced by one token if its observation is the one it saw last plus that token, and
    the weights are unchanged; a row that ended is read anew while the others go on; any other
    batch gets a sampler of its own. So `predict` may be called with whatever, and is fast for
    whoever walks through episodes, even if somebody else evaluates in between.

    Args:
        make_sampler: returns a fresh sampler on the model's current weights.
    """

    def __init__(self, make_sampler: Callable[[], Sampler]) -> None:
        self._make_sampler = make_sampler
        # The one used last stands last.
        self._batches: list[_Batch] = []
        self._weights: tuple[int, ...] = ()

    def draw(
        self,
        model: nn.Module,
        ids: Tensor,
        mask: Tensor,
        deterministic: bool,
        allowed: Tensor | None = None,
    ) -> Draw:
        """Choose the next token of every row.

        Args:
            model: whose weights are looked at.
            ids: observations, shape (rows, width).
            mask: True at real tokens, shape (rows, width).
            deterministic: take the most probable token.
            allowed: True where an action is allowed, shape (rows, vocab); None allows all.
        """
        return self.sampler_at(model, ids, mask).draw(allowed, deterministic)

    def sampler_at(self, model: nn.Module, ids: Tensor, mask: Tensor) -> Sampler:
        """A sampler whose rows stand at these observations; arguments as in `draw`."""
        weights = _weights_version(model)
        if weights != self._weights:
            self.forget()
            self._weights = weights
        content = ids.masked_fill(~mask, _NOTHING)
        batch = self._find(content, mask)
        if batch is None:
            return self._begin(content, mask)
        self._follow(batch, content, mask)
        self._batches.remove(batch)
        self._batches.append(batch)
        return batch.sampler

    def forget(self) -> None:
        """Give all memory back; whatever comes next is read anew."""
        self._batches.clear()

    def __deepcopy__(self, memo: dict[int, object]) -> CachedPrediction:
        """A copied policy has another model: its caches begin empty, on its own sampler."""
        return CachedPrediction(copy.deepcopy(self._make_sampler, memo))

    def _find(self, content: Tensor, mask: Tensor) -> _Batch | None:
        """The batch that most rows continue; None if hardly any row continues one."""
        # Below a quarter, a batch of its own costs about as much and leaves the other one alone.
        best, most = None, (len(content) - 1) // 4
        for batch in self._batches:
            if batch.ids.shape == content.shape:
                continues = _stays(batch.ids, content) | _grows(batch.ids, content, mask)
                if int(continues.sum()) > most:
                    best, most = batch, int(continues.sum())
        return best

    def _begin(self, content: Tensor, mask: Tensor) -> Sampler:
        # The memory of a batch that nobody follows any more is taken over where it fits.
        is_full = len(self._batches) == MOST_BATCHES
        sampler = self._batches.pop(0).sampler if is_full else self._make_sampler()
        prompts, prompt_mask = _right_justified(content, mask)
        # No row can grow beyond the width of an observation.
        sampler.prefill(prompts, prompt_mask, content.shape[1] - prompts.shape[1])
        self._batches.append(_Batch(sampler, content))
        return sampler

    def _follow(self, batch: _Batch, content: Tensor, mask: Tensor) -> None:
        current = _grows(batch.ids, content, mask)
        if current.any():
            self._make_room(batch, ~current)
            rows = torch.arange(len(content), device=content.device)
            batch.sampler.advance(content[rows, last_token_index(mask)])
        else:
            current = _stays(batch.ids, content)
        other = (~current).nonzero().squeeze(-1)
        if len(other):
            batch.sampler.replace(other, *_right_justified(content[other], mask[other]))
        batch.ids = content

    def _make_room(self, batch: _Batch, leaving: Tensor) -> None:
        """Empty the full ones among the rows that are about to be replaced: all rows advance."""
        full = (leaving & (batch.ids != _NOTHING).all(-1)).nonzero().squeeze(-1)
        if len(full):
            first = batch.ids[full, :1]
            batch.sampler.replace(full, first, torch.ones_like(first))


def _stays(before: Tensor, content: Tensor) -> Tensor:
    """Rows whose observation is the one before, shape (rows,)."""
    return (before == content).all(-1)


def _grows(before: Tensor, content: Tensor, mask: Tensor) -> Tensor:
    """Rows whose observation is the one before and one token more, shape (rows,)."""
    rows = torch.arange(len(content), device=content.device)
    shorter = content.clone()
    shorter[rows, last_token_index(mask)] = _NOTHING
    return _stays(before, shorter)


def _right_justified(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the tokens of every row to the right edge, where a decoder wants them."""
    longest = max(1, int(mask.sum(-1).max()))
    order = mask.int().argsort(dim=-1, stable=True)[:, -longest:]
    return ids.gather(1, order).clamp_min(0), mask.gather(1, order)


def _weights_version(model: nn.Module) -> tuple[int, ...]:
    """Changes whenever a parameter is written to (`_version`) or replaced (`data_ptr`)."""
    parameters = list(model.parameters())
    return (sum(p._version for p in parameters), *(p.data_ptr() for p in parameters))
