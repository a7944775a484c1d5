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


def cut(episodes: Episodes, rows: torch.Tensor, length: int) -> Episodes:
    """Some of the episodes, with no more than so many tokens of their responses.

    Args:
        episodes: finished or not, with responses of at least one token.
        rows: which of them, shape (n,).
        length: tokens that are left of each response.

    Returns:
        Episodes of the same width, without log-probabilities; those that were cut did not stop.
    """
    rows = rows.to(episodes.input_ids.device)
    end = episodes.prompt_width + length
    ids, mask = episodes.input_ids[rows].clone(), episodes.attention_mask[rows].clone()
    ids[:, end:] = episodes.rules.pad_id
    mask[:, end:] = False
    whole = episodes.lengths[rows] <= length
    which = rows.tolist()
    return dataclasses.replace(
        episodes,
        input_ids=ids,
        attention_mask=mask,
        stopped=episodes.stopped[rows] & whole.to(episodes.stopped.device),
        prompts=[episodes.prompts[i] for i in which],
        rows=[episodes.rows[i] for i in which] if episodes.rows else (),
        log_probs=None,
        log_distributions=None,
        action_masks=None,
        _cache={},
    )
