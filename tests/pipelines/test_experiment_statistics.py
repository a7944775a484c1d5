"""Numbers over seeds against hand-worked ones."""

import numpy as np
import pytest

from rlhf_gym.pipelines.experiments.statistics import (
    compare_pairs,
    holm,
    interquartile_mean,
    metrics,
    probability_of_improvement,
)


def test_the_interquartile_mean_leaves_out_a_quarter_on_both_sides():
    # of five, one at each end: (2 + 3 + 4) / 3
    assert interquartile_mean([100, 2, 3, 4, -50]).value == 3
    # of eight, two at each end: (3 + 4 + 5 + 6) / 4
    assert interquartile_mean([1, 2, 3, 4, 5, 6, 7, 99]).value == 4.5


def test_its_interval_holds_what_resampling_gives():
    assert interquartile_mean([2.0, 2.0, 2.0]) == (2, 2, 2)
    value, low, high = interquartile_mean([0.0, 0.0, 1.0, 1.0])
    # of four, the middle two count: (0 + 1) / 2. All four draws are 0 with probability 1/16, which
    # is more than 2.5 %, so the interval is all there is
    assert (value, low, high) == (0.5, 0, 1)
    assert interquartile_mean([0.3]) == (0.3, 0.3, 0.3)


def test_the_probability_of_improvement_counts_pairs():
    # 1 > 0; 2 > 0, 2 = 2; 3 > 0, 3 > 2: four and a half of nine
    estimate = probability_of_improvement([1, 2, 3], [0, 2, 4])
    assert estimate.value == pytest.approx(4.5 / 9)
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1
    assert probability_of_improvement([5, 6, 7], [1, 2]) == (1, 1, 1)


def test_it_is_that_of_rliable():
    rng = np.random.default_rng(0)
    for count in (2, 3, 5):
        x, y = rng.integers(4, size=(count, 1)), rng.integers(4, size=(4, 1))
        expected = metrics.probability_of_improvement(x, y)
        assert probability_of_improvement(x[:, 0], y[:, 0]).value == pytest.approx(expected)


def test_the_same_numbers_each_time_and_the_global_generator_as_it_was():
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    first = interquartile_mean([0.1, 0.5, 0.2, 0.9])
    assert np.random.random() == expected  # noqa: NPY002
    assert interquartile_mean([0.1, 0.5, 0.2, 0.9]) == first


def test_holm_by_hand():
    # 3 * .01; 2 * .02 = .04; 1 * .03 = .03, but no less than the one before: .04
    assert holm([0.01, 0.02, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([]) == []


def test_welch_by_hand():
    # means 3 and 6; variances 2.5 and 2.5, five each: t = 3 / sqrt(0.5 + 0.5) = 3, with 8 degrees
    # of freedom: p = 0.0171 (a table of Student's t: 0.01 to 0.02)
    [pair] = compare_pairs({"low": [1, 2, 3, 4, 5], "high": [4, 5, 6, 7, 8]})
    assert (pair.better, pair.worse, pair.difference) == ("high", "low", 3)
    assert pair.p == pytest.approx(0.0171, abs=1e-4)
    assert pair.differ


def test_many_pairs_are_corrected_for():
    values = {"a": [1, 2, 3, 4, 5], "b": [4, 5, 6, 7, 8], "c": [1, 2, 3, 4, 6], "one": [9]}
    pairs = compare_pairs(values)
    assert len(pairs) == 3  # one seed is no comparison
    assert (pairs[0].better, pairs[0].worse) == ("b", "a")
    assert pairs[0].corrected == pytest.approx(3 * pairs[0].p)
    assert not pairs[0].differ  # 3 * 0.0171 is above 5 %


def test_runs_without_any_variance():
    pairs = compare_pairs({"a": [1, 1], "b": [1, 1], "c": [2, 2]})
    assert [(pair.differ, pair.p) for pair in pairs] == [(True, 0), (True, 0), (False, 1)]
