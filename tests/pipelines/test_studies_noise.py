"""Studies of wrong labels and of rounds: what is spoilt, what is recovered, what is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf_gym.core.data import read_records
from rlhf_gym.envs.sentiment.oracle import sentiment
from rlhf_gym.pipelines.studies import loop, noise


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


def test_the_report_of_rounds(tmp_path: Path) -> None:
    def cell(rounds: int, gold: float) -> dict[str, Any]:
        by_round = [gold * (n + 1) for n in range(rounds)]
        return {"gold": by_round, "reference": [0.0] * rounds, "kl": by_round, "seconds": 1.0}

    cells = {
        loop.DISPUTED.name: [cell(3, 0.2), cell(3, 0.1)],
        loop.UNIFORM.name: [cell(3, 0.1), cell(3, 0.1)],
        loop.AT_ONCE.name: [cell(1, 0.25), cell(1, 0.15)],
    }
    loop.publish(cells, tmp_path)
    page = (tmp_path / "report.md").read_text()
    # 0.6 - 0.25 and 0.3 - 0.15; 0.6 - 0.3 and 0.3 - 0.3
    assert "disagreement in rounds over labels at the start, paired by seed: 0.250" in page
    assert "disagreement over uniform, paired by seed: 0.150" in page


def test_all_ways_cost_the_same_labels(tmp_path: Path) -> None:
    configs = [loop.loop_config(way, tmp_path, tmp_path, 0) for way in loop.WAYS]
    assert {config.labels * config.rounds for config in configs} == {loop.LABELS * loop.ROUNDS}
