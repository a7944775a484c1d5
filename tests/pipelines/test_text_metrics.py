"""Metrics of generated text against numbers counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.pipelines.text_metrics import (
    distinct_n,
    duplicates,
    finish_shares,
    ngrams,
    repetition,
    win_rate,
)


def test_ngrams() -> None:
    assert ngrams([1, 2, 3], 2) == [(1, 2), (2, 3)]
    assert ngrams([1], 2) == []
    with pytest.raises(InvalidArgument, match="n=0"):
        ngrams([1], 0)


def test_distinct_n_counts_over_all_responses() -> None:
    # bigrams ab ba ab | ab: 2 of 4; single tokens: 2 of 6
    responses = [["a", "b", "a", "b"], ["a", "b"]]
    assert distinct_n(responses, 2) == 0.5
    assert distinct_n(responses, 1) == pytest.approx(1 / 3)
    assert math.isnan(distinct_n([["a"]], 2))


def test_repetition_is_within_a_response() -> None:
    # ab ba ab: one of three repeats; ab: none; the third has no bigram and does not count
    assert repetition([["a", "b", "a", "b"], ["a", "b"], ["a"]], 2) == pytest.approx(1 / 6)
    assert repetition([list("abcd"), list("abcd")], 2) == 0.0
    assert math.isnan(repetition([["a"]], 2))


def test_duplicates() -> None:
    assert duplicates([[1, 2], [1, 2], [3], [1, 2]]) == 0.5
    assert math.isnan(duplicates([]))


def test_finish_shares() -> None:
    assert finish_shares(["stop", "length", "stop", "stop"]) == {"length": 0.25, "stop": 0.75}
    assert finish_shares([]) == {}


def test_win_rate_by_hand() -> None:
    # 1, 1/2, 0, 1: mean .625, deviation sqrt(.6875 / 3) = .478714, half 1.959964 * .478714 / 2
    assert win_rate([1, 2, 3, 4], [0, 2, 4, 1]) == pytest.approx((0.625, 0.155867, 1.0), abs=1e-5)


def test_win_rate_of_several_samples_compares_all_with_all() -> None:
    # prompt 1: (1 > 0, 1 < 2, 3 > 0, 3 > 2) = 3/4; prompt 2: all lose
    assert win_rate([[1, 3], [0, 0]], [[0, 2], [5, 5]]).value == pytest.approx(0.375)


def test_win_rate_against_itself_is_one_half() -> None:
    scores = np.random.default_rng(0).normal(size=(20, 3))
    assert win_rate(scores, scores).value == pytest.approx(0.5)


def test_win_rate_refuses_other_prompts() -> None:
    with pytest.raises(InvalidArgument, match="same prompts"):
        win_rate([1, 2], [1, 2, 3])
