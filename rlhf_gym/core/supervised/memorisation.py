"""Does a language model recite its corpus? Verbatim overlap of texts with it, in tokens.

A share means nothing by itself: everybody writes "at the end of the day". So it is read beside the
share for held-out documents, which nobody can have copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Ids = Sequence[int]
_Hashes = np.ndarray[Any, np.dtype[np.uint64]]
_Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Overlap:
    """How much of some texts stands in the corpus word for word.

    Attributes:
        share: of the texts' n-grams, those that occur in the corpus.
        longest: tokens of the longest stretch that occurs in the corpus.
        n: tokens of an n-gram.
        count: n-grams looked up.
    """

    share: float
    longest: int
    n: int
    count: int


class CorpusIndex:
    """Looks up token n-grams in a corpus, for any n, by rolling hashes of 64 bits.

    Args:
        documents: token ids of each; no n-gram crosses their borders.
        seed: of the hash; two different n-grams share one with probability about 2^-60.
    """

    def __init__(self, documents: Sequence[Ids], *, seed: int = 0) -> None:
        self._seed = seed
        self._documents = _Prefixes(documents, seed)

    def overlap(self, texts: Sequence[Ids], n: int = 8) -> Overlap:
        """Compare texts with the corpus.

        Args:
            texts: token ids of each.
            n: tokens of an n-gram.
        """
        prefixes = _Prefixes(texts, self._seed)
        found = self._occur(prefixes.windows(n), n)
        # If a stretch of k tokens occurs, so do all shorter ones: bisection finds the longest.
        low, high = 0, max(map(len, texts), default=0)
        while low < high:
            middle = (low + high + 1) // 2
            if self._occur(prefixes.windows(middle), middle).any():
                low = middle
            else:
                high = middle - 1
        share = float(found.mean()) if len(found) else 0.0
        return Overlap(share=share, longest=low, n=n, count=len(found))

    def _occur(self, hashes: _Hashes, n: int) -> _Bools:
        """True where a text's n-gram stands in the corpus, shape as `hashes`."""
        # The few n-grams of the texts are sorted, not the many of the corpus.
        table, where = np.unique(hashes, return_inverse=True)
        found = np.zeros(len(table), dtype=np.bool_)
        if len(table):
            corpus = self._documents.windows(n)
            index = np.minimum(np.searchsorted(table, corpus), len(table) - 1)
            found[index[table[index] == corpus]] = True
        occurring: _Bools = found[where]
        return occurring


class _Prefixes:
    """Hashes of every window of a list of documents, from prefix sums.

    With r_t a random number for token t and an odd base b, all modulo 2^64,
        hash(t_i .. t_{i+n-1}) = sum_j r_{t_{i+j}} b^j = b^-i (S_{i+n} - S_i),
        S_i = sum_{k<i} r_{t_k} b^k,
    so that any n costs the same.
    """

    def __init__(self, documents: Sequence[Ids], seed: int) -> None:
        lengths = np.fromiter(map(len, documents), dtype=np.int64, count=len(documents))
        ids = np.fromiter((i for document in documents for i in document), dtype=np.int64)
        self._ends = np.repeat(lengths.cumsum(), lengths)
        base = np.uint64(0x9E3779B97F4A7C15)
        inverse = np.uint64(pow(int(base), -1, 2**64))
        with np.errstate(over="ignore"):
            terms = _token_numbers(ids, seed) * _powers(base, len(ids))
            self._sums = np.concatenate([np.zeros(1, dtype=np.uint64), terms.cumsum()])
            self._inverse_powers = _powers(inverse, len(ids))

    def windows(self, n: int) -> _Hashes:
        starts = np.flatnonzero(np.arange(len(self._ends)) + n <= self._ends)
        with np.errstate(over="ignore"):
            sums = self._sums[starts + n] - self._sums[starts]
            hashes: _Hashes = sums * self._inverse_powers[starts]
        return hashes


def _powers(base: np.uint64, count: int) -> _Hashes:
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)


def _token_numbers(ids: np.ndarray[Any, np.dtype[np.int64]], seed: int) -> _Hashes:
    size = int(ids.max(initial=0)) + 1
    # The numbers of small ids must not depend on the largest: corpus and texts share them.
    table = np.random.default_rng(seed).integers(0, 2**64, size=size, dtype=np.uint64)
    numbers: _Hashes = table[ids]
    return numbers
