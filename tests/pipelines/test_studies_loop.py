"""The study of rounds: its cells, and what its report makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.pipelines.studies import StudyConfig, loop, loop_control, loop_text
from rlhf_gym.pipelines.studies.loop_ways import AT_ONCE, DISPUTED, ROUNDS, UNIFORM, WAYS

TASK = loop.Task("Made-up-v0", loop_text.cell, 8, "Made up.")


def finished(*gold: float, reference: float = 0.0) -> loop.Cell:
    """A loop whose rounds came to this gold."""
    rounds = len(gold)
    return {"gold": gold, "reference": [reference] * rounds, "kl": [1.0] * rounds, "seconds": 2.0}


def test_report_pairs_seeds_and_counts_the_first_rise_from_before(tmp_path: Path) -> None:
    cells = {
        DISPUTED.name: [finished(0.2, 0.3, 0.6, reference=0.1), finished(0.1, 0.4, 0.3)],
        UNIFORM.name: [finished(0.2, 0.3, 0.5), finished(0.1, 0.2, 0.4)],
        AT_ONCE.name: [finished(0.4), finished(0.4)],
    }
    loop.publish(TASK, cells, tmp_path, [10, 11])
    raw = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    # 0.6 - 0.4 and 0.3 - 0.4; 0.5 - 0.4 and 0.4 - 0.4; 0.6 - 0.5 and 0.3 - 0.4.
    expected = ([0.2, -0.1], [0.1, 0.0], [0.1, -0.1])
    for found, values in zip(raw["differences"].values(), expected, strict=True):
        assert found == pytest.approx(values)
    # Seed by seed: 0.2 - 0.1 and 0.1 - 0; 0.3 - 0.2 and 0.4 - 0.1; 0.6 - 0.3 and 0.3 - 0.4.
    rises = raw["rises"][DISPUTED.name]
    assert [pytest.approx(one) for one in ([0.1, 0.1], [0.1, 0.3], [0.3, -0.1])] == rises
    assert raw["stopped"] == {}  # there was one round of them
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    # The mean of 0.2 and -0.1; two seeds' bootstrap runs from one to the other.
    assert "over labels at the start, paired by seed: 0.050 [-0.100, 0.200]" in text
    assert "Seeds 10, 11" in text
    # 8, 16 and 24 labels in rounds, all 24 of them at the start.
    asked = [line.split(" | ")[2] for line in text.splitlines()[4:11]]
    assert asked == ["8", "16", "24", "8", "16", "24", "24"]


def test_where_there_is_no_reference_to_be_near_no_kl_is_told(tmp_path: Path) -> None:
    cells = {way.name: [{**finished(1.0, 2.0, 3.0), "kl": []}] for way in WAYS}
    loop.publish(TASK, cells, tmp_path, [0])
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    # An agent that learns throughout has three thirds, also with all its labels at the start.
    assert "| at the start | 3 | 24 | 3.000 (one seed) | 0.000 (one seed) |  |" in text


def test_labels_at_the_start_might_have_stopped_earlier(tmp_path: Path) -> None:
    cells = {
        DISPUTED.name: [finished(0.1, 0.2, 0.5), finished(0.1, 0.2, 0.7)],
        UNIFORM.name: [finished(0.1, 0.2, 0.3), finished(0.1, 0.2, 0.4)],
        AT_ONCE.name: [finished(0.4, 0.3, 0.0), finished(0.2, 0.4, 0.1)],
    }
    loop.publish(TASK, cells, tmp_path, [10, 11])
    stopped = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["stopped"]
    # 0.5 - 0.4 and 0.7 - 0.2 after the first, 0.5 - 0.3 and 0.7 - 0.4 after the second.
    assert stopped[DISPUTED.name] == [pytest.approx([0.1, 0.5]), pytest.approx([0.2, 0.3])]
    assert stopped[UNIFORM.name] == [pytest.approx([-0.1, 0.2]), pytest.approx([0.0, 0.0])]
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "rounds, disagreement, over labels at the start stopped before the end: round 1" in text


def test_all_ways_cost_the_same_labels(tmp_path: Path) -> None:
    texts = [loop_text.loop_config(way, tmp_path, 0) for way in WAYS]
    asked = {config.labels * (config.asking or config.rounds) for config in texts}
    assert asked == {loop_text.LABELS * ROUNDS}
    assert {config.rounds for config in texts} == {ROUNDS}  # and the same work
    schedules = [loop_control.teaching(way).schedule for way in WAYS]
    assert {schedule.due(1.0) for schedule in schedules} == {loop_control.LABELS * ROUNDS}
    # Labels that are due before training, and when one and two thirds of it are over.
    due = [[schedule.due(n / 3 + 1e-9) for n in range(3)] for schedule in schedules]
    assert due == [[100, 200, 300], [100, 200, 300], [300, 300, 300]]


@pytest.mark.parametrize("way", [DISPUTED, AT_ONCE])
def test_a_robot_is_taught_in_thirds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: loop.Way
) -> None:
    monkeypatch.setattr(loop_control, "TASK", replace(loop_control.TASK, timesteps=3 * 64, rows=2))
    monkeypatch.setattr(loop_control, "LABELS", 4)
    monkeypatch.setattr(loop_control, "EPISODES", 2)
    settings = {"n_steps": 32, "batch_size": 32, "n_epochs": 1}
    found = loop_control.train(loop_control.teaching(way), settings, seed=100)
    assert found["labels"] == 12
    assert len(found["gold"]) == len(found["reference"]) == ROUNDS


def test_a_loop_is_run_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loop_text, "LABELS", 4)
    monkeypatch.setattr(loop_text, "TOKENS", 300)
    monkeypatch.setattr(loop_text, "EPISODES", 8)
    found = loop_text.cell(AT_ONCE, tmp_path, seed=100)
    assert [len(found[what]) for what in ("gold", "reference", "kl")] == [ROUNDS] * 3
    assert found["labels"] == 12
    assert loop_text.cell(AT_ONCE, tmp_path, seed=100) == found


def test_ways_of_rounds_share_their_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"LABELS": 4, "TOKENS": 100, "EPISODES": 4}.items():
        monkeypatch.setattr(loop_text, name, value)
    disputed, uniform = (loop_text.cell(way, tmp_path, seed=100) for way in (DISPUTED, UNIFORM))
    assert disputed["gold"][0] == uniform["gold"][0]
    assert disputed["labels"] == uniform["labels"] == 12
    asked = [
        json.loads((tmp_path / "seed-100" / way.slug / "round-3/queries.json").read_text())
        for way in (DISPUTED, UNIFORM)
    ]
    assert [len(one["queries"]) for one in asked] == [4, 4]


def test_only_tasks_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="sentiment, pizza"):
        loop.run(StudyConfig("loop", tasks=("chess",), output=tmp_path))
