"""Workers run one iteration per command, whoever they are, and say why when they break."""

import ast
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_gym.pipelines import bench_iteration, bench_trl
from rlhf_gym.pipelines.bench_iteration import (
    Iteration,
    WorkerFailed,
    compare,
    measure_iterations,
    start_worker,
)
from rlhf_gym.pipelines.bench_ours import build_agent, serve
from rlhf_gym.pipelines.bench_task import BenchTask, save_task
from rlhf_gym.pipelines.bench_trl import GatedLoader, IterationClock, memory_mib, reset_peak

TOY = BenchTask(
    layers=1,
    hidden=32,
    heads=2,
    vocab_size=64,
    responses=4,
    response_tokens=4,
    epochs=1,
    minibatches=2,
)

# Speaks the protocol; every iteration takes "twice as long" as the one before.
FAKE_WORKER = """
import json, sys
print(json.dumps({"loaded_mib": 100.0}), flush=True)
seconds = float(sys.argv[1])
for line in sys.stdin:
    print(json.dumps({"seconds": seconds, "wall": seconds / 2, "rollout": seconds / 4,
                      "update": seconds * 3 / 4, "tokens": 128, "peak_mib": 130.0}), flush=True)
    seconds *= 2
"""


def fake_worker(tmp_path, seconds):
    script = tmp_path / "worker.py"
    script.write_text(FAKE_WORKER)
    return [sys.executable, str(script), str(seconds)]


def answers_of(clock_user, commands):
    answers = io.StringIO()
    with pytest.raises(SystemExit):
        clock_user(IterationClock(io.StringIO("run\n" * commands), answers))
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_the_trl_worker_imports_nothing_of_ours():
    tree = ast.parse(Path(bench_trl.__file__).read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    third_party = imported - set(sys.stdlib_module_names)
    assert third_party == {"torch", "datasets", "transformers", "trl"}


def test_a_gated_loader_hands_out_one_batch_per_command_and_times_what_follows():
    def train(clock):
        for batch in GatedLoader([["first batch"]], clock):
            assert batch == ["first batch"]
            clock.mark_update()
            clock.tokens = 7

    loaded, *iterations = answers_of(train, commands=2)

    assert set(loaded) == {"loaded_mib"}
    assert len(iterations) == 2
    for answer in iterations:
        assert set(answer) == set(Iteration._fields)
        assert answer["tokens"] == 7
        assert answer["seconds"] == pytest.approx(answer["rollout"] + answer["update"])


def test_only_the_first_mark_ends_the_rollout():
    marks = []

    def train(clock):
        clock.next_iteration()
        clock.mark_update()
        marks.append(clock._update)
        clock.mark_update()
        marks.append(clock._update)
        clock.next_iteration()

    answers_of(train, commands=1)
    assert marks[0] == marks[1]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_peak_sees_memory_that_is_gone_again():
    reset_peak()
    before = memory_mib("VmHWM")
    ballast = bytearray(b"x") * (64 * 2**20)
    del ballast
    assert memory_mib("VmHWM") - before > 50
    reset_peak()
    assert memory_mib("VmHWM") - before < 50


@pytest.mark.parametrize("value_model", ["trunk", "separate"])
def test_our_worker_trains_once_per_command(tmp_path, value_model):
    save_task(TOY, tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())
    agent = build_agent(tmp_path, settings, value_model)

    _, *iterations = answers_of(lambda clock: serve(agent, clock), commands=2)

    assert [answer["tokens"] for answer in iterations] == [16, 16]  # 4 responses of 4 tokens
    assert agent.num_timesteps == 32
    assert (agent.policy.value_model is None) == (value_model == "trunk")
    assert all(answer["update"] > 0 and answer["rollout"] > 0 for answer in iterations)


def test_our_worker_can_stop_early(tmp_path):
    task = BenchTask(**{**vars(TOY), "stop_probability": 0.6, "response_tokens": 16})
    save_task(task, tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())
    _, first = answers_of(
        lambda clock: serve(build_agent(tmp_path, settings, "trunk"), clock), commands=1
    )
    assert 4 <= first["tokens"] < 64


def test_a_worker_answers_and_its_peak_is_beside_what_was_loaded(tmp_path):
    with start_worker(fake_worker(tmp_path, 1.0)) as worker:
        first, second = worker.run(), worker.run()
    assert worker.loaded_mib == 100.0
    assert (first.seconds, second.seconds) == (1.0, 2.0)
    assert first.peak_mib == 30.0


def test_a_worker_that_dies_while_loading_says_why():
    command = [sys.executable, "-c", "raise SystemExit('no such folder')"]
    with pytest.raises(WorkerFailed, match="no such folder"), start_worker(command):
        pass


def test_a_worker_that_dies_in_an_iteration_says_why():
    code = "import sys; print('{\"loaded_mib\": 1}', flush=True); input(); sys.exit('out of luck')"
    with (
        start_worker([sys.executable, "-c", code]) as worker,
        pytest.raises(WorkerFailed, match="out of luck"),
    ):
        worker.run()


def test_the_comparison_takes_medians_and_puts_the_targets(tmp_path, monkeypatch):
    ours = fake_worker(tmp_path, 1.0)
    monkeypatch.setattr(bench_iteration, "our_command", lambda variant, folder: ours)
    rows = compare(TOY, 3, fake_worker(tmp_path, 4.0), {"trunk": 3.0, "separate": None})

    # After the warm-up ours takes 2, 4, 8 seconds and the baseline 8, 16, 32.
    iteration, wall, rollout, update, memory = rows[:5]
    assert (iteration.baseline, iteration.ours, iteration.value) == (16.0, 4.0, 4.0)
    assert iteration.met is True
    assert (wall.ours, rollout.ours, update.ours) == (2.0, 1.0, 3.0)
    assert (memory.kind, memory.baseline, memory.ours) == ("saving", 30.0, 30.0)
    assert "shared trunk" in iteration.what
    assert "four networks" in rows[5].what
    assert rows[5].target is None


def test_equal_and_different_lengths_have_their_targets(tmp_path, monkeypatch):
    fake = fake_worker(tmp_path, 1.0)
    monkeypatch.setattr(bench_iteration, "our_command", lambda variant, folder: fake)
    monkeypatch.setattr(bench_iteration, "trl_command", lambda python: fake)
    tables = dict(measure_iterations(TOY, 1, Path("python")))
    assert list(tables) == ["equal lengths", "different lengths"]
    targets = {name: [row.target for row in rows if row.target] for name, rows in tables.items()}
    assert targets == {"equal lengths": [3.0, 1.6], "different lengths": [5.0]}

    on_gpu = dict(measure_iterations(replace(TOY, device="cuda"), 1, Path("python")))
    assert not [row for rows in on_gpu.values() for row in rows if row.target]
