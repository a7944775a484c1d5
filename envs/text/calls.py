"""What is refused in a call of `reset`, `step` or `load_state_dict`, before anything is changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rlhf_gym.core.channel import SampledActions
from rlhf_gym.core.errors import InvalidAction, InvalidArgument, InvalidCheckpoint

IntArray = NDArray[np.int64]

_INT64 = np.dtype(np.int64)


class Tokens(NamedTuple):
    """One token id per row, in two forms.

    Where a model has just emptied the caches, a list is the quicker one to look through and an
    array the quicker one to store.

    Attributes:
        ids: int64, shape (num_envs,).
        numbers: the same as Python numbers.
    """

    ids: IntArray
    numbers: list[int]


def check_actions(actions: Any, num_envs: int, vocab_size: int) -> Tokens:
    """Token ids of all rows.

    Raises:
        InvalidAction: no integers, another shape, or a token outside the vocabulary.
    """
    shape = (num_envs,)
    # Nearly every call; a look at three attributes, where NumPy's conversions cost microseconds.
    is_plain = type(actions) is np.ndarray and actions.dtype is _INT64 and actions.shape == shape
    tokens = actions if is_plain else _as_tokens(actions, shape)
    numbers: list[int] = tokens.tolist()
    if min(numbers) < 0 or max(numbers) >= vocab_size:
        row = int(np.flatnonzero((tokens < 0) | (tokens >= vocab_size))[0])
        raise InvalidAction(
            f"actions[{row}]",
            int(tokens[row]),
            f"outside the vocabulary of {vocab_size} tokens",
            f"Give a token id from 0 to {vocab_size - 1}",
        )
    return Tokens(tokens, numbers)


def _as_tokens(actions: Any, shape: tuple[int]) -> IntArray:
    """Anything that holds integers, as an array."""
    if isinstance(actions, torch.Tensor):
        actions = actions.detach().cpu().numpy()
    tokens = np.asarray(actions)
    if tokens.dtype.kind not in "iu" or tokens.shape != shape:
        raise InvalidAction(
            "actions",
            actions,
            f"{tokens.dtype} of shape {tokens.shape}, not {shape[0]} token ids",
            f"Give integers of shape {shape}",
        )
    return tokens.astype(np.int64, copy=False)


def check_record(record: SampledActions, num_envs: int, vocab_size: int) -> SampledActions:
    """Refuse a record on the channel that has other shapes than the environment.

    Raises:
        InvalidArgument: log-probabilities or distributions of another shape.
    """
    if record.log_probs.shape != (num_envs,):
        raise InvalidArgument(
            "log_probs",
            tuple(record.log_probs.shape),
            f"what was written to the channel is not of shape ({num_envs},)",
            "Write one log-probability per row",
        )
    distribution = record.log_distribution
    if distribution is not None and distribution.shape != (num_envs, vocab_size):
        raise InvalidArgument(
            "log_distribution",
            tuple(distribution.shape),
            f"what was written to the channel is not of shape ({num_envs}, {vocab_size})",
            "Write the log_softmax of legal_logits",
        )
    return record


def reset_rows(options: Mapping[str, Any], num_envs: int) -> IntArray:
    """Rows that `options["reset_mask"]` asks for, all without it; shape (k,).

    Raises:
        InvalidArgument: no boolean array of shape (num_envs,), or nothing in it.
    """
    mask = options.get("reset_mask")
    if mask is None:
        return np.arange(num_envs)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (num_envs,):
        raise InvalidArgument(
            "options['reset_mask']",
            mask,
            "not a NumPy array of bools, one per row",
            f"Give an array of dtype bool and shape ({num_envs},)",
        )
    if not mask.any():
        raise InvalidArgument(
            "options['reset_mask']", mask, "no row is to be reset", "Set at least one True"
        )
    return np.flatnonzero(mask)


def given_prompts(options: Mapping[str, Any], count: int, prompts: int) -> IntArray | None:
    """Prompt indices that `options["prompt_index"]` asks for, shape (count,), or None.

    Raises:
        InvalidArgument: not one index per row that is reset, or no such prompt.
    """
    given = options.get("prompt_index")
    if given is None:
        return None
    indices = np.atleast_1d(np.asarray(given))
    if indices.dtype.kind not in "iu" or indices.shape != (count,):
        raise InvalidArgument(
            "options['prompt_index']", given, f"not {count} integers", "Give one per row to reset"
        )
    if indices.min() < 0 or indices.max() >= prompts:
        raise InvalidArgument(
            "options['prompt_index']",
            given,
            f"there are {prompts} prompts",
            f"Give indices from 0 to {prompts - 1}",
        )
    return indices.astype(np.int64)


@contextlib.contextmanager
def loading(state: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[None]:
    """Refuse a saved state that is none, incomplete, or of another environment.

    Raises:
        InvalidCheckpoint: names what differs.
    """
    _check_fingerprint(state, expected)
    try:
        yield
    except (KeyError, TypeError) as error:
        raise InvalidCheckpoint(
            "state",
            str(error),
            "the saved state is incomplete",
            "Give what state_dict() of the same version returned",
        ) from error


def _check_fingerprint(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    found = state.get("fingerprint") if isinstance(state, Mapping) else None
    if not isinstance(found, Mapping):
        raise InvalidCheckpoint(
            "state",
            state,
            "not the state of an environment",
            "Give what state_dict() returned",
        )
    for name, value in expected.items():
        if found.get(name) != value:
            raise InvalidCheckpoint(
                name,
                found.get(name),
                f"the saved state is of another environment; here it is {value!r}",
                "Make the environment with the arguments of the saved run",
            )
