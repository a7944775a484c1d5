"""The tables about a reward model, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlhf_gym.core.supervised.preference_data import Example, Judgement
from rlhf_gym.core.supervised.reward_evaluation import Decisions
from rlhf_gym.core.supervised.reward_report import (
    RewardReport,
    Wording,
    by_size,
    wording_sensitivity,
)


def decided(*margins: float) -> Decisions:
    count = len(margins)
    return Decisions(
        np.array(margins), np.zeros(count), [str(i) for i in range(count)], np.arange(count)
    )


def test_bands_hold_as_many_decisions_each() -> None:
    found = decided(-0.1, 0.2, 0.3, -0.4, 0.5, 0.6, 0.7, 0.8)
    rows = by_size(found, np.abs(found.margins), bands=2)
    assert [row.size for row in rows] == [4, 4]
    assert [row.accuracy.value for row in rows] == [0.5, 1.0]
    assert rows[0].of == "0.10 to 0.40"


def test_what_is_not_known_is_left_out() -> None:
    found = decided(1.0, -1.0, 1.0)
    rows = by_size(found, np.array([math.nan, 1.0, 1.0]), bands=4)
    assert [row.size for row in rows] == [2]
    assert by_size(found, np.full(3, math.nan)) == []


def test_noise_dampens_probabilities() -> None:
    # sigmoid(0) = .5 whatever the noise; sigmoid(100) = 1 becomes .8 + .1
    found = decided(100.0)
    noisy = Decisions(
        *[found.margins, found.longer, found.groups, found.judgements], np.array([0.2])
    )
    assert found.calibration_error == pytest.approx(0.0)
    assert noisy.calibration_error == pytest.approx(0.1)


def test_wording_by_hand() -> None:
    judged = [
        Judgement("comparison", prompt, ("a", "b"), meaning="same") for prompt in ("p", "q")
    ] + [Judgement("comparison", "r", ("a", "b"))]
    examples = [Example(j, ([1], [1]), (1, 1)) for j in judged]
    # a: 1 and 3, b: 2 and 2. Moved by 1, 1, 0, 0: root mean square .7071; so deviates 1 2 3 2.
    found = wording_sensitivity(np.array([1.0, 2.0, 3.0, 2.0, 9.0, 9.0]), examples)
    assert found.meanings == 1
    assert found.spread == pytest.approx(1.0)
    assert found.flips == 1.0  # a loses in one wording and wins in the other


def test_without_paraphrases_nothing_is_claimed() -> None:
    example = Example(Judgement("comparison", "r", ("a", "b")), ([1], [1]), (1, 1))
    found = wording_sensitivity(np.array([1.0, 2.0]), [example])
    assert found.meanings == 0
    assert math.isnan(found.spread)


def test_the_page_names_all_tables() -> None:
    page = RewardReport(noise={"anna": 0.25}, wording=Wording(3, 0.5, 0.125)).markdown()
    assert "| anna | 0.250 |" in page
    assert "3 groups of paraphrases" in page
    assert "12.5%" in page
