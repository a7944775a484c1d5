"""Random numbers for a batch of episodes, each from a stream of its own.

A row's numbers depend on its seed, on how many episodes it has begun and on how many numbers it has
drawn in this one, and on nothing else. So row 3 of a batch of 256, reset with seed 5, lives through
the same episodes as a single environment reset with seed 8, and all rows are drawn at once.

NumPy's own generators are sequential: a stream per row would be a Python object and a call per row.

Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014) for
the mixing function (variant 13 of Stafford) and the increment; Salmon et al., "Parallel Random
Numbers: As Easy as 1, 2, 3" (SC 2011) for numbers as a function of key and counter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Rows = IntArray | slice
UIntArray = NDArray[np.uint64]
Numbers = float | FloatArray | IntArray

INCREMENT = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, made odd: consecutive counters end up far from each other."""
EPISODE_INCREMENT = np.uint64(0xD1342543DE82EF95)
"""Odd, and no small multiple of the other: the n-th episode is no later part of the first."""


def mix(bits: UIntArray) -> UIntArray:
    """Scatter 64-bit integers: neighbours come out unrelated. A bijection; any shape."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


class RowStreams:
    """The random streams of N rows.

    Args:
        seeds: one non-negative integer per row; beyond 2^64 they wrap around.

    Attributes:
        seeds: shape (N,).
        episodes: how many episodes each row has begun, shape (N,).
        counters: how many numbers each row has drawn in its episode, shape (N,).
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = np.array([seed % 2**64 for seed in seeds], dtype=np.uint64)
        self.episodes = np.zeros_like(self.seeds)
        self.counters = np.zeros_like(self.seeds)
        self._keys = np.zeros_like(self.seeds)

    def reseed(self, rows: IntArray, seeds: Sequence[int]) -> None:
        """Give some rows, shape (k,), new seeds; their next episode is the seed's first."""
        self.seeds[rows] = [seed % 2**64 for seed in seeds]
        self.episodes[rows] = 0

    def begin(self, rows: IntArray) -> Draws:
        """Go to the next episode in some rows, shape (k,), and draw for it."""
        self.episodes[rows] += np.uint64(1)
        self.counters[rows] = 0
        self._keys[rows] = mix(
            mix(self.seeds[rows] + INCREMENT) + self.episodes[rows] * EPISODE_INCREMENT
        )
        return Draws(self, rows)

    def rows(self, rows: Rows) -> Draws:
        """Draw on in the current episode of some rows, shape (k,), or of a slice of them."""
        return Draws(self, rows)

    def next_bits(self, rows: Rows, count: int) -> UIntArray:
        """64 random bits, `count` of them for each row; shape (k, count)."""
        keys = self._keys[rows][:, None]
        offsets = np.arange(1, count + 1, dtype=np.uint64)
        counters: UIntArray = self.counters[rows][:, None] + offsets
        self.counters[rows] += np.uint64(count)
        # The key goes in twice: two rows whose keys are some increments apart would otherwise
        # draw the same numbers, shifted in time.
        return mix(mix(keys + counters * INCREMENT) ^ keys)

    def state_dict(self) -> dict[str, UIntArray]:
        """Everything, as arrays of shape (N,)."""
        return {
            "seeds": self.seeds.copy(),
            "episodes": self.episodes.copy(),
            "counters": self.counters.copy(),
            "keys": self._keys.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.seeds[:] = state["seeds"]
        self.episodes[:] = state["episodes"]
        self.counters[:] = state["counters"]
        self._keys[:] = state["keys"]


class Draws:
    """Random numbers for k rows: what a task's rules draw from.

    Each method gives one number per row, shape (k,), or `shape` numbers, shape (k, *shape).

    Args:
        streams: where they come from, and where it is noted that they were taken.
        rows: which rows, k of them.
    """

    def __init__(self, streams: RowStreams, rows: Rows) -> None:
        self._streams = streams
        self._rows = rows
        self.count = len(streams.seeds[rows])
        """k."""

    def uniform(
        self, low: Numbers = 0.0, high: Numbers = 1.0, shape: tuple[int, ...] = ()
    ) -> FloatArray:
        """Uniform on [low, high); the limits broadcast against the result."""
        bits = self._streams.next_bits(self._rows, math.prod(shape))
        unit = (bits >> np.uint64(11)) * 2.0**-53  # the upper 53 bits: all a float64 can hold
        unit = unit.reshape(self.count, *shape)
        low = np.asarray(low, dtype=np.float64)
        return np.asarray(low + (np.asarray(high) - low) * unit)

    def normal(
        self, mean: Numbers = 0.0, std: Numbers = 1.0, shape: tuple[int, ...] = ()
    ) -> FloatArray:
        """Normal; mean and deviation broadcast against the result.

        Source: Box and Muller, "A Note on the Generation of Random Normal Deviates" (1958).
        """
        pair = self.uniform(shape=(*shape, 2))
        radius = np.sqrt(-2.0 * np.log1p(-pair[..., 0]))  # 1 - u is never 0
        return np.asarray(mean + std * radius * np.cos(2.0 * np.pi * pair[..., 1]))

    def integers(self, low: Numbers, high: Numbers, shape: tuple[int, ...] = ()) -> IntArray:
        """Integers from low to high - 1; the limits, less than 2^32 apart, broadcast."""
        return np.floor(self.uniform(low, high, shape)).astype(np.int64)

    def bernoulli(self, probability: Numbers, shape: tuple[int, ...] = ()) -> BoolArray:
        """True with a probability, which broadcasts against the result."""
        return np.asarray(self.uniform(shape=shape) < probability)

    def choice(self, weights: Numbers) -> IntArray:
        """One index per row, shape (k,).

        Args:
            weights: in proportion to which it is drawn, shape (n,), or (k, n) for weights of each
                row's own; not negative, and not all 0.
        """
        totals = np.cumsum(np.asarray(weights, dtype=np.float64), axis=-1)
        drawn = self.uniform() * totals[..., -1]
        # An index of weight 0 has its predecessor's total, so it is passed over.
        return np.asarray((drawn[:, None] >= totals).sum(axis=-1), dtype=np.int64)

    def permutation(self, length: int) -> IntArray:
        """The integers 0 to length - 1 in random order; shape (k, length)."""
        return np.argsort(self.uniform(shape=(length,)), axis=-1, kind="stable")
