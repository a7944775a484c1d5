"""What is refused when an environment is made, with the reason and the remedy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import nn

from rlhf_gym.core.devices import Device, choose_device
from rlhf_gym.core.errors import (
    InvalidArgument,
    InvalidPrompt,
    TokenizerMismatch,
)
from rlhf_gym.core.tokenizers import end_token_ids
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs.text import grammars
from rlhf_gym.envs.text.automata import TokenAutomaton, forbid_sequences
from rlhf_gym.envs.text.grammars import Grammar
from rlhf_gym.envs.text.masking import ActionMasks
from rlhf_gym.envs.text.prompts import PromptSet
from rlhf_gym.rewards.base import WeightedReward

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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


def model_of(model: nn.Module | str | os.PathLike[str] | None, device: Device) -> nn.Module | None:
    """The causal LM, loaded to `device` if it was given by name."""
    if isinstance(model, str | os.PathLike):
        from rlhf_gym.core.models import load_causal_lm

        return load_causal_lm(model, device=device)
    return model


def device_of(model: nn.Module | None, default: Device) -> torch.device:
    """Where a model is, or the default without one."""
    return choose_device(default) if model is None else next(model.parameters()).device


def make_rules(
    tokenizer: PreTrainedTokenizerBase,
    temperature: float,
    stop_token_ids: Sequence[int] | None,
    banned_token_ids: Sequence[int],
    reference: nn.Module | None = None,
) -> TokenRules:
    """The token rules of a tokenizer; the reference may know more tokens that end a response.

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
        from transformers import PreTrainedModel

        model = reference if isinstance(reference, PreTrainedModel) else None
        stop_token_ids = end_token_ids(tokenizer, model)
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


def check_reward(
    reward: WeightedReward | None, num_envs: int, *, ends: str, length_limit: str
) -> None:
    """Refuse a reward that the way episodes end would spoil.

    Raises:
        InvalidArgument: responses are compared with each other, but end apart or alone; or a
            potential that is 0 at the end, where the agent bootstraps.
    """
    if reward is None:
        return
    if reward.batchwise and (ends != "together" or num_envs < 2):
        raise InvalidArgument(
            "ends",
            ends,
            "the reward compares the responses that are scored together, and with "
            f"num_envs={num_envs} they would be whichever happened to end in the same step",
            'Make the environment with ends="together" and num_envs of 2 or more',
        )
    if reward.gamma is not None and length_limit == "truncate":
        raise InvalidArgument(
            "length_limit",
            length_limit,
            "shaping takes the potential to be 0 where a response ends, and a truncated one goes "
            "on for the agent",
            'Make the environment with length_limit="terminate"',
        )


def make_masks(
    rules: TokenRules,
    tokenizer: PreTrainedTokenizerBase,
    reference: nn.Module | None,
    *,
    banned_words: Sequence[str],
    vocabulary: Sequence[str | int] | None,
    grammar: Grammar | None,
    max_response_tokens: int,
    min_response_tokens: int,
    top_k: int | None,
    top_p: float | None,
) -> ActionMasks:
    """The action masks of an environment; see `TextGenerationVectorEnv` for the arguments.

    Raises:
        InvalidArgument: top_k or top_p without a reference, a grammar that is none, words the
            tokenizer cannot write, masks under which no response could begin.
    """
    automata, function = [], None
    if banned := grammars.banned_sequences(banned_words, tokenizer):
        automata.append(forbid_sequences(banned, rules.vocab_size))
    if isinstance(grammar, str):
        automata.append(grammars.regular_grammar(grammar, tokenizer, rules))
    elif isinstance(grammar, TokenAutomaton):
        automata.append(grammar)
    elif grammar is not None:
        function = grammar
    if function is not None and not callable(function):
        raise InvalidArgument(
            "grammar",
            grammar,
            "not a grammar",
            "Give a regular expression, a TokenAutomaton or a function",
        )
    allowed = None
    if vocabulary is not None:
        allowed = grammars.vocabulary_mask(vocabulary, tokenizer, rules)
    masks = ActionMasks(
        rules,
        max_response_tokens=max_response_tokens,
        min_response_tokens=min_response_tokens,
        vocabulary=allowed,
        automata=automata,
        function=function,
        top_k=top_k,
        top_p=top_p,
    )
    if masks.needs_reference and reference is None:
        raise InvalidArgument(
            "reference",
            None,
            "top_k and top_p are of the reference, and there is none",
            "Pass reference=..., or leave top_k and top_p out",
        )
    return masks


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
