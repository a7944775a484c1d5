"""The study of human preferences: no dialogue on both sides, and numbers worked out by hand."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from rlhf_gym.pipelines.studies.human_preferences import (
    FoldResult,
    pretrain_config,
    publish,
    reward_model_config,
)
from rlhf_gym.pipelines.studies.preference_folds import (
    FOLDS,
    dialogue,
    first_turn,
    is_held_out,
    read_pairs,
    write_fold,
)
from rlhf_gym.pipelines.studies.preference_verdicts import Verdicts, join

real_data = pytest.mark.skipif(
    "RLHF_GYM_DATA" not in os.environ, reason="RLHF_GYM_DATA names no folder of real data"
)


def pair(number, subset="helpful", turns=1):
    prompt = f"\n\nHuman: question {number}\n\nAssistant:" + " yes\n\nHuman: and?\n\nAssistant:" * (
        turns - 1
    )
    sides = {"chosen": " good", "rejected": " bad"}
    return {"prompt": prompt, **sides, "subset": subset, "group": first_turn(prompt)}


def test_five_seeds_hold_every_dialogue_out_once():
    groups = [pair(i)["group"] for i in range(100)]
    for first in (0, FOLDS):
        counts = [sum(is_held_out(g, first + k) for k in range(FOLDS)) for g in groups]
        assert counts == [1] * 100
    assert [is_held_out(g, 0) for g in groups] != [is_held_out(g, FOLDS) for g in groups]


def test_turns_of_a_dialogue_stay_together(tmp_path):
    pairs = [pair(i, turns=turns) for i in range(40) for turns in (1, 2, 3)]
    fold = write_fold(pairs, tmp_path, seed=0)
    train = [json.loads(line) for line in fold.train.read_text().splitlines()]
    held_out = [json.loads(line) for line in fold.held_out.read_text().splitlines()]
    assert len(train) + len(held_out) == 120
    assert held_out == fold.held_out_records
    assert not {p["group"] for p in train} & {p["group"] for p in held_out}
    texts = [json.loads(line)["text"] for line in fold.texts.read_text().splitlines()]
    assert len(texts) == len(train)
    assert all(text.startswith("Human:") and text.endswith(" good") for text in texts)
    assert pretrain_config(fold, 0).output == reward_model_config(fold, 0).model


def test_texts_do_not_say_which_answer_won():
    won, lost = pair(1), pair(1) | {"chosen": " bad", "rejected": " good"}
    assert dialogue(won) == dialogue(lost)
    ending = "\n\nAssistant: bad\n\nAssistant: good"
    assert dialogue(won) == "Human: question 1" + ending


def verdicts(margins, subsets, longer):
    count = len(margins)
    margins = np.array(margins)
    return Verdicts(
        pairs=[pair(i, subset) for i, subset in enumerate(subsets)],
        margins=margins,
        longer=np.array(longer),
        scores=np.stack([margins, np.zeros(count)], -1),
        lengths=np.stack([np.array(longer) * 4, np.full(count, 2.0)], -1),
    )


def test_accuracy_by_subset_and_ties_count_half():
    found = verdicts([1.0, -1.0, 0.0, 2.0], ["a", "a", "b", "b"], [1, 0, 0.5, 1])
    # a: right and wrong; b: undecided and right
    assert found.accuracy(found.right, "a").value == 0.5
    assert found.accuracy(found.right, "b").value == 0.75
    assert found.accuracy(found.right).value == 0.625
    # sigmoid(log 3) = 3/4
    assert verdicts([math.log(3)], ["a"], [1]).probabilities == pytest.approx([0.75])
    # margins and lengths are in the same order
    assert found.length_correlation > 0.9


def test_verdicts_survive_a_file():
    found = verdicts([1.0, -1.0], ["a", "b"], [1, 0.5])
    again = Verdicts.of(found.pairs, json.loads(json.dumps(found.numbers())))
    assert again.pairs == found.pairs
    for name in ("margins", "longer", "scores", "lengths"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


def test_report(tmp_path, capsys):
    parts = [verdicts([1.0, -1.0], ["a", "b"], [1, 1]), verdicts([1.0, 1.0], ["a", "b"], [0, 1])]
    # the baseline decides the first pair of each right, the second wrong or not at all
    words = [np.array([0.2, -0.1]), np.array([0.3, 0.0])]
    results = [FoldResult(p, w, 40.0, 1.0) for p, w in zip(parts, words, strict=True)]
    assert len(join(parts).pairs) == 4
    publish(results, tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["accuracy_by_seed"] == [0.5, 1.0]
    assert written["subsets"]["all"]["accuracy"]["value"] == 0.75
    assert written["subsets"]["a"]["single_words"]["value"] == 1.0
    assert written["single_words_by_seed"] == [0.5, 0.75]
    assert written["subsets"]["b"]["longer_wins"]["value"] == 1.0
    # three right with log-odds 1, one wrong: log(1 + e^-1) = .31326, log(1 + e) = 1.31326
    assert written["loss"] == pytest.approx((3 * 0.31326 + 1.31326) / 4, abs=1e-4)
    assert "| all | 4 | 0.750" in (tmp_path / "report.md").read_text()
    assert "written to" in capsys.readouterr().out


@real_data
def test_the_real_pairs_are_parted(tmp_path):
    pairs = read_pairs(Path(os.environ["RLHF_GYM_DATA"]))
    assert len(pairs) == 6861
    fold = write_fold(pairs, tmp_path, seed=0)
    assert 0.17 < len(fold.held_out_records) / len(pairs) < 0.23
