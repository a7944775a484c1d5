"""The study of rounds: what its report makes of finished loops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_gym.pipelines.studies.loop import AT_ONCE, DISPUTED, UNIFORM, Cell, publish


def finished(*gold: float, reference: float = 0.0) -> Cell:
    """A loop whose rounds came to this gold."""
    rounds = len(gold)
    return {"gold": gold, "reference": [reference] * rounds, "kl": [1.0] * rounds, "seconds": 2.0}


def test_report_pairs_seeds_and_counts_the_first_rise_from_the_reference(tmp_path: Path) -> None:
    cells = {
        DISPUTED.name: [finished(0.2, 0.3, 0.6, reference=0.1), finished(0.1, 0.4, 0.3)],
        UNIFORM.name: [finished(0.2, 0.3, 0.5), finished(0.1, 0.2, 0.4)],
        AT_ONCE.name: [finished(0.4), finished(0.4)],
    }
    publish(cells, tmp_path)
    raw = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    # 0.6 - 0.4 and 0.3 - 0.4; 0.5 - 0.4 and 0.4 - 0.4; 0.6 - 0.5 and 0.3 - 0.4.
    expected = ([0.2, -0.1], [0.1, 0.0], [0.1, -0.1])
    for found, values in zip(raw["differences"].values(), expected, strict=True):
        assert found == pytest.approx(values)
    # Seed by seed: 0.2 - 0.1 and 0.1 - 0; 0.3 - 0.2 and 0.4 - 0.1; 0.6 - 0.3 and 0.3 - 0.4.
    rises = raw["rises"][DISPUTED.name]
    assert [pytest.approx(one) for one in ([0.1, 0.1], [0.1, 0.3], [0.3, -0.1])] == rises
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    # The mean of 0.2 and -0.1; two seeds' bootstrap runs from one to the other.
    assert "over labels at the start, paired by seed: 0.050 [-0.100, 0.200]" in text
    assert "2 seeds" in text
