"""Everything that is refused, with the reason and the remedy, before work is lost."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import nn

from rlhf_gym.core.channel import SampledActions
from rlhf_gym.core.errors import (
    InvalidAction,
    InvalidArgument,
    InvalidCheckpoint,
    InvalidPrompt,
    TokenizerMismatch,
)
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs.text.masking import ActionMasks
from rlhf_gym.envs.text.prompts import PromptSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IntArray = NDArray[np.int64]
T = TypeVar("T", bound=str)


class UnsupportedRenderMode(InvalidArgument, TypeError):
    """A render mode this environment has not.

    Also a TypeError: Stable-Baselines3 makes environments from ids with `render_mode="rgb_array"`
    and tries again without one if that is a TypeError.
    """


def tokenizer_of(
    tokenizer: PreTrainedTokenizerBase | str | os.PathLike[str],
) -> PreTrainedTokenizerBase:
    """The tokenizer, loaded if it was given by name."""
    if isinstance(tokenizer, str | os.PathLike):
        from rlhf_gym.core.models import load_tokenizer

        return load_tokenizer(tokenizer)
    return tokenizer


def model_of(
    model: nn.Module | str | os.PathLike[str] | None, device: torch.device | str
) -> nn.Module | None:
    """The causal LM, loaded to `device` if it was given by name."""
    if isinstance(model, str | os.PathLike):
        from rlhf_gym.core.models import load_causal_lm

        return load_causal_lm(model, device=device)
    return model


def device_of(model: nn.Module | None, default: torch.device | str) -> torch.device:
    """Where a model is, or the default without one."""
    return torch.device(default) if model is None else next(model.parameters()).device


def make_rules(
    tokenizer: PreTrainedTokenizerBase,
    temperature: float,
    stop_token_ids: Sequence[int] | None,
    banned_token_ids: Sequence[int],
) -> TokenRules:
    """The token rules of a tokenizer.

    Raises:
        TokenizerMismatch: no PAD, no EOS to stop at, PAD equal to a stop token, ids out of range.
    """
    if tokenizer.pad_token_id is None:
        raise TokenizerMismatch(
            "tokenizer.pad_token",
            None,
            "responses of different lengths need a PAD token",
            "Add one of its own: tokenizer.add_special_tokens({'pad_token': '<pad>'}) and "
            "model.resize_token_embeddings(len(tokenizer))",
        )
    if stop_token_ids is None:
        if tokenizer.eos_token_id is None:
            raise TokenizerMismatch(
                "tokenizer.eos_token",
                None,
                "no response could stop by itself",
                "Give the tokenizer an EOS token, or pass stop_token_ids (an empty tuple for "
                "responses that always take max_response_tokens)",
            )
        stop_token_ids = (tokenizer.eos_token_id,)
    return TokenRules(
        vocab_size=len(tokenizer),
        pad_id=tokenizer.pad_token_id,
        stop_ids=tuple(stop_token_ids),
        temperature=temperature,
        banned_ids=tuple(banned_token_ids),
    )


def prompt_width_for(prompts: PromptSet, max_prompt_tokens: int | None) -> int:
    """Columns of the prompt: `max_prompt_tokens`, or the longest prompt.

    Raises:
        InvalidPrompt: a prompt is longer than `max_prompt_tokens`.
    """
    longest = int(prompts.lengths.argmax())
    if max_prompt_tokens is None:
        return int(prompts.lengths[longest])
    positive("max_prompt_tokens", max_prompt_tokens)
    if prompts.lengths[longest] > max_prompt_tokens:
        raise InvalidPrompt(
            f"prompts[{longest}]",
            prompts.texts[longest],
            f"{prompts.lengths[longest]} tokens, and max_prompt_tokens is {max_prompt_tokens}",
            "Shorten it, or raise max_prompt_tokens",
        )
    return max_prompt_tokens


def check_fit(
    reference: nn.Module | None, rules: TokenRules, prompts: PromptSet, max_response_tokens: int
) -> None:
    """Refuse a tokenizer or sequences that the reference cannot take.

    Raises:
        TokenizerMismatch: more tokens than the model scores.
        InvalidPrompt: prompt and response do not fit into the model's context.
    """
    from transformers import PreTrainedModel

    from rlhf_gym.core.models import context_length

    if not isinstance(reference, PreTrainedModel):
        return
    scored = reference.config.get_text_config().vocab_size
    if scored < rules.vocab_size:
        raise TokenizerMismatch(
            "tokenizer",
            rules.vocab_size,
            f"it has more tokens than the {scored} that the reference scores",
            "Use the tokenizer that the model was trained with, or resize_token_embeddings",
        )
    context = context_length(reference.config)
    longest = int(prompts.lengths.argmax())
    if context is not None and prompts.lengths[longest] + max_response_tokens > context:
        raise InvalidPrompt(
            f"prompts[{longest}]",
            prompts.texts[longest],
            f"its {prompts.lengths[longest]} tokens and a response of {max_response_tokens} do not "
            f"fit into the model's context of {context}",
            "Shorten the prompt or max_response_tokens, or take a model with a longer context",
        )


def check_masks(masks: ActionMasks, reference: nn.Module | None) -> None:
    """Refuse masks of a reference that is not there.

    Raises:
        InvalidArgument: top_k or top_p without a reference.
    """
    if masks.needs_reference and reference is None:
        raise InvalidArgument(
            "reference",
            None,
            "top_k and top_p are of the reference, and there is none",
            "Pass reference=..., or leave top_k and top_p out",
        )


def check_actions(actions: Any, num_envs: int, vocab_size: int) -> IntArray:
    """Token ids as an int64 array of shape (num_envs,).

    Raises:
        InvalidAction: no integers, another shape, or a token outside the vocabulary.
    """
    if isinstance(actions, torch.Tensor):
        actions = actions.detach().cpu().numpy()
    tokens = np.asarray(actions)
    if tokens.dtype.kind not in "iu" or tokens.shape != (num_envs,):
        raise InvalidAction(
            "actions",
            actions,
            f"{tokens.dtype} of shape {tokens.shape}, not {num_envs} token ids",
            f"Give integers of shape ({num_envs},)",
        )
    tokens = tokens.astype(np.int64, copy=False)
    # One comparison finds both ends: a negative number is a huge unsigned one.
    if int(tokens.view(np.uint64).max()) >= vocab_size:
        row = int(np.flatnonzero((tokens < 0) | (tokens >= vocab_size))[0])
        raise InvalidAction(
            f"actions[{row}]",
            int(tokens[row]),
            f"outside the vocabulary of {vocab_size} tokens",
            f"Give a token id from 0 to {vocab_size - 1}",
        )
    return tokens


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
            "not the state of a text environment",
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


def autoreset_mode_of(mode: AutoresetMode | str) -> AutoresetMode:
    """The mode, also by its value, such as "SameStep".

    Raises:
        InvalidArgument: there is no such mode.
    """
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        raise InvalidArgument(
            "autoreset_mode",
            mode,
            "no such mode",
            f"Choose one of {', '.join(m.value for m in AutoresetMode)}",
        ) from error


def check_render_mode(mode: str | None, modes: list[str]) -> str | None:
    """The mode if there is such.

    Raises:
        UnsupportedRenderMode: there is none.
    """
    if mode is not None and mode not in modes:
        raise UnsupportedRenderMode(
            "render_mode", mode, "no such mode", f"Choose {', '.join(map(repr, modes))} or None"
        )
    return mode


def positive(field: str, value: int) -> int:
    """The value if it is an integer of 1 or more.

    Raises:
        InvalidArgument: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InvalidArgument(field, value, "not an integer of 1 or more", "Give 1 or more")
    return int(value)


def choice(field: str, value: T, choices: tuple[str, ...]) -> T:
    """The value if it is one of the choices.

    Raises:
        InvalidArgument: it is not.
    """
    if value not in choices:
        raise InvalidArgument(
            field, value, "no such choice", f"Choose {' or '.join(map(repr, choices))}"
        )
    return value
