"""The study of wrong labels: what is spoilt, what is recovered, on which seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_gym.core.data import read_records
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.sentiment.oracle import sentiment
from rlhf_gym.pipelines.studies import StudyConfig, noise


def test_labels_are_spoilt_as_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "TRAIN", 200)
    monkeypatch.setattr(noise, "HELD_OUT", 50)
    noise.write_labels(tmp_path, seed=100)
    right, turned, crowd = (
        read_records(tmp_path / f"{name}.jsonl") for name in ("right", "turned", "raters")
    )
    assert all(sentiment(pair["chosen"]) > sentiment(pair["rejected"]) for pair in right)
    wrong = [a["chosen"] == b["rejected"] for a, b in zip(right, turned, strict=True)]
    assert 0.2 < sum(wrong) / 200 < 0.4
    for pair, truth in zip(crowd, right, strict=True):
        assert pair["rater"] == "coin" or pair["chosen"] == truth["chosen"]
    train = {(pair["chosen"], pair["rejected"]) for pair in right}
    held_out = read_records(tmp_path / "held-out.jsonl")
    assert not train & {(pair["chosen"], pair["rejected"]) for pair in held_out}


def test_gains_and_shares_by_hand() -> None:
    cells = {
        noise.RIGHT: [{"loss": 0.1}, {"loss": 0.1}],
        noise.CROWD: [{"loss": 0.5}, {"loss": 0.3}],
        noise.BY_RATER: [{"loss": 0.2}, {"loss": 0.1}],
    }
    # less loss is a gain: 0.3 and 0.2
    assert noise.gain(cells[noise.BY_RATER], cells[noise.CROWD], "loss").mean == pytest.approx(0.25)
    # (0.5 + 0.3 - 0.2 - 0.1) / (0.5 + 0.3 - 0.1 - 0.1)
    assert noise.share_recovered(cells, "loss").mean == pytest.approx(5 / 6)


def test_fresh_seeds_are_those_that_were_asked_for() -> None:
    assert list(StudyConfig("noise", seeds=3, first_seed=10).seed_numbers) == [10, 11, 12]
    with pytest.raises(InvalidArgument, match="first_seed"):
        StudyConfig("noise", first_seed=-1)
