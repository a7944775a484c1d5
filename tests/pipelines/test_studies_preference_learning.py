from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.pipelines.studies import StudyConfig
from rlhf_gym.pipelines.studies import preference_learning as study
from rlhf_gym.pipelines.studies.preference_learning_cells import (
    AUTOMATED,
    GOLD,
    PAYS,
    STUDIED,
    TEACHERS,
    Pay,
    cell,
    teaching,
)

PIZZA = replace(STUDIED["pizza"], timesteps=64, rows=2)
GO = replace(STUDIED["go"], timesteps=64, rows=2)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cells that are made up, and a note of which were asked for."""
    asked: list[str] = []

    def made_up(task: object, pay: Pay, seed: int, kept_agent: Path | None) -> dict[str, object]:
        asked.append(f"{pay.name}-{seed}")
        gold = {"automated": -2.0, "gold": 8.0}.get(pay.name, 4.0) + seed
        return {
            "gold": gold, "automated": 1.0, "seconds": 3.0, "wins": {}, "held_out_accuracy": None
        }  # fmt: skip

    monkeypatch.setattr(study, "cell", made_up)
    return asked


def test_a_row_for_each_pay_and_what_is_there_is_not_run_again(
    tiny: list[str], tmp_path: Path
) -> None:
    config = StudyConfig("preferences", seeds=2, tasks=("pizza",), output=tmp_path)
    study.run(config)
    assert len(tiny) == 2 * len(PAYS)
    folder = tmp_path / "preferences"
    lines = (folder / "report.md").read_text().splitlines()
    # Gold over two seeds is (8 + 9) / 2 = 8.5, 700 comparisons (4 + 5) / 2 = 4.5: 0.53 of it.
    (row,) = [line for line in lines if "700 comparisons" in line]
    assert "4.500 [4.000, 5.000]" in row
    # 4 / 9 = 0.44 and 5 / 8 = 0.62 at the ends of what can be drawn.
    assert "| 0.53 [0.44, 0.62] |" in row
    assert (folder / "returns.png").stat().st_size > 1000
    study.run(replace(config, seeds=3))
    assert len(tiny) == 3 * len(PAYS)


def test_fresh_seeds_and_the_agent_of_the_first_is_kept(
    monkeypatch: pytest.MonkeyPatch, tiny: list[str], tmp_path: Path
) -> None:
    made_up, kept = study.cell, []

    def noted(task: object, pay: Pay, seed: int, kept_agent: Path | None) -> dict[str, object]:
        if kept_agent is not None:
            kept.append((pay.name, seed, kept_agent.name))
        return made_up(task, pay, seed, kept_agent)  # type: ignore[arg-type]

    monkeypatch.setattr(study, "cell", noted)
    fresh = StudyConfig("preferences", seeds=2, first_seed=10, tasks=("pizza",), output=tmp_path)
    study.run(fresh)
    assert set(tiny) == {f"{pay.name}-{seed}" for pay in PAYS for seed in (10, 11)}
    assert kept == [("700 comparisons", 10, "pizza.zip")]
    # Gold of seeds 10 and 11 is (18 + 19) / 2 = 18.5; nothing of other seeds is in the table.
    assert "18.500 [18.000, 19.000]" in (tmp_path / "preferences" / "report.md").read_text()


def test_teachers_share_the_oracles_cells(tiny: list[str], tmp_path: Path) -> None:
    study.run(StudyConfig("preferences", seeds=1, tasks=(study.TEACHERS_TASK,), output=tmp_path))
    study.run(StudyConfig("preferences", seeds=1, teachers=True, output=tmp_path))
    assert len(tiny) == len(PAYS) + len(TEACHERS) - 1
    report = (tmp_path / "preferences" / "teachers" / "report.md").read_text()
    head, _, *rows = [line.split("|") for line in report.splitlines() if line.startswith("|")]
    column = head.index(" of the oracle's ")
    # All cells are made alike, 4 + 0.
    assert [row[column].strip() for row in rows] == ["", *["1.00"] * (len(TEACHERS) - 1)]


def test_an_interrupted_study_reports_what_is_finished(
    monkeypatch: pytest.MonkeyPatch, tiny: list[str], tmp_path: Path
) -> None:
    made_up = study.cell

    def interrupted(task: object, pay: Pay, *rest: object) -> dict[str, object]:
        if pay == GOLD:
            raise KeyboardInterrupt
        return made_up(task, pay, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(study, "cell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study.run(StudyConfig("preferences", seeds=1, tasks=("tutor",), output=tmp_path))
    report = (tmp_path / "preferences" / "report.md").read_text()
    assert "700 comparisons" in report
    assert "| gold |" not in report


def test_cells_are_what_they_say() -> None:
    few = replace(teaching(PIZZA, Pay("9", labels=9)))
    assert few.schedule.total == 9
    assert teaching(PIZZA, Pay("m", labels=9, automated_weight=0.5)).automated_weight == 0.5
    untaught = cell(PIZZA, AUTOMATED, 0)
    assert {"gold", "automated", "seconds"} <= untaught.keys()
    assert untaught["wins"] == {}


def test_games_are_counted_against_every_opponent() -> None:
    played = cell(GO, GOLD, 0)
    for when in ("wins", "wins_before"):
        assert set(played[when]) == {"random", "capturer", "shape"}
        assert all(0 <= share <= 1 for share in played[when].values())


def test_wins_stand_in_a_table_with_the_untrained_agent_first() -> None:
    def one(before: float, after: float) -> dict[str, dict[str, float]]:
        return {
            when: dict.fromkeys(("random", "capturer", "shape"), share)
            for when, share in (("wins_before", before), ("wins", after))
        }

    table = study.wins_report("go", {"gold": [one(0.25, 0.75), one(0.75, 1.0)]})
    # Means over two seeds: (0.25 + 0.75) / 2 = 0.5 before and (0.75 + 1) / 2 = 0.875 after.
    assert table.rows[0][:3] == ["nothing: untrained", "2", "0.500 [0.250, 0.750]"]
    assert table.rows[1] == ["gold", "2", *3 * ["0.875 [0.750, 1.000]"]]


def test_strips_need_agents_and_show_them(tmp_path: Path) -> None:
    agent = tmp_path / "preferences" / "agents" / "pizza.zip"
    config = StudyConfig("preferences", tasks=("pizza",), strips=True, output=tmp_path)
    with pytest.raises(InvalidArgument, match="Run the study first"):
        study.run(config)
    cell(PIZZA, GOLD, 0, agent)
    study.run(config)
    assert (tmp_path / "preferences" / "pizza.png").stat().st_size > 5000


def test_no_such_task(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="Choose among pizza"):
        study.run(StudyConfig("preferences", tasks=("chess",), output=tmp_path))
