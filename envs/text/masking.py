"""Which actions are allowed right now, as sb3-contrib's MaskablePPO asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import TokenRules, legal_logits
from rlhf_gym.envs.text.automata import TokenAutomaton
from rlhf_gym.envs.text.grammars import GrammarFunction

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


class Written(NamedTuple):
    """Responses so far.

    Attributes:
        ids: prompts left padded, responses right padded, shape (n, width).
        mask: non-zero at real tokens, shape (n, width).
        prompt_width: column at which responses begin.
        lengths: response tokens so far, shape (n,).
    """

    ids: IntArray
    mask: NDArray[np.int8]
    prompt_width: int
    lengths: IntArray


class ActionMasks:
    """Banned tokens, a vocabulary, minimum length, banned words, a grammar, and top-k / top-p.

    All of them hold at once. Those that look at the text come first: the reference's distribution
    is cut to the tokens that they leave, as in transformers' `generate`. Where they leave nothing
    (two that contradict each other, or a response that broke a rule), stop tokens are allowed, so
    that the response can end; without any, all that is not banned. Policy, reference and exact
    optimum apply the same mask and are renormalised under it, so KL stays 0 at the start.

    Top-k and top-p are of the reference. NLPO (Ramamurthy et al. 2022, section 4) cuts to the top-p
    of a copy of the policy that lags behind it; the reference is that copy before its first
    renewal, and a mask that never moves keeps the KL finite and the optimum known.

    Args:
        rules: PAD and banned tokens are never allowed.
        max_response_tokens: upper limit of the minimum length.
        min_response_tokens: no stop token among the first so many.
        vocabulary: True at the only tokens ever allowed, shape (vocab,); None for all.
        automata: token automata, for banned words and grammars.
        function: asked row by row for what is allowed.
        top_k: allow the k likeliest tokens of the reference (more if several are equal).
        top_p: allow the smallest set of the reference's tokens whose probability reaches p.

    Raises:
        InvalidArgument: a number out of range, or masks under which no response could begin.
    """

    def __init__(
        self,
        rules: TokenRules,
        *,
        max_response_tokens: int,
        min_response_tokens: int = 0,
        vocabulary: BoolArray | None = None,
        automata: Sequence[TokenAutomaton] = (),
        function: GrammarFunction | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> None:
        if not 0 <= min_response_tokens <= max_response_tokens:
            raise InvalidArgument(
                "min_response_tokens",
                min_response_tokens,
                f"not between 0 and max_response_tokens={max_response_tokens}",
                "Give a number in between",
            )
        if top_k is not None and top_k < 1:
            raise InvalidArgument("top_k", top_k, "no token would be left", "Give 1 or more")
        if top_p is not None and not 0 < top_p <= 1:
            raise InvalidArgument("top_p", top_p, "not a probability", "Give 0 < top_p <= 1")
        self.rules = rules
        self.max_response_tokens = max_response_tokens
        self.min_response_tokens = min_response_tokens
        self.top_k = top_k
        self.top_p = top_p
        self.automata = tuple(automata)
        self.function = function
        self._has_vocabulary = vocabulary is not None
        legal = np.ones(rules.vocab_size, dtype=np.bool_)
        legal[list(rules.illegal_ids)] = False
        self._always = legal if vocabulary is None else legal & vocabulary
        self._no_stop = self._always.copy()
        self._no_stop[list(rules.stop_ids)] = False
        stops = np.zeros_like(legal)
        stops[list(rules.stop_ids)] = True
        stops &= legal
        self._way_out = stops if stops.any() else legal
        self._check_beginning()

    def __eq__(self, other: object) -> bool:
        """SB3 compares what a policy was made with when it loads an agent."""
        if not isinstance(other, ActionMasks):
            return NotImplemented
        mine, theirs = vars(self), vars(other)
        return all(np.array_equal(mine[name], theirs[name]) for name in _ARRAYS) and all(
            mine[name] == theirs[name] for name in mine.keys() - _ARRAYS
        )

    def __hash__(self) -> int:
        return hash((self.rules, self.max_response_tokens, self.top_k, self.top_p))

    @property
    def needs_reference(self) -> bool:
        """True if the reference's next-token logits decide."""
        return self.top_k is not None or self.top_p is not None

    @property
    def depends_on_text(self) -> bool:
        """True if what is allowed depends on which tokens were written."""
        return bool(self.automata) or self.function is not None

    @property
    def depends_on_state(self) -> bool:
        """True if more than PAD and banned tokens is excluded somewhere."""
        return (
            self._has_vocabulary
            or self.min_response_tokens > 0
            or self.depends_on_text
            or self.needs_reference
        )

    def by_length(self, lengths: IntArray) -> BoolArray:
        """What ban, vocabulary and minimum length allow, shape (n, vocab).

        Args:
            lengths: response tokens so far, shape (n,).
        """
        return np.where(lengths[:, None] < self.min_response_tokens, self._no_stop, self._always)

    def states_of(self, written: Written) -> IntArray:
        """Where the automata are behind each response, shape (automata, n)."""
        states = np.zeros((len(self.automata), len(written.ids)), dtype=np.int64)
        for time in range(int(written.lengths.max(initial=0)) if self.automata else 0):
            tokens = written.ids[:, written.prompt_width + time]
            states = np.where(time < written.lengths, self.advance(states, tokens), states)
        return states

    def advance(self, states: IntArray, tokens: IntArray) -> IntArray:
        """Where the automata are behind one more token.

        Args:
            states: shape (automata, n).
            tokens: shape (n,).
        """
        pairs = zip(self.automata, states, strict=True)
        moved = [automaton.advance(state, tokens) for automaton, state in pairs]
        return np.array(moved, dtype=np.int64).reshape(states.shape)

    def by_text(self, written: Written, states: IntArray | None = None) -> BoolArray:
        """What all masks but the reference's allow, shape (n, vocab); at least one per row.

        Args:
            written: the responses so far.
            states: where the automata are, shape (automata, n), if it is known already.
        """
        allowed = self.by_length(written.lengths)
        remaining = self.max_response_tokens - written.lengths
        states = self.states_of(written) if states is None else states
        for automaton, state in zip(self.automata, states, strict=True):
            allowed &= automaton.allowed(state, remaining)
        if self.function is not None:
            allowed &= self._by_function(written)
        allowed[~allowed.any(1)] = self._way_out
        return allowed

    def of_reference(self, logits: Tensor, allowed: Tensor) -> Tensor:
        """Cut what the other masks allow to the reference's top-k and top-p.

        Args:
            logits: the reference's raw next-token logits, shape (n, at least vocab).
            allowed: True at what the other masks allow, shape (n, vocab).

        Returns:
            True at allowed tokens, shape (n, vocab); at least one per row.
        """
        allowed = allowed.to(logits.device)
        legal = legal_logits(logits.float(), self.rules, allowed)
        if self.top_k is not None and self.top_k < self.rules.vocab_size:
            kth = legal.topk(self.top_k, dim=-1).values[:, -1:]
            allowed = allowed & (legal >= kth)
        if self.top_p is not None and self.top_p < 1:
            legal = legal.masked_fill(~allowed, -torch.inf)
            probabilities, tokens = legal.softmax(-1).sort(dim=-1, descending=True, stable=True)
            # A token stays while the likelier ones have not reached p yet; so the first always
            # does.
            kept = probabilities.cumsum(-1) - probabilities < self.top_p
            allowed = allowed & torch.zeros_like(allowed).scatter(-1, tokens, kept)
        return allowed & (legal > -torch.inf)

    def _by_function(self, written: Written) -> BoolArray:
        rows = []
        start = written.prompt_width
        for ids, mask, length in zip(written.ids, written.mask, written.lengths, strict=True):
            prompt = ids[:start][mask[:start].astype(np.bool_)].tolist()
            rows.append(self.function(prompt, ids[start : start + length].tolist()))  # type: ignore[misc]
        allowed = np.asarray(rows)
        if allowed.dtype != np.bool_ or allowed.shape != (len(rows), self.rules.vocab_size):
            raise InvalidArgument(
                "grammar",
                allowed.shape[1:],
                f"the function should return {self.rules.vocab_size} bools",
                "Return an array of shape (vocab,), True at allowed tokens",
            )
        return allowed

    def _check_beginning(self) -> None:
        """Refuse masks under which no response could begin."""
        if not (self._no_stop if self.min_response_tokens else self._always).any():
            raise InvalidArgument(
                "min_response_tokens" if self.min_response_tokens else "vocabulary",
                self.min_response_tokens,
                "stop tokens are the only legal ones, so no response could begin",
                "Ban fewer tokens, or allow more",
            )
        for automaton in self.automata:
            if automaton.vocab_size != self.rules.vocab_size:
                raise InvalidArgument(
                    "grammar",
                    automaton.vocab_size,
                    f"an automaton for another vocabulary than these {self.rules.vocab_size}",
                    "Give its table one column per token",
                )
            if automaton.shortest is None or automaton.shortest > self.max_response_tokens:
                raise InvalidArgument(
                    "grammar",
                    automaton.shortest,
                    "its shortest response in tokens (None: there is none) is over "
                    f"max_response_tokens={self.max_response_tokens}",
                    "Raise max_response_tokens, or let the grammar match what the tokenizer writes",
                )


_ARRAYS = {"_always", "_no_stop", "_way_out"}
