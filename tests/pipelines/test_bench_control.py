"""The measurement measures: batches beat loops, and every task has its line."""

from rlhf_gym.envs.registration import CONTROL_ENVIRONMENTS
from rlhf_gym.pipelines.bench_control import BenchControl, main, measure


def test_a_native_batch_beats_a_loop() -> None:
    speed = measure("rlhf_gym/Pizza-v0", BenchControl(num_envs=32, rounds=1, seconds=0.05))
    assert speed.single > 0
    assert speed.ratio == speed.native / speed.looped
    assert speed.ratio > 3  # some 20 at 32 rows; a busy machine may halve it twice


def test_every_task_has_a_line(capsys) -> None:
    main(BenchControl(num_envs=2, rounds=1, seconds=0.0))
    shown = capsys.readouterr().out
    assert all(env_id in shown for env_id in CONTROL_ENVIRONMENTS)
