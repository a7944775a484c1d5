"""Records of human or synthetic feedback as judgements, and judgements as token ids.

Pairs, rankings, thumbs and ratings share one form: a comparison lists responses from best to worst
(a pair is a ranking of two); thumbs and ratings give one response a number. Light to import.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rlhf_gym.core.data import PathLike, read_records
from rlhf_gym.core.errors import InvalidArgument, InvalidData, TokenizerMismatch
from rlhf_gym.core.tokenizers import encode_beginnings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["comparison", "thumbs", "rating"]

_KIND_OF_COLUMN: tuple[tuple[str, Kind], ...] = (
    ("chosen", "comparison"),
    ("ranking", "comparison"),
    ("rating", "rating"),
    ("label", "thumbs"),
)
_THUMBS = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}


@dataclass(frozen=True)
class Judgement:
    """What somebody said about one or more responses to a prompt.

    Attributes:
        kind: a comparison, a thumb up or down, or a rating.
        prompt: what the responses answer; empty for plain texts.
        responses: from best to worst in a comparison, else exactly one.
        value: 1 or 0 for a thumb, any number for a rating, NaN for a comparison.
        tie: all responses of the comparison were judged equally good.
    """

    kind: Kind
    prompt: str
    responses: tuple[str, ...]
    value: float = math.nan
    tie: bool = False

    @property
    def group(self) -> str:
        """What must not stand on both sides of a split: the prompt, or else the text."""
        return self.prompt or self.responses[0]


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


def read_judgements(
    path: PathLike, *, columns: Mapping[str, str] | None = None, limit: int | None = None
) -> list[Judgement]:
    """Read pairs, rankings, thumbs and ratings; each record's columns say which it is.

    - `chosen`, `rejected`: a pair; with a true `tie`, neither is better
    - `ranking`: responses from best to worst
    - `rating`: a number for the `completion` (or `text`)
    - `label`: 0 or 1, false or true, for the `completion` (or `text`)

    Each takes a `prompt` too. Other columns are ignored.

    Args:
        path: a file, folder or hub data set, as `read_records` takes it.
        columns: names to change, `{name in the file: name wanted}`.
        limit: read this many records at most.

    Raises:
        InvalidData: a record that is none of these, or whose values do not fit its columns.
    """
    records = read_records(path, columns=columns, limit=limit)
    return [judgement(record, f"record {i} of {path}") for i, record in enumerate(records, 1)]


def judgement(record: Mapping[str, Any], where: str) -> Judgement:
    """One record as a judgement.

    Args:
        record: its columns, as in `read_judgements`.
        where: where the record stands, for messages.

    Raises:
        InvalidData: see `read_judgements`.
    """
    prompt = _prompt(record, where)
    column, kind = _kind(record, where)
    if column == "chosen":
        sides = (_text(record, "chosen", where), _text(record, "rejected", where))
        tie = bool(record.get("tie", False))
        if sides[0] == sides[1] and not tie:
            raise InvalidData(
                "rejected", sides[1], f"{where}: both sides are the same", "Leave the pair out"
            )
        return Judgement("comparison", prompt, sides, tie=tie)
    if column == "ranking":
        return Judgement("comparison", prompt, _ranking(record["ranking"], where))
    number = _thumb if kind == "thumbs" else _rating
    return Judgement(kind, prompt, (_response(record, where),), number(record[column], where))


def read_responses(path: PathLike, *, columns: Mapping[str, str] | None = None) -> list[Judgement]:
    """Read responses that nobody judged: `completion` (with a `prompt`) or `text`; no value."""
    records = read_records(path, columns=columns)
    return [
        Judgement("rating", _prompt(record, where), (_response(record, where),))
        for where, record in ((f"record {i} of {path}", r) for i, r in enumerate(records, 1))
    ]


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
        max_tokens: longer sequences lose tokens at the left, behind a leading special token, so
            that the end, where the score is read, stays; None for no limit.

    Returns:
        One example per judgement, in order. An empty response is just its EOS.

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


def _kind(record: Mapping[str, Any], where: str) -> tuple[str, Kind]:
    for column, kind in _KIND_OF_COLUMN:
        if record.get(column) is not None:
            return column, kind
    raise InvalidData(
        "column",
        tuple(record),
        f"{where}: no judgement in it",
        "Needed are chosen and rejected, or ranking, or completion (or text) with label or rating; "
        "rename the file's columns to these",
    )


def _prompt(record: Mapping[str, Any], where: str) -> str:
    return "" if record.get("prompt") is None else _text(record, "prompt", where)


def _response(record: Mapping[str, Any], where: str) -> str:
    return _text(record, "completion" if "completion" in record else "text", where)


def _text(record: Mapping[str, Any], column: str, where: str) -> str:
    value = record.get(column)
    if not isinstance(value, str):
        raise InvalidData(column, value, f"{where}: not a text", "Give a string in this column")
    return value


def _ranking(value: Any, where: str) -> tuple[str, ...]:
    fits = isinstance(value, Sequence) and not isinstance(value, str)
    if not fits or len(value) < 2 or not all(isinstance(text, str) for text in value):
        raise InvalidData(
            "ranking",
            value,
            f"{where}: not a list of two or more texts",
            "List the responses from best to worst",
        )
    return tuple(value)


def _thumb(value: Any, where: str) -> float:
    label = _THUMBS.get(str(value).strip().lower())
    if label is None:
        raise InvalidData(
            "label",
            value,
            f"{where}: neither 0 nor 1, false nor true",
            "Rename the column to 'rating' if it is a number on a scale",
        )
    return label


def _rating(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidData("rating", value, f"{where}: no finite number", "Give a number")
    return number


def _example(
    judged: Judgement,
    prompt: list[int],
    responses: list[list[int]],
    max_tokens: int | None,
    start: int,
) -> Example:
    """Join prompt and responses, and cut what is too long behind the first `start` tokens."""
    sequences = []
    for response in responses:
        ids = [*prompt, *response]
        if max_tokens is not None and len(ids) > max_tokens:
            ids = ids[:start] + ids[len(ids) - max_tokens + start :]
        sequences.append(ids)
    lengths = tuple(min(len(r), len(s)) for r, s in zip(responses, sequences, strict=True))
    return Example(judged, tuple(sequences), lengths)
