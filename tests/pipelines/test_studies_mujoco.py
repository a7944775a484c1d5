from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_gym.pipelines.studies import StudyConfig, mujoco
from rlhf_gym.pipelines.studies.label_curve import draw_label_curve
from rlhf_gym.pipelines.studies.mujoco import CURVE, HEADLINE, LABELS, SELECTIONS, TRUTH, Setup

TINY = Setup(
    env_kwargs={"max_episode_steps": 10},
    settings={"n_steps": 10, "batch_size": 20, "n_epochs": 1, "policy_kwargs": {"net_arch": [4]}},
    rows=2,
    timesteps=60,
    explore=80,
    rounds=2,
    segment_length=5,
    memory=100,
    epochs=1,
    episodes=2,
)


def fake(lesson: mujoco.Lesson) -> dict[str, float]:
    """True reward 100, n labels 100 n / 1400; untrained 0."""
    taught = {"correlation": 0.5, "held_out_accuracy": 0.75} if lesson.labels else {}
    after = 100 * (lesson.labels or 1400) / 1400
    return {"before": 0.0, "after": after, "seconds": 1.0, **taught}


def test_a_cell_is_judged_by_the_true_return() -> None:
    taught = mujoco.cell(mujoco.Lesson(12, "uniform"), TINY, 0)
    told = mujoco.cell(TRUTH, TINY, 0)
    assert taught["before"] == told["before"]  # the same agent in the same episodes
    assert set(taught) - set(told) == {"correlation", "held_out_accuracy"}


def test_each_lesson_has_a_row_with_its_seeds() -> None:
    cells = {lesson.name: [fake(lesson)] * 2 for lesson in HEADLINE + CURVE}
    rows = mujoco.report(cells, TINY).rows
    assert len(rows) == 2 + len(LABELS) * len(SELECTIONS)
    assert rows[0][:3] == ["nothing: untrained", "0", "0.000 [0.000, 0.000]"]
    assert rows[1][:3] == ["the true reward", "0", "100.000 [100.000, 100.000]"]
    found = {tuple(row[:2]): row[2:] for row in rows}
    assert found["comparisons, uniform", "700"] == ["50.000 [50.000, 50.000]", "0.50", "0.75", "2"]


def test_a_study_that_is_stopped_shows_what_it_has_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, int]] = []

    def cell(lesson: mujoco.Lesson, setup: Setup, seed: int) -> dict[str, float]:
        trained.append((lesson.name, seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return fake(lesson)

    monkeypatch.setattr(mujoco, "cell", cell)
    config = StudyConfig("mujoco", seeds=2, output=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        mujoco.run(config)
    report = (tmp_path / "mujoco" / "report.md").read_text()
    assert "| comparisons, uniform | 700 |" in report
    assert "1400" not in report
    assert (tmp_path / "mujoco" / "curve.png").stat().st_size > 1000
    mujoco.run(config)
    # One was tried twice, none of the others.
    assert len(trained) == 1 + 2 * len(HEADLINE + CURVE)
    assert trained[2] == trained[3]
    assert [
        name for name, _ in trained[: len(HEADLINE) + 1] if name in {c.name for c in CURVE}
    ] == []


def test_a_curve_needs_only_the_true_reward(tmp_path: Path) -> None:
    cells = {lesson.name: [] for lesson in HEADLINE + CURVE} | {TRUTH.name: [fake(TRUTH)]}
    picture = draw_label_curve(cells, LABELS, SELECTIONS, TRUTH.name, tmp_path / "a" / "curve.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_setup_is_part_of_what_a_cell_depends_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mujoco, "cell", lambda lesson, setup, seed: {"after": setup.timesteps})
    first = mujoco._kept_cell(TRUTH, TINY, 0, tmp_path)
    other = mujoco._kept_cell(TRUTH, replace(TINY, timesteps=80), 0, tmp_path)
    assert (first["after"], other["after"]) == (60, 80)
