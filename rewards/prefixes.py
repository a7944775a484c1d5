"""Responses that are still being written, as the episodes they would be if they ended here."""

from __future__ import annotations

import dataclasses

import torch

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.rewards.base import TokenStep


def begun(step: TokenStep, name: str) -> Episodes:
    """The episodes as they stand before the action; a response may be empty.

    Args:
        step: one step of n rows.
        name: the term that asks, for the message.

    Raises:
        InvalidArgument: a step that does not know its texts.
    """
    if step.begun is None:
        raise InvalidArgument(
            "begun",
            None,
            f"the term {name!r} is paid token by token and reads the texts so far",
            "Fill it in TokenStep, or use reward_timing='end'",
        )
    return step.begun()


def written(before: Episodes, actions: torch.Tensor) -> Episodes:
    """The same episodes with one token more in each row.

    Args:
        before: unfinished episodes, each shorter than the budget.
        actions: the tokens, shape (batch,).
    """
    ids, mask = before.input_ids.clone(), before.attention_mask.clone()
    rows = torch.arange(len(ids), device=ids.device)
    column = before.prompt_width + before.lengths
    tokens = actions.to(ids.device)
    ids[rows, column] = tokens
    mask[rows, column] = True
    return dataclasses.replace(
        before,
        input_ids=ids,
        attention_mask=mask,
        stopped=torch.isin(tokens, torch.tensor(before.rules.stop_ids, device=ids.device)),
        _cache={},
    )
