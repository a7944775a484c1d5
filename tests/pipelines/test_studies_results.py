"""Tables of studies as they are printed."""

from pathlib import Path

import pytest

from rlhf_gym.pipelines.studies.results import StudyReport


def test_a_narrow_table_cuts_no_number_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    report = StudyReport("narrow", [f"column {i}" for i in range(4)])
    numbers = [f"{i}1234567.25" for i in range(1, 5)]
    report.add(*numbers)
    report.publish(tmp_path)
    body = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert ["".join(line[i].strip() for line in body) for i in range(4)] == numbers
