"""Token automata: what may come next, as a table that whole batches are looked up in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_gym.core.errors import InvalidArgument

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

DEAD = -1
"""The state behind a forbidden token; nothing leads out of it and everything is forbidden in it."""

_NEVER = np.iinfo(np.int32).max


class TokenAutomaton:
    """A deterministic finite automaton over token ids. A response begins in state 0.

    With `accepting` states every response ends in one of them: a token is allowed only if the
    tokens that are left suffice to reach one.

    Args:
        next_states: the state behind each token, `DEAD` where the token is forbidden, shape
            (states, vocab).
        accepting: True where a response may end, shape (states,); None if it may anywhere. A stop
            token is a token like any other: let it lead from accepting states to themselves.

    Raises:
        InvalidArgument: a table of another shape, or states that do not exist.
    """

    def __init__(self, next_states: ArrayLike, accepting: ArrayLike | None = None) -> None:
        table = np.asarray(next_states)
        if table.ndim != 2 or not table.size or not np.issubdtype(table.dtype, np.integer):
            raise InvalidArgument(
                "next_states", table.shape, "no table of states", "Give (states, vocab) integers"
            )
        if table.min() < DEAD or table.max() >= len(table):
            raise InvalidArgument(
                "next_states",
                (int(table.min()), int(table.max())),
                f"states that do not exist; there are {len(table)}",
                f"Give states from 0 and {DEAD} for forbidden tokens",
            )
        # Index -1 is the last row: the dead state's.
        self._next = np.full((len(table) + 1, table.shape[1]), DEAD, dtype=np.int32)
        self._next[:-1] = table
        self._to_go = np.zeros(len(self._next), dtype=np.int32)
        self._to_go[DEAD] = _NEVER
        if accepting is not None:
            self._to_go[:-1] = _tokens_to_go(table, np.asarray(accepting, dtype=np.bool_))
        finite = self._to_go[self._to_go < _NEVER]
        self._longest_to_go = int(finite.max()) if len(finite) else 0
        self._allowed = self._to_go[self._next] < _NEVER

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TokenAutomaton)
            and np.array_equal(self._next, other._next)
            and np.array_equal(self._to_go, other._to_go)
        )

    def __hash__(self) -> int:
        return hash(self._next.shape)

    @property
    def vocab_size(self) -> int:
        """Tokens it knows."""
        return self._next.shape[1]

    @property
    def shortest(self) -> int | None:
        """Fewest tokens of a response, stop token left out; None if there is no response at all."""
        return None if self._to_go[0] == _NEVER else int(self._to_go[0])

    def allowed(self, states: IntArray, remaining: IntArray) -> BoolArray:
        """Which tokens may come next, shape (n, vocab).

        Args:
            states: where each row is, shape (n,).
            remaining: tokens each row can still write, shape (n,).
        """
        allowed: BoolArray = self._allowed[states]
        late = np.flatnonzero(remaining <= self._longest_to_go)
        if len(late):
            # Rows are often in the same place: looked up once, for it takes 1 ms per 50,000 tokens.
            places = np.stack([states[late], remaining[late]], axis=1)
            different, which = np.unique(places, axis=0, return_inverse=True)
            to_go = self._to_go[self._next[different[:, 0]]]
            allowed[late] = (to_go < different[:, 1:])[which.reshape(-1)]
        return allowed

    def advance(self, states: IntArray, tokens: IntArray) -> IntArray:
        """The states behind one token each, shape (n,)."""
        return self._next[states, tokens].astype(np.int64)


def forbid_sequences(sequences: Iterable[Sequence[int]], vocab_size: int) -> TokenAutomaton:
    """An automaton that forbids the last token of every sequence behind the others.

    Args:
        sequences: token ids, each of one token or more; one may be part of another.
        vocab_size: number of token ids.

    Source: Aho and Corasick (1975), "Efficient string matching", algorithms 2 to 4: a state is the
        longest beginning of a sequence that the response ends with.
    """
    children: list[dict[int, int]] = [{}]
    last_tokens: list[set[int]] = [set()]
    for sequence in sequences:
        state = 0
        for token in sequence[:-1]:
            if token not in children[state]:
                children[state][token] = len(children)
                children.append({})
                last_tokens.append(set())
            state = children[state][token]
        last_tokens[state].add(sequence[-1])
    table = np.zeros((len(children), vocab_size), dtype=np.int32)
    shorter = [0] * len(children)
    queue = [0]
    for state in queue:  # breadth first, so that the shorter beginning's row is complete
        if state:
            table[state] = table[shorter[state]]
        for token, child in children[state].items():
            shorter[child] = int(table[state, token])
            queue.append(child)
            table[state, token] = child
        table[state, list(last_tokens[state])] = DEAD
    return TokenAutomaton(table)


def _tokens_to_go(table: NDArray[np.integer], accepting: BoolArray) -> NDArray[np.int32]:
    """Fewest tokens from each state to an accepting one, shape (states,); `_NEVER` if none does."""
    if accepting.shape != (len(table),):
        raise InvalidArgument(
            "accepting", accepting.shape, f"there are {len(table)} states", "Give one bool for each"
        )
    reaches = np.zeros((len(table), len(table)), dtype=np.bool_)
    for state, row in enumerate(table):
        followers = np.unique(row)
        reaches[state, followers[followers != DEAD]] = True
    to_go = np.where(accepting, 0, _NEVER).astype(np.int32)
    frontier = accepting
    for distance in range(1, len(table)):
        frontier = (reaches & frontier).any(1) & (to_go == _NEVER)
        to_go[frontier] = distance
    return to_go
