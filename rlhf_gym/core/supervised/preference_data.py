"""Judgements as token ids; records as judgements are at hand here too. Light to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rlhf_gym.core.errors import InvalidArgument, TokenizerMismatch
from rlhf_gym.core.supervised.preference_records import (
    Judgement,
    judgement,
    read_judgements,
    read_responses,
)
from rlhf_gym.core.tokenizers import encode_beginnings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Example",
    "Judgement",
    "encode",
    "encode_prompts",
    "encode_responses",
    "judgement",
    "read_judgements",
    "read_responses",
]


class Example(NamedTuple):
    """A tokenised judgement.

    Attributes:
        judgement: what was said.
        sequences: prompt and response ids of each response.
        response_lengths: tokens of each response, the stop token included.
    """

    judgement: Judgement
    sequences: tuple[list[int], ...]
    response_lengths: tuple[int, ...]

    @property
    def width(self) -> int:
        """Tokens of the longest sequence; what batches are bucketed by."""
        return max(map(len, self.sequences))


def encode(
    judgements: Sequence[Judgement],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int | None = None,
) -> list[Example]:
    """Tokenise judgements as an environment would see them: prompt ids, response ids, EOS.

    Prompt and response are tokenised apart, because that is how a policy meets them: the prompt is
    given as ids and each response token is emitted after it.

    Args:
        judgements: what to tokenise.
        tokenizer: the base model's.
        max_tokens: of longer sequences the end stays, where the score is read, and a leading
            special token: the prompt loses its beginning, as much for each response of a judgement
            as the longest needs, so that they differ in nothing but themselves; None for no limit.

    Returns:
        One example per judgement, in order. A response that was cut off by its budget has no EOS;
        an empty one is just its EOS.

    Raises:
        TokenizerMismatch: the tokenizer has no EOS.
        InvalidArgument: `max_tokens` below 2.
    """
    if max_tokens is not None and max_tokens < 2:
        raise InvalidArgument("max_tokens", max_tokens, "no room for a text", "Give 2 or more")
    if not judgements:
        return []
    prompts = encode_prompts([j.prompt for j in judgements], tokenizer)
    flat = [response for j in judgements for response in j.responses]
    responses = iter(encode_responses(flat, tokenizer))
    start = len(encode_prompts([""], tokenizer)[0])
    return [
        _example(j, prompt, [next(responses) for _ in j.responses], max_tokens, start)
        for j, prompt in zip(judgements, prompts, strict=True)
    ]


def encode_prompts(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of each prompt with the special tokens the tokenizer puts in front, none behind."""
    return encode_beginnings(tokenizer, prompts)


def encode_responses(
    responses: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Ids of each response with EOS behind, and nothing in front.

    Raises:
        TokenizerMismatch: the tokenizer has no EOS.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise TokenizerMismatch(
            "tokenizer",
            type(tokenizer).__name__,
            "it has no EOS token, so no response could end",
            "Add one: tokenizer.add_special_tokens({'eos_token': '<eos>'})",
        )
    from rlhf_gym.core.models import quiet_transformers

    with quiet_transformers():  # it warns of texts longer than the model; `encode` cuts them
        encoded = tokenizer(list(responses), add_special_tokens=False)["input_ids"]
    return [ids if ids[-1:] == [eos] else [*ids, eos] for ids in encoded]


def _example(
    judged: Judgement,
    prompt: list[int],
    responses: list[list[int]],
    max_tokens: int | None,
    start: int,
) -> Example:
    """Join prompt and responses, and cut what is too long behind the first `start` tokens.

    Were each sequence cut for itself, all of a long dialogue would end at the same position, and a
    model could not tell long responses from short ones; a policy's are never cut like that.
    """
    stopped = judged.stopped or [True] * len(responses)
    # What is all EOS stays: there has to be a token to read the score at.
    responses = [
        ids if ended or len(ids) == 1 else ids[:-1]
        for ids, ended in zip(responses, stopped, strict=True)
    ]
    limit = max_tokens or max(len(prompt) + len(ids) for ids in responses)
    prompt = _shorten(prompt, max(start, limit - max(map(len, responses))), start)
    sequences = [_shorten([*prompt, *ids], limit, start) for ids in responses]
    lengths = tuple(min(len(r), len(s) - start) for r, s in zip(responses, sequences, strict=True))
    return Example(judged, tuple(sequences), lengths)


def _shorten(ids: list[int], limit: int, start: int) -> list[int]:
    """The first `start` tokens and the last ones, `limit` in all."""
    return ids if len(ids) <= limit else ids[:start] + ids[len(ids) - limit + start :]
