"""Accuracy intervals, calibration and correlations against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlhf_gym.core.calibration import (
    accuracy_interval,
    concordance,
    expected_calibration_error,
    length_correlation,
    mean_interval,
    pearson,
    reliability,
    spearman,
    wilson_interval,
)
from rlhf_gym.core.errors import InvalidArgument


def test_wilson_interval_of_eight_in_ten() -> None:
    # z^2 = 3.841459; shrink = 1.3841459; centre = (.8 + .19207) / 1.3841459 = .716740
    # half = 1.959964 / 1.3841459 * sqrt(.016 + .00960365) = 1.416010 * .160011 = .226577
    value, low, high = wilson_interval(0.8, 10)
    assert value == 0.8
    assert low == pytest.approx(0.490162, abs=1e-6)
    assert high == pytest.approx(0.943318, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_wilson_interval_keeps_doubt_at_the_ends(share: float) -> None:
    _, low, high = wilson_interval(share, 30)
    assert 0.0 <= low <= share <= high <= 1.0
    assert high - low > 0.1


def test_wilson_interval_without_trials_is_open() -> None:
    value, low, high = wilson_interval(math.nan, 0)
    assert math.isnan(value)
    assert (low, high) == (0.0, 1.0)


def test_mean_interval() -> None:
    # mean 2, deviation 1, half = 1.959964 / sqrt(3) = 1.131586
    assert mean_interval([1, 2, 3]) == pytest.approx((2.0, 0.868414, 3.131586), abs=1e-6)
    assert mean_interval([4.0]) == (4.0, -math.inf, math.inf)


def test_accuracy_interval_counts_prompts_that_agree_within_themselves_once() -> None:
    # p = .5; as if independent: .25 / 4 = .0625; between the prompts: 2 * (1 + 1) / 16 = .25.
    # The design effect is 4, so four comparisons are worth one.
    assert accuracy_interval([1, 1, 0, 0], ["a", "a", "b", "b"]) == wilson_interval(0.5, 1)


def test_accuracy_interval_of_independent_comparisons_is_wilsons() -> None:
    correct = np.tile([1, 1, 0, 1], 25)
    interval = accuracy_interval(correct, np.arange(100))
    # One comparison a prompt: the design effect is G / (G - 1), that is one comparison less.
    assert interval == pytest.approx(wilson_interval(0.75, 99), abs=1e-12)


def test_accuracy_interval_never_claims_more_trials_than_comparisons() -> None:
    assert accuracy_interval([1, 0, 1, 0], ["a", "a", "b", "b"]) == wilson_interval(0.5, 4)


def test_accuracy_interval_of_nothing() -> None:
    assert math.isnan(accuracy_interval([], []).value)


def test_calibration_error_by_hand() -> None:
    # Confidences .9 right, .6 wrong, .7 right, .8 right; two bands, (.5, .75) and (.75, 1):
    # .5 |.5 - .65| + .5 |1 - .85| = .15
    probabilities, outcomes = [0.9, 0.6, 0.3, 0.8], [1, 0, 0, 1]
    low, high = reliability(probabilities, outcomes, bins=2)
    assert low == pytest.approx((0.65, 0.5, 2))
    assert high == pytest.approx((0.85, 1.0, 2))
    assert expected_calibration_error(probabilities, outcomes, bins=2) == pytest.approx(0.15)


def test_calibration_does_not_depend_on_which_side_is_named_first() -> None:
    rng = np.random.default_rng(0)
    p, happened = rng.random(200), rng.integers(0, 2, 200)
    swapped = expected_calibration_error(1 - p, 1 - happened)
    assert swapped == pytest.approx(expected_calibration_error(p, happened))


def test_calibration_of_perfect_and_of_ignorant_predictions() -> None:
    assert expected_calibration_error([1.0, 0.0], [1, 0]) == 0.0
    assert expected_calibration_error([0.5, 0.5], [1, 1]) == 0.0
    assert math.isnan(expected_calibration_error([], []))


def test_reliability_refuses_no_band() -> None:
    with pytest.raises(InvalidArgument, match="bins=0"):
        reliability([0.5], [1], bins=0)


def test_spearman_shares_ranks_among_ties() -> None:
    # ranks 0, 1.5, 1.5, 3 and 0, 2, 1, 3: 4.5 / sqrt(4.5 * 5) = .948683
    assert spearman([1, 2, 2, 4], [1, 3, 2, 4]) == pytest.approx(0.948683, abs=1e-6)


def test_length_correlation_sees_any_monotone_pull() -> None:
    lengths = np.array([3, 9, 5, 40])
    assert length_correlation(np.exp(lengths / 10), lengths) == pytest.approx(1.0)
    assert length_correlation(-lengths, lengths) == pytest.approx(-1.0)
    assert math.isnan(length_correlation([1.0, 1.0], [1, 2]))


def test_pearson_by_hand() -> None:
    # deviations -1, 0, 1 and -1, -1, 2 (of 1, 1, 4): 3 / sqrt(2 * 6) = .866025
    assert pearson([1, 2, 3], [1, 1, 4]) == pytest.approx(0.866025, abs=1e-6)
    assert math.isnan(pearson([1.0], [1.0]))


def test_concordance_counts_ties_half() -> None:
    # Five pairs differ in rating; the last against the second has equal scores: 4.5 / 5
    assert concordance([1, 3, 2, 3], [1, 2, 2, 3]) == pytest.approx(0.9)
    assert concordance([3, 2, 1], [1, 2, 3]) == 0.0
    assert math.isnan(concordance([1, 2], [5, 5]))


def test_concordance_equals_counting_every_pair() -> None:
    rng = np.random.default_rng(1)
    scores, ratings = rng.integers(0, 6, 60), rng.integers(0, 4, 60)
    agree = [
        (np.sign(scores[i] - scores[j]) * np.sign(ratings[i] - ratings[j]) + 1) / 2
        for i in range(60)
        for j in range(i)
        if ratings[i] != ratings[j]
    ]
    assert concordance(scores, ratings) == pytest.approx(float(np.mean(agree)))
