"""Regular expressions as tables of characters: the half of a grammar that knows no tokens.

`re` can say whether a text matches, but not whether it can still become a match, which is what a
mask needs. Hence an automaton of our own, for the part of `re`'s syntax that is regular.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.text.regular_syntax import (
    Characters,
    CharacterSet,
    Choice,
    Node,
    Repeat,
    Sequence,
    parse,
)

MOST_STATES = 4096
"""More are a mistake, such as `(a|b)*a(a|b){20}`, whose table doubles with every repetition."""


@dataclass(frozen=True)
class CharacterTable:
    """A deterministic automaton over characters; state 0 begins, -1 is dead.

    Attributes:
        column: which column each character has.
        next_states: int32, shape (states, columns).
        accepting: True where the text so far matches, shape (states,).
    """

    column: dict[str, int]
    next_states: NDArray[np.int32]
    accepting: NDArray[np.bool_]


def character_table(pattern: str, alphabet: Collection[str]) -> CharacterTable:
    """Compile a regular expression.

    Args:
        pattern: to be matched by a whole text; see `parse` for its syntax.
        alphabet: the characters that occur at all.

    Raises:
        InvalidArgument: a syntax that is not known, or too large a table.
    """
    nfa = _NFA()
    first, last = nfa.build(parse(pattern))
    # Characters in the same sets of the pattern behave alike: one column for all of them.
    columns: dict[tuple[bool, ...], int] = {}
    column = {
        char: columns.setdefault(tuple(holds(char) for holds in nfa.sets), len(columns))
        for char in sorted(alphabet)
    }
    start = nfa.closure({first})
    numbers, queue = {start: 0}, [start]
    rows: list[list[int]] = []
    for states in queue:
        rows.append([])
        for signature in columns:
            targets = {to for state in states for which, to in nfa.moves[state] if signature[which]}
            following = nfa.closure(targets)
            if following and following not in numbers:
                numbers[following] = len(numbers)
                queue.append(following)
            rows[-1].append(numbers[following] if following else -1)
        if len(numbers) > MOST_STATES:
            raise InvalidArgument(
                "grammar", pattern, f"it needs more than {MOST_STATES} states", "Simplify it"
            )
    table = np.array(rows, dtype=np.int32).reshape(len(numbers), len(columns))
    return CharacterTable(column, table, np.array([last in states for states in queue]))


class _NFA:
    """A nondeterministic automaton: states with moves on character sets, and free moves.

    Source: Thompson (1968), "Regular expression search algorithm": every piece of the pattern
        becomes states with one entry and one exit.
    """

    def __init__(self) -> None:
        self.sets: list[CharacterSet] = []
        self.moves: list[list[tuple[int, int]]] = []
        self._free: list[list[int]] = []

    def build(self, node: Node) -> tuple[int, int]:
        """Add the states of a piece of the pattern; returns its entry and exit."""
        first, last = self._state(), self._state()
        match node:
            case Characters(holds):
                self.moves[first].append((len(self.sets), last))
                self.sets.append(holds)
            case Choice(options):
                for option in options:
                    entry, exit_ = self.build(option)
                    self._free[first].append(entry)
                    self._free[exit_].append(last)
            case Sequence(parts):
                self._free[self._chain(first, parts)].append(last)
            case Repeat(part, low, high):
                here = self._chain(first, (part,) * low)
                self._free[here].append(last)
                if high is None:
                    self._free[self._chain(here, (part,))].append(here)
                for _ in range(low, low if high is None else high):
                    here = self._chain(here, (part,))
                    self._free[here].append(last)
        return first, last

    def closure(self, states: set[int]) -> frozenset[int]:
        """The states and all that free moves reach."""
        found, pending = set(states), list(states)
        while pending:
            for target in self._free[pending.pop()]:
                if target not in found:
                    found.add(target)
                    pending.append(target)
        return frozenset(found)

    def _chain(self, here: int, parts: tuple[Node, ...]) -> int:
        """Append pieces behind a state; returns the last one's exit."""
        for part in parts:
            entry, exit_ = self.build(part)
            self._free[here].append(entry)
            here = exit_
        return here

    def _state(self) -> int:
        self.moves.append([])
        self._free.append([])
        return len(self.moves) - 1
