"""From words and grammars, which speak of text, to token ids, which masks speak of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs.text.automata import DEAD, TokenAutomaton
from rlhf_gym.envs.text.regular import CharacterTable, character_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BoolArray = NDArray[np.bool_]

GrammarFunction = Callable[[list[int], list[int]], Any]
"""Ids of a prompt and of the response so far; returns a bool mask, shape (vocab,)."""

Grammar = str | TokenAutomaton | GrammarFunction
"""A regular expression that the response's text matches, a token automaton, or a function.

The first two are tables, looked up for all rows at once and never in a dead end; a function is
asked row by row in Python, and may look at the prompt.
"""


def word_forms(word: str, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """How the tokenizer writes a word: at the beginning of a text, and behind a space.

    Other spellings that decode to the same text (letter by letter, say) are not found. A form that
    needs the unknown token is left out: what it decodes to is not the word.

    Returns:
        Token ids; an empty list if the tokenizer cannot write the word.
    """
    forms: list[list[int]] = []
    for text in (word, f" {word}"):
        try:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        except Exception:  # what `tokenizers` raises for a word it has no <unk> for
            continue
        if ids and tokenizer.unk_token_id not in ids and ids not in forms:
            forms.append(list(ids))
    return forms


def banned_sequences(
    words: Iterable[str], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[int, ...]]:
    """The token sequences that write any of some words, in either form.

    A word that the tokenizer cannot write needs no ban.

    Raises:
        InvalidArgument: a string in place of a list of them, or an empty word.
    """
    _check_words("banned_words", words)
    return sorted({tuple(form) for word in words for form in word_forms(word, tokenizer)})


def vocabulary_mask(
    vocabulary: Iterable[str | int], tokenizer: PreTrainedTokenizerBase, rules: TokenRules
) -> BoolArray:
    """True at the tokens of some words and at stop tokens, shape (vocab,).

    Args:
        vocabulary: token ids, or words: all tokens of either form are allowed, in any order.
        tokenizer: writes the words.
        rules: knows the stop tokens.

    Raises:
        InvalidArgument: a word that the tokenizer cannot write, or an id that it has not.
    """
    _check_words("vocabulary", vocabulary)
    mask = np.zeros(rules.vocab_size, dtype=np.bool_)
    mask[list(rules.stop_ids)] = True
    for entry in vocabulary:
        forms = word_forms(entry, tokenizer) if isinstance(entry, str) else [[entry]]
        ids = [token for form in forms for token in form]
        if not ids or not all(0 <= token < rules.vocab_size for token in ids):
            raise InvalidArgument(
                "vocabulary",
                entry,
                "the tokenizer has no token for it",
                "Give words that it can write, or token ids",
            )
        mask[ids] = True
    return mask


def regular_grammar(
    pattern: str, tokenizer: PreTrainedTokenizerBase, rules: TokenRules
) -> TokenAutomaton:
    """The token automaton of a regular expression: a response's decoded text matches all of it.

    Stop tokens are allowed exactly where the text matches. Special tokens, and byte tokens that are
    no whole characters, are never.

    Args:
        pattern: see `regular_syntax.parse`.
        tokenizer: says what text a token adds.
        rules: vocabulary and stop tokens.

    Raises:
        InvalidArgument: a syntax that is not known, or a table too large.

    Source: Willard and Louf (2023), "Efficient Guided Generation for Large Language Models",
        algorithm 3, with all states walked at once.
    """
    first, later = token_texts(tokenizer, rules)
    characters = character_table(pattern, {char for text in first + later for char in text})
    count = len(characters.next_states)
    # State 0 again under another number: the first token's text may lack its leading space.
    table = np.full((count + 1, rules.vocab_size), DEAD, dtype=np.int32)
    table[0] = _walk(characters, np.zeros(1, dtype=np.int32), first)[0]
    table[1:] = _walk(characters, np.arange(count, dtype=np.int32), later)
    table[table != DEAD] += 1
    accepting = np.concatenate([characters.accepting[:1], characters.accepting])
    for stop in rules.stop_ids:
        table[:, stop] = np.where(accepting, np.arange(count + 1), DEAD)
    return TokenAutomaton(table, accepting)


def token_texts(
    tokenizer: PreTrainedTokenizerBase, rules: TokenRules
) -> tuple[list[str], list[str]]:
    """What each token adds to a text, as the first token of a response and as a later one.

    Returns:
        Two lists of `vocab_size` strings; empty for tokens that are not text of their own.
    """
    first = tokenizer.batch_decode(
        [[token] for token in range(rules.vocab_size)],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    # What comes behind a plain word is read off by taking the word away again.
    anchor = next((t for t, text in enumerate(first) if text.isalpha() and text.isascii()), None)
    if anchor is None:
        raise InvalidArgument(
            "grammar", type(tokenizer).__name__, "no token of it is a word", "Use token ids"
        )
    pairs = tokenizer.batch_decode(
        [[anchor, token] for token in range(rules.vocab_size)],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    later = [pair[len(first[anchor]) :] for pair in pairs]
    special = {*tokenizer.all_special_ids, *rules.illegal_ids, *rules.stop_ids}
    # U+FFFD stands for bytes that are no whole character.
    return (
        ["" if t in special or "\ufffd" in text else text for t, text in enumerate(first)],
        ["" if t in special or "\ufffd" in text else text for t, text in enumerate(later)],
    )


def _walk(
    characters: CharacterTable, starts: NDArray[np.int32], texts: Sequence[str]
) -> NDArray[np.int32]:
    """Where each text leads from each state, shape (states, texts); dead for an empty text."""
    # Row -1 is the dead state's, as in TokenAutomaton.
    table = np.pad(characters.next_states, ((0, 1), (0, 0)), constant_values=DEAD)
    lengths = np.array([len(text) for text in texts])
    order = np.argsort(-lengths, kind="stable")
    states = np.repeat(starts[:, None], len(texts), axis=1)
    for place in range(int(lengths.max(initial=0))):
        longer = order[: int((lengths > place).sum())]
        columns = np.array([characters.column[texts[t][place]] for t in longer])
        states[:, longer] = table[states[:, longer], columns]
    states[:, lengths == 0] = DEAD
    return states


def _check_words(field: str, words: Iterable[object]) -> None:
    if isinstance(words, str) or any(word == "" for word in words):
        raise InvalidArgument(field, words, "not a list of words", 'Write ["like", "this"]')
