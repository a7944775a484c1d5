"""Judged responses as training examples: records in, token ids and batches out.

Four kinds of judgement share one form. A comparison lists responses from best to worst (a pair is
a ranking of two); thumbs and ratings give one response a number. A batch is one flat set of
sequences, whatever it holds, so that the model runs once, and the losses pick scores by index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_gym.core.data import PathLike, read_records
from rlhf_gym.core.errors import InvalidArgument, InvalidData, TokenizerMismatch

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


class FeedbackBatch(NamedTuple):
    """Judgements over one flat set of sequences, padded on the right.

    Attributes:
        input_ids: int64, shape (sequences, width).
        attention_mask: True at real tokens, shape (sequences, width).
        response_mask: True at tokens of the response, shape (sequences, width).
        rankings: rows of each comparison's sequences, best first, -1 behind the last, shape
            (comparisons, responses).
        ties: True where a comparison's responses were judged equal, shape (comparisons,).
        thumbs: row of each thumb's sequence, shape (thumbs,).
        thumb_labels: 1 up, 0 down, shape (thumbs,).
        rated: row of each rating's sequence, shape (ratings,).
        ratings: shape (ratings,).
    """

    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    rankings: Tensor
    ties: Tensor
    thumbs: Tensor
    thumb_labels: Tensor
    rated: Tensor
    ratings: Tensor

    @property
    def judgements(self) -> int:
        """How many judgements the batch holds."""
        return len(self.rankings) + len(self.thumbs) + len(self.rated)


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
    prompt = _text(record, "prompt", where) if record.get("prompt") is not None else ""
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
    response = _text(record, "completion" if "completion" in record else "text", where)
    number = _thumb if kind == "thumbs" else _rating
    return Judgement(kind, prompt, (response,), number(record[column], where))


def encode(
    judgements: Sequence[Judgement], tokenizer: PreTrainedTokenizerBase, max_tokens: int | None
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
    prompts = encode_prompts([j.prompt for j in judgements], tokenizer)
    flat = [response for j in judgements for response in j.responses]
    responses = iter(encode_responses(flat, tokenizer))
    start = 1 if encode_prompts([""], tokenizer)[0] else 0
    return [
        _example(j, prompt, [next(responses) for _ in j.responses], max_tokens, start)
        for j, prompt in zip(judgements, prompts, strict=True)
    ]


def encode_prompts(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of each prompt with the special tokens the tokenizer puts in front, never one behind."""
    encoded: list[list[int]] = tokenizer(list(prompts))["input_ids"]
    behind = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {tokenizer.bos_token_id, None}
    # A tokenizer that closes every text would end the prompt before the response begins.
    return [ids[:-1] if ids and ids[-1] in behind else ids for ids in encoded]


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
    encoded = tokenizer(list(responses), add_special_tokens=False)["input_ids"]
    return [ids if ids and ids[-1] == eos else [*ids, eos] for ids in encoded]


@dataclass(frozen=True)
class FeedbackCollator:
    """Pads examples into one batch, as wide as its longest sequence.

    Attributes:
        pad_id: fills rows on the right.
        multiple: widths are rounded up to a multiple of this, for devices that like it.
    """

    pad_id: int
    multiple: int = 1

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """The fields of a `FeedbackBatch` by name, as `transformers.Trainer` passes them on."""
        sequences = [ids for example in examples for ids in example.sequences]
        lengths = torch.tensor([len(ids) for ids in sequences])
        responses = torch.tensor([n for example in examples for n in example.response_lengths])
        width = math.ceil(int(lengths.max()) / self.multiple) * self.multiple
        padded = [ids + [self.pad_id] * (width - len(ids)) for ids in sequences]
        column = torch.arange(width)
        mask = column < lengths[:, None]
        batch = FeedbackBatch(
            torch.tensor(padded),
            mask,
            mask & (column >= (lengths - responses)[:, None]),
            *_targets(examples),
        )
        return batch._asdict()


def _targets(examples: Sequence[Example]) -> Iterator[Tensor]:
    """`rankings`, `ties`, `thumbs`, `thumb_labels`, `rated` and `ratings` of a batch."""
    first = 0
    rankings, ties = [], []
    rows: dict[Kind, list[int]] = {"thumbs": [], "rating": []}
    values: dict[Kind, list[float]] = {"thumbs": [], "rating": []}
    for judged, sequences, _ in examples:
        if judged.kind == "comparison":
            rankings.append(list(range(first, first + len(sequences))))
            ties.append(judged.tie)
        else:
            rows[judged.kind].append(first)
            values[judged.kind].append(judged.value)
        first += len(sequences)
    longest = max(map(len, rankings), default=0)
    table = [row + [-1] * (longest - len(row)) for row in rankings]
    yield torch.tensor(table, dtype=torch.long).reshape(len(table), longest)
    yield torch.tensor(ties, dtype=torch.bool)
    for kind in values:
        yield torch.tensor(rows[kind], dtype=torch.long)
        yield torch.tensor(values[kind], dtype=torch.float32)


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
