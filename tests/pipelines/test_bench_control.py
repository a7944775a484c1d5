"""The measurement measures: batches beat loops, and every task has its line."""

import json
from pathlib import Path

from rlhf_gym.envs.registration import CONTROL_ENVIRONMENTS
from rlhf_gym.pipelines.bench import BenchConfig, bench
from rlhf_gym.pipelines.bench_control import TARGET, BenchControl, main, measure


def test_a_native_batch_beats_a_loop() -> None:
    speed = measure("rlhf_gym/Pizza-v0", BenchControl(num_envs=32, rounds=1, seconds=0.05))
    assert speed.single > 0
    assert speed.ratio == speed.native / speed.looped
    assert speed.ratio > 3  # some 20 at 32 rows; a busy machine may halve it twice


def test_every_task_has_a_line(capsys) -> None:
    main(BenchControl(num_envs=2, rounds=1, seconds=0.0))
    shown = capsys.readouterr().out
    assert all(env_id in shown for env_id in CONTROL_ENVIRONMENTS)


def test_bench_has_the_tasks_as_a_part(tmp_path: Path) -> None:
    bench(BenchConfig(parts=("control",), quick=True, output=tmp_path))
    (rows,) = json.loads((tmp_path / "bench.json").read_text())["results"].values()
    assert [row["what"].split(",")[0] for row in rows] == list(CONTROL_ENVIRONMENTS)
    for row in rows:
        assert row["target"] == TARGET
        assert row["value"] == row["baseline"] / row["ours"]
