"""Agreement between raters, against published examples."""

import math

import numpy as np
import pytest

from rlhf_gym.core.agreement import cohen_kappa, krippendorff_alpha
from rlhf_gym.core.errors import InvalidArgument

NONE = math.nan
# Krippendorff (2011), section C: four observers, twelve units, answers missing.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
        [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
    ]
).T


@pytest.mark.parametrize(
    ("scale", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_is_the_published_one(scale, published):
    assert krippendorff_alpha(PUBLISHED, scale) == pytest.approx(published, abs=5e-4)


def test_alpha_does_not_know_who_is_who():
    rng = np.random.default_rng(0)
    shuffled = rng.permuted(PUBLISHED, axis=1)
    assert krippendorff_alpha(shuffled) == pytest.approx(krippendorff_alpha(PUBLISHED))


def test_alpha_at_its_ends():
    same = np.array([[0, 0], [1, 1], [0, 0], [1, 1]])
    assert krippendorff_alpha(same) == 1.0
    assert krippendorff_alpha(np.zeros((3, 2))) == 1.0
    # Two values, always opposed. Pairs: 0-1 four times, 1-0 four times; totals 4 and 4 of 8;
    # observed 8, expected (4 * 4 + 4 * 4) / 7 = 32 / 7, alpha = 1 - 8 * 7 / 32 = -0.75.
    opposed = np.array([[0, 1], [1, 0], [0, 1], [1, 0]])
    assert krippendorff_alpha(opposed) == pytest.approx(-0.75)
    assert math.isnan(krippendorff_alpha(np.array([[1.0, NONE], [NONE, 2.0]])))
    chance = np.random.default_rng(0).integers(0, 2, (20_000, 3))
    assert abs(krippendorff_alpha(chance)) < 0.02


def test_kappa_by_hand():
    # 50 queries: both yes 20, yes-no 5, no-yes 10, both no 15. Observed 35 / 50 = 0.7;
    # expected 0.5 * 0.6 + 0.5 * 0.4 = 0.5; kappa = 0.2 / 0.5 = 0.4.
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15]).astype(float)
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15]).astype(float)
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    missing = np.append(first, [1.0, NONE]), np.append(second, [NONE, 0.0])
    assert cohen_kappa(*missing) == pytest.approx(0.4)
    assert cohen_kappa(first, first) == 1.0
    assert cohen_kappa(np.ones(3), np.ones(3)) == 1.0
    assert math.isnan(cohen_kappa([NONE, 1.0], [1.0, NONE]))


def test_bad_input():
    with pytest.raises(InvalidArgument, match="not a table"):
        krippendorff_alpha([1, 2, 3])
    with pytest.raises(InvalidArgument, match="no such scale"):
        krippendorff_alpha(PUBLISHED, "ratio")
    with pytest.raises(InvalidArgument, match="same queries"):
        cohen_kappa([1, 2], [1, 2, 3])
