"""Prompts: from whatever a user has, to padded rows of ids, in a reproducible order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint, InvalidData, InvalidPrompt
from rlhf_gym.core.tokenizers import encode_beginnings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IntArray = NDArray[np.int64]
Row = Mapping[str, Any]
Order = Literal["shuffle", "sequential"]

PromptData = str | os.PathLike[str] | Iterable[Any]
"""A path, texts, rows with a column `prompt` (as a `datasets.Dataset` has), or chat messages."""


@dataclass(frozen=True)
class PromptSet:
    """All prompts of an environment, tokenised once.

    Attributes:
        texts: the prompts as strings; chat messages as the template renders them.
        rows: the data rows they came from, at least with the column `prompt`.
        tokens: the ids of all prompts one after another, int32 (padding them all could be
            gigabytes).
        ends: where each prompt ends in `tokens`, shape (count,).
        lengths: tokens of each prompt, shape (count,).
    """

    texts: Sequence[str]
    rows: Sequence[Row]
    tokens: NDArray[np.int32]
    ends: IntArray
    lengths: IntArray

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def digest(self) -> str:
        """Equal for equal token ids; a saved run notices other prompts by it."""
        return hashlib.blake2b(self.tokens.tobytes() + self.ends.tobytes()).hexdigest()[:16]

    def padded(
        self, indices: IntArray, width: int, pad_id: int
    ) -> tuple[IntArray, NDArray[np.int8]]:
        """Some prompts, padded on the left.

        Args:
            indices: which prompts, shape (k,).
            width: columns; at least the longest prompt.
            pad_id: fills the columns before a prompt.

        Returns:
            ids and mask (1 at real tokens), both of shape (k, width).
        """
        columns = np.arange(width) - width
        mask = columns >= -self.lengths[indices, None]
        position = np.where(mask, self.ends[indices, None] + columns, 0)
        ids = np.where(mask, self.tokens[position], pad_id)
        return ids.astype(np.int64), mask.astype(np.int8)


def load_prompts(
    prompts: PromptData, tokenizer: PreTrainedTokenizerBase, *, chat_template: bool = False
) -> PromptSet:
    """Read and tokenise prompts.

    Args:
        prompts: a path that `read_prompts` reads (of a .txt file every line is a prompt), texts,
            rows with a column `prompt`, or, with `chat_template`, lists of chat messages.
        tokenizer: adds what it puts before every text (BOS); an EOS it puts behind is dropped, for
            a prompt that has ended leaves nothing to continue.
        chat_template: render prompts with the tokenizer's chat template, a plain text as the one
            message of a user.

    Raises:
        InvalidPrompt: no prompts, an empty one, or one of the wrong type.
        InvalidData: a row without the column `prompt`, or a file that cannot be read.
        InvalidArgument: `chat_template` without a template.
    """
    rows = [_row(item, number) for number, item in enumerate(_items(prompts))]
    if not rows:
        raise InvalidPrompt("prompts", prompts, "there is no prompt", "Give at least one")
    if chat_template:
        if tokenizer.chat_template is None:
            raise InvalidArgument(
                "chat_template",
                True,
                "the tokenizer has no chat template",
                "Set tokenizer.chat_template, or give plain texts",
            )
        texts = [_render(row["prompt"], number, tokenizer) for number, row in enumerate(rows)]
    else:
        texts = [_plain(row["prompt"], number) for number, row in enumerate(rows)]
    ids = _token_ids(texts, tokenizer, special=not chat_template)
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    tokens = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=int(lengths.sum()))
    if not lengths.all():
        empty = int(np.flatnonzero(lengths == 0)[0])
        raise InvalidPrompt(
            f"prompts[{empty}]",
            texts[empty],
            "it has no tokens, so the model has nothing to continue",
            "Remove it, or use a tokenizer that puts a BOS token first",
        )
    return PromptSet(texts, rows, tokens, lengths.cumsum(), lengths)


class PromptOrder:
    """Which prompt comes next: every prompt once, then every prompt once more.

    Args:
        count: number of prompts.
        order: "shuffle" draws a new permutation each time round, "sequential" keeps the given
            order.
    """

    def __init__(self, count: int, order: Order) -> None:
        if order not in ("shuffle", "sequential"):
            raise InvalidArgument(
                "prompt_order", order, "no such order", "Choose 'shuffle' or 'sequential'"
            )
        self.order = order
        self._indices = np.arange(count)
        self._next = count

    def restart(self) -> None:
        """Forget where it was; the next draw begins a new round."""
        self._indices = np.arange(len(self._indices))
        self._next = len(self._indices)

    def draw(self, count: int, rng: np.random.Generator) -> IntArray:
        """The next `count` prompt indices, shape (count,); `rng` shuffles each new round."""
        parts = []
        while count > 0:
            if self._next == len(self._indices):
                if self.order == "shuffle":
                    self._indices = rng.permutation(len(self._indices))
                self._next = 0
            part = self._indices[self._next : self._next + count]
            self._next += len(part)
            count -= len(part)
            parts.append(part)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def state_dict(self) -> dict[str, Any]:
        """The current round and the place in it."""
        return {"indices": self._indices.copy(), "next": self._next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            InvalidCheckpoint: the state is of another number of prompts.
        """
        indices = np.asarray(state["indices"], dtype=np.int64)
        if not np.array_equal(np.sort(indices), np.arange(len(self._indices))):
            raise InvalidCheckpoint(
                "prompt_order",
                indices,
                f"not an order of {len(self._indices)} prompts",
                "Resume with the prompts of the saved run",
            )
        self._indices, self._next = indices.copy(), int(state["next"])


def _items(prompts: PromptData) -> list[Any]:
    if isinstance(prompts, str | os.PathLike):
        from rlhf_gym.core.data import read_prompts

        return list(read_prompts(prompts))
    if isinstance(prompts, Mapping):
        raise InvalidPrompt(
            "prompts",
            prompts,
            "a mapping is no sequence of prompts",
            "Give a list of rows, or one split of the data set: prompts['train']",
        )
    if not isinstance(prompts, Iterable):
        raise InvalidPrompt(
            "prompts", prompts, "neither a path nor a sequence", "Give a list of texts or rows"
        )
    return list(prompts)


def _row(item: Any, number: int) -> Row:
    if isinstance(item, Mapping):
        if item.get("prompt") is None:
            raise InvalidData(
                f"prompts[{number}]",
                sorted(map(str, item)),
                "the row has no column 'prompt', or nothing in it",
                "Rename the column that holds the prompts to 'prompt'",
            )
        return item
    return {"prompt": item}


def _plain(prompt: Any, number: int) -> str:
    if isinstance(prompt, str):
        return prompt
    is_chat = isinstance(prompt, list)
    raise InvalidPrompt(
        f"prompts[{number}]",
        prompt,
        "a list of messages, not a text" if is_chat else "not a text",
        "Pass chat_template=True" if is_chat else "Give strings",
    )


def _render(prompt: Any, number: int, tokenizer: PreTrainedTokenizerBase) -> str:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(messages, list) or not all(
        isinstance(message, Mapping) and {"role", "content"} <= message.keys()
        for message in messages
    ):
        raise InvalidPrompt(
            f"prompts[{number}]",
            prompt,
            "not a list of chat messages",
            "Give [{'role': 'user', 'content': '...'}]",
        )
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _token_ids(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, *, special: bool
) -> list[list[int]]:
    if special:
        return encode_beginnings(tokenizer, texts)
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids
