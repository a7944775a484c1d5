from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_gym.envs.control.pizza.task import PizzaVectorEnv
from rlhf_gym.pipelines.studies import StudyConfig, demonstrations
from rlhf_gym.pipelines.studies.demonstrations import WAYS, Setup, what_is_done_when

TINY = replace(
    Setup(), rows=8, timesteps=224, settings={"n_steps": 28, "batch_size": 56, "n_epochs": 1}
)


@pytest.mark.parametrize("way", ["nothing", "cloning, 5 shown", *list(WAYS)[-3:]])
def test_every_way_is_judged(way: str) -> None:
    found = demonstrations.cell(way, TINY, 0)
    assert np.isfinite([found["gold"], found["automated"]]).all()
    assert np.isnan(found["shown"]) == (way in ("nothing", "the gold reward"))
    if "cloning" in way:
        assert found["gold"] > 6  # chance makes 1, the cook 10


def test_features_say_what_is_done_when() -> None:
    """Thirteen moves in 14 stretches; step 19 is in the one that begins at 18, bake is move 12."""
    encoding = what_is_done_when(PizzaVectorEnv(num_envs=1))
    assert len(encoding.names) == 13 * 14
    seen = np.zeros((2, 14), np.float32)
    seen[:, -1] = 0.0, 19 / 28
    _, shown = encoding.tensors(seen, np.array([0, 12]))
    assert [encoding.names[i] for i in shown.argmax(1)] == ["wait at 0", "bake at 18"]
    assert shown.sum(1).tolist() == [1, 1]


def test_a_study_that_is_stopped_shows_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def cell(way: str, setup: Setup, seed: int) -> dict[str, Any]:
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append(way)
        return {"gold": 5.0, "automated": 2.0, "shown": 9.5, "seconds": 1.0}

    monkeypatch.setattr(demonstrations, "cell", cell)
    with pytest.raises(KeyboardInterrupt):
        demonstrations.run(StudyConfig("demonstrations", seeds=1, output=tmp_path))
    report = (tmp_path / "demonstrations" / "report.md").read_text()
    assert "| cloning, 20 shown | 5.000 (one seed) | 2.000 (one seed) | 0 | 1 |" in report
    assert "matched" not in report  # those that act come last
    assert "9.5" in report
