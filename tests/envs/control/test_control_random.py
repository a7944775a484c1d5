"""Random numbers by row: reproducible, of the right distribution, and unrelated between rows."""

import math

import numpy as np
import pytest

from rlhf_gym.envs.control.random import Draws, RowStreams, mix


def draws(count: int, seed: int = 0) -> Draws:
    return RowStreams(range(seed, seed + count)).begin(np.arange(count))


def chi_squared(counts: np.ndarray, expected: np.ndarray) -> float:
    """In standard deviations above its mean: a statistic with k - 1 degrees has variance 2k - 2."""
    freedom = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def test_mix_is_splitmix64() -> None:
    # The published generator with seed 1234567 adds the increment, then mixes: its first outputs.
    increment = 0x9E3779B97F4A7C15
    states = [(1234567 + increment * step) % 2**64 for step in (1, 2, 3)]
    assert mix(np.array(states, dtype=np.uint64)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_a_row_draws_the_same_alone_and_in_company() -> None:
    company = RowStreams(range(10, 20))
    first = company.begin(np.arange(10)).uniform(shape=(3,))
    second = company.rows(np.array([7, 2])).normal()
    third = company.rows(slice(None)).integers(0, 100)
    alone = RowStreams([17])
    assert (alone.begin(np.array([0])).uniform(shape=(3,))[0] == first[7]).all()
    assert alone.rows(np.array([0])).normal()[0] == second[0]
    assert alone.rows(slice(None)).integers(0, 100)[0] == third[7]


def test_an_episode_does_not_depend_on_what_the_last_one_drew() -> None:
    rows = np.array([0])
    one, two = RowStreams([5]), RowStreams([5])
    one.begin(rows).uniform(shape=(100,))
    two.begin(rows)
    assert one.begin(rows).uniform()[0] == two.begin(rows).uniform()[0]
    one.reseed(rows, [5])
    assert one.begin(rows).uniform()[0] == RowStreams([5]).begin(rows).uniform()[0]


@pytest.mark.parametrize("axis", ["counter", "seed", "episode"])
def test_uniform_numbers_fill_the_interval(axis: str) -> None:
    if axis == "counter":
        numbers = draws(1).uniform(shape=(200_000,))[0]
    elif axis == "seed":
        numbers = draws(200_000).uniform()
    else:
        streams = RowStreams([3])
        numbers = np.array([streams.begin(np.array([0])).uniform()[0] for _ in range(20_000)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.bincount((numbers * 256).astype(int), minlength=256)
    assert abs(chi_squared(counts, np.full(256, numbers.size / 256))) < 4


def test_pairs_of_neighbours_fill_the_square() -> None:
    table = draws(1000).uniform(shape=(200,))
    for first, second in [
        (table[:, :-1], table[:, 1:]),  # one after the other
        (table[:-1], table[1:]),  # the same draw of the next seed
        (table[:-1, 1:], table[1:, :-1]),  # shifted by one
    ]:
        cells = (first * 16).astype(int) * 16 + (second * 16).astype(int)
        counts = np.bincount(cells.ravel(), minlength=256)
        assert abs(chi_squared(counts, np.full(256, cells.size / 256))) < 4


def test_normal_numbers() -> None:
    numbers = draws(1).normal(2.0, 3.0, shape=(400_000,))[0]
    # Standard errors: 3 / sqrt(4e5) = 0.0047 of the mean, 3 / sqrt(8e5) = 0.0034 of the deviation.
    assert numbers.mean() == pytest.approx(2.0, abs=0.02)
    assert numbers.std() == pytest.approx(3.0, abs=0.014)
    # 0.1587 lie more than one deviation above, 0.00135 more than three; error sqrt(p / n).
    assert (numbers > 5).mean() == pytest.approx(0.15866, abs=0.0025)
    assert (numbers > 11).mean() == pytest.approx(0.00135, abs=0.00025)
    table = draws(2000).normal(shape=(2,))
    assert abs(np.corrcoef(table.T)[0, 1]) < 0.1


def test_integers_and_choices_have_their_frequencies() -> None:
    numbers = draws(1).integers(-2, 5, shape=(70_000,))[0]
    assert abs(chi_squared(np.bincount(numbers + 2, minlength=7), np.full(7, 10_000))) < 4
    rows = draws(100_000)
    chosen = np.bincount(rows.choice([1, 0, 3, 6]), minlength=4)
    assert chosen[1] == 0
    assert abs(chi_squared(chosen[[0, 2, 3]], np.array([10_000, 30_000, 60_000]))) < 4
    by_row = rows.choice(np.eye(4)[np.arange(100_000) % 4])
    assert (by_row == np.arange(100_000) % 4).all()
    assert rows.bernoulli(0.3).mean() == pytest.approx(0.3, abs=0.006)


def test_limits_of_each_row_its_own() -> None:
    numbers = draws(3).uniform(np.array([0.0, 10.0, 20.0]), np.array([1.0, 11.0, 21.0]))
    assert np.floor(numbers).tolist() == [0, 10, 20]


def test_permutations() -> None:
    orders = draws(6000).permutation(3)
    assert (np.sort(orders, axis=1) == [0, 1, 2]).all()
    counts = np.unique(orders @ [9, 3, 1], return_counts=True)[1]
    assert len(counts) == 6
    assert abs(chi_squared(counts, np.full(6, 1000))) < 4
