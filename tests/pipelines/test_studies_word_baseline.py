"""The baseline of single words: it learns words, length and nothing from what both sides share."""

import numpy as np
import pytest

from rlhf_gym.pipelines.studies.word_baseline import word_margins


def pair(chosen, rejected):
    return {"prompt": "?", "chosen": chosen, "rejected": rejected}


def test_a_word_that_wins_is_learned():
    train = [pair("yes x", "no x"), pair("Yes, y", "no, y"), pair("z yes", "z no")] * 4
    margins = word_margins(train, [pair("yes", "no"), pair("no", "yes"), pair("yes", "yes")])
    assert margins[0] > 0.5
    assert margins[1] == pytest.approx(-margins[0])
    assert margins[2] == 0.0


def test_a_rare_word_says_nothing():
    train = [pair("good one", "bad one")] * 3 + [pair("rare", "one")] * 2
    margins = word_margins(train, [pair("rare", "one"), pair("rare", "two"), pair("good", "bad")])
    # "one" is on one side only in 2 pairs, "rare" in 2: fewer than the 3 that make a word count
    assert margins[:2].tolist() == [0.0, 0.0]
    assert margins[2] > 0


def test_length_counts_in_ratio():
    train = [pair("a b c d e f g", "a b c d e f g a a a a a a a")] * 10
    margins = word_margins(train, [pair("a", "a a a"), pair("a a a", "a a a a a a a")])
    # (1 + 1) / (1 + 3) = (1 + 3) / (1 + 7)
    assert margins[0] == pytest.approx(margins[1], rel=1e-5)
    assert margins[0] > 0.1


def test_the_rest_of_the_pairs_does_not_matter():
    train = [pair("yes", "no"), pair("maybe", "no way")] * 5
    alone = word_margins(train, [pair("yes", "no way")])
    among = word_margins(train, [pair("x", "y"), pair("yes", "no way")])
    np.testing.assert_allclose(among[1], alone[0], rtol=1e-6)
