"""Experiments run what is missing, once, whatever happens to the processes that run them."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import tyro
from rich.console import Console

from rlhf_gym.core.errors import InvalidArgument, InvalidData, NonFiniteTraining
from rlhf_gym.pipelines.experiments import running, watching
from rlhf_gym.pipelines.experiments.cells import Experiment
from rlhf_gym.pipelines.experiments.claims import claim, holder
from rlhf_gym.pipelines.experiments.compare import compare, show
from rlhf_gym.pipelines.experiments.config import CompareConfig
from rlhf_gym.pipelines.experiments.progress import ProgressTable

fork = multiprocessing.get_context("fork")
"""Processes that begin with what is imported and patched here."""


def config(folder: Path, *flags: str) -> CompareConfig:
    tiny = ["--env", "rlhf_gym/Exact-v0", "--num-envs", "4", "--budget", "80", "--episodes", "8"]
    kwargs = ["--checkpoint-every", "2", "--agent-kwargs", "minibatches=1", "epochs=1"]
    return tyro.cli(CompareConfig, args=[*tiny, *kwargs, "--output", str(folder), *flags])


def metrics_of(experiment: Experiment) -> dict[str, dict[str, float]]:
    return {cell.name: cell.metrics for cell in experiment.cells}


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Cells that train nothing; `log` says which process ran which."""
    log = tmp_path / "log"

    def train(config: CompareConfig, cell) -> dict:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {cell.name}\n")
        time.sleep(0.05)
        return {"metrics": {"gold": float(cell.seed)}, "timesteps": 1}

    def use(instead=None):
        monkeypatch.setattr(running, "_trainer", lambda config: instead or train)
        return log

    monkeypatch.setattr(running, "check", lambda config, experiment: None)
    use()
    return use


def test_a_cell_is_complete(tmp_path: Path) -> None:
    experiment = compare(config(tmp_path / "x", "--schemes", "score", "--seeds", "1"))
    [cell] = experiment.cells
    assert cell.folder == tmp_path / "x/score/seed-0"
    summary = json.loads((cell.folder / "summary.json").read_text())
    assert {"share", "gold", "kl", "objective", "length"} <= set(summary["metrics"])
    assert summary["timesteps"] >= 80
    assert summary["expression"] == "score"
    assert len((cell.folder / "samples.jsonl").read_text().splitlines()) == 8
    assert list(cell.folder.glob("events.out.tfevents.*"))
    assert list((cell.folder / "training/checkpoints").glob("step-*"))
    assert not (cell.folder / "progress.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA does not survive a fork")
def test_a_killed_run_goes_on_and_comes_to_the_same(tmp_path, monkeypatch) -> None:
    flags = ("--schemes", "running", "--seeds", "1")  # a scheme whose state moves
    whole = compare(config(tmp_path / "whole", *flags))
    rollouts = []

    def die_in_the_fourth(callback: object) -> None:
        rollouts.append(0)
        if len(rollouts) == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    original = watching.ProgressCallback._on_rollout_end
    monkeypatch.setattr(watching.ProgressCallback, "_on_rollout_end", die_in_the_fourth)
    process = fork.Process(target=compare, args=(config(tmp_path / "killed", *flags),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    monkeypatch.setattr(watching.ProgressCallback, "_on_rollout_end", original)
    [cell] = Experiment.read(tmp_path / "killed").cells
    assert not cell.is_done
    assert holder(cell.claim_file) is None
    assert list((cell.folder / "training/checkpoints").glob("step-*"))
    resumed = compare(config(tmp_path / "killed", *flags))
    assert metrics_of(resumed) == metrics_of(whole)


def test_two_processes_share_out_the_cells(tmp_path, pretend) -> None:
    given = config(tmp_path / "x", "--schemes", "score,lump,dense", "--seeds", "4")
    processes = [fork.Process(target=compare, args=(given,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    ran = [line.split() for line in pretend().read_text().splitlines()]
    assert len({pid for pid, _ in ran}) == 2
    assert sorted(name for _, name in ran) == sorted(
        cell.name for cell in Experiment.read(tmp_path / "x").cells
    )


def test_what_is_done_is_not_run_again_and_more_may_join(tmp_path, pretend) -> None:
    compare(config(tmp_path / "x", "--schemes", "score,lump", "--seeds", "2"))
    compare(config(tmp_path / "x", "--schemes", "score,whitened", "--seeds", "3"))
    ran = [line.split()[1] for line in pretend().read_text().splitlines()]
    assert ran == [
        *("score/seed-0", "lump/seed-0", "score/seed-1", "lump/seed-1"),
        *("whitened/seed-0", "whitened/seed-1", "score/seed-2", "whitened/seed-2"),
    ]
    everything = Experiment.read(tmp_path / "x")
    assert [scheme.name for scheme in everything.schemes] == ["score", "lump", "whitened"]
    assert [cell.name for cell in everything.cells if not cell.is_done] == ["lump/seed-2"]


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path, pretend, capsys) -> None:
    seen = []

    def interrupted(config: CompareConfig, cell) -> dict:
        seen.append(cell.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return {"metrics": {"gold": 1.0}}

    pretend(interrupted)
    given = config(tmp_path / "x", "--schemes", "score,lump", "--seeds", "2")
    with pytest.raises(KeyboardInterrupt):
        show(given)
    said = capsys.readouterr().out
    assert "2 runs are done and kept" in said
    assert "rlhf-gym report" in said
    assert not any(cell.is_running for cell in Experiment.read(tmp_path / "x").cells)
    compare(given)
    assert all(cell.is_done for cell in Experiment.read(tmp_path / "x").cells)
    assert len(seen) == 5  # the third again, and the fourth


def test_a_cell_that_fails_does_not_stop_the_others(tmp_path, pretend, capsys) -> None:
    def fails(config: CompareConfig, cell) -> dict:
        if cell.scheme.name == "lump":
            raise NonFiniteTraining("loss=nan")
        return {"metrics": {"gold": 1.0}}

    pretend(fails)
    given = config(tmp_path / "x", "--schemes", "lump,score", "--seeds", "2")
    with pytest.raises(SystemExit):
        show(given)
    assert "lump/seed-0: failed" in capsys.readouterr().out.replace("\n", "")
    states = [cell.is_done for cell in Experiment.read(tmp_path / "x").cells]
    assert states == [False, True, False, True]
    pretend()
    compare(given)  # tries again
    assert all(cell.is_done for cell in Experiment.read(tmp_path / "x").cells)


def test_other_settings_are_refused(tmp_path, pretend) -> None:
    compare(config(tmp_path / "x", "--schemes", "a=score", "--seeds", "1"))
    with pytest.raises(InvalidArgument, match="budget from 80 to 90"):
        compare(config(tmp_path / "x", "--schemes", "a=score", "--budget", "90"))
    with pytest.raises(InvalidArgument, match="a from 'score' to 'lump"):
        compare(config(tmp_path / "x", "--schemes", "a=lump(score)"))


def test_what_is_not_possible_is_refused_before_anything_runs(tmp_path) -> None:
    with pytest.raises(InvalidArgument, match="no reward model"):
        compare(config(tmp_path / "x", "--schemes", "score,attention"))
    assert not (tmp_path / "x/score").exists()
    with pytest.raises(InvalidArgument, match="agent='pqo'"):
        compare(config(tmp_path / "y", "--schemes", "score", "--agent", "pqo"))
    with pytest.raises(InvalidArgument, match=r"spread.*cannot be paid token by token"):
        compare(config(tmp_path / "z", "--schemes", "spread", "--agent", "sb3.ppo"))
    with pytest.raises(InvalidData, match="no experiment"):
        Experiment.read(tmp_path)


@pytest.mark.parametrize(
    "fields", [{"seeds": 0}, {"jobs": 0}, {"first_seed": -1}, {"schemes": "board=score"}]
)
def test_flags_that_cannot_work(fields: dict) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(fields))):
        CompareConfig(**{"schemes": "score", **fields})


@pytest.mark.parametrize("agent", ["sb3.a2c", "sb3.dqn"])
def test_stock_agents_are_judged_too(tmp_path, agent) -> None:
    flags = ("--schemes", "dense", "--seeds", "1", "--agent", agent)
    settings = ("--agent-kwargs", "learning_rate=1e-3")
    if agent == "sb3.dqn":
        settings = ("--kl-mode", "soft", "--agent-kwargs", "batch_size=8")
    given = tyro.cli(
        CompareConfig,
        args=[
            *("--env", "rlhf_gym/Exact-v0", "--num-envs", "4", "--budget", "60"),
            *("--episodes", "6", "--output", str(tmp_path / "x"), *flags, *settings),
        ],
    )
    [cell] = compare(given).cells
    assert {"share", "gold", "length"} <= set(cell.metrics)


def pizza(folder: Path, schemes: str, *kwargs: str) -> CompareConfig:
    return tyro.cli(
        CompareConfig,
        args=[
            *("--env", "rlhf_gym/Pizza-v0", "--agent", "sb3.ppo", "--num-envs", "4"),
            *("--budget", "240", "--evaluation-episodes", "4", "--preferences.explore", "120"),
            *("--labels", "9", "--seeds", "1", "--preferences.learner.fit.epochs", "2"),
            *("--preferences.learner.judges", "change", "--preferences.learner.members", "1"),
            *("--schemes", schemes, "--output", str(folder)),
            *("--agent-kwargs", "n_steps=30", "batch_size=60", *kwargs),
        ],
    )


def test_tasks_of_acting(tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    spicy = ("--env-kwargs", "taste=spicy")
    experiment = compare(pizza(tmp_path / "x", "gold,mixture,potential", *spicy))
    gold, mixture, _ = experiment.cells
    assert {"gold_return", "automated_return"} <= set(gold.metrics)
    assert [cell.metrics["labels"] for cell in experiment.cells] == [0, 9, 9]
    run = json.loads((mixture.folder / "training/config.json").read_text())
    assert run["environment"]["reward"] == "preferences + 0.5 * automated"
    assert run["environment"]["env_kwargs"] == ["taste=spicy"]
    logged = EventAccumulator(str(experiment.cells[2].folder), {"histograms": 0})
    assert "reward/gold" in logged.Reload().Tags()["scalars"]
    assert logged.Tags()["histograms"] == ["terms/automated", "terms/shaping"]


@pytest.mark.parametrize(
    ("schemes", "kwargs", "problem"),
    [
        ("gold,x=whitened", (), "for tasks of writing only"),
        ("gold,x=gold+shaping(preferences,gamma=0.9)", ("gamma=0.99",), "discount of 0.9"),
        ("gold", ("colour=1",), "agent_kwargs"),
    ],
)
def test_what_is_not_possible_where_the_task_is_to_act(tmp_path, schemes, kwargs, problem) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        compare(pizza(tmp_path, schemes, *kwargs))
    assert not (tmp_path / "gold").exists()


def test_what_suits_a_task_is_a_setting(tmp_path, pretend, monkeypatch) -> None:
    from rlhf_gym.pipelines.control_settings import TASKS, TaskSettings

    compare(pizza(tmp_path, "gold"))
    monkeypatch.setitem(TASKS, "rlhf_gym/Pizza-v0", TaskSettings("steps", 5))
    with pytest.raises(InvalidArgument, match=r"teaching\.for_agent"):
        compare(pizza(tmp_path, "gold"))


def test_a_claim_is_gone_with_its_process(tmp_path) -> None:
    path = tmp_path / "claim"

    def hold(taken) -> None:
        with claim(path) as mine:
            taken.put(mine)
            time.sleep(60)

    taken = fork.SimpleQueue()
    process = fork.Process(target=hold, args=(taken,))
    process.start()
    assert taken.get()
    with claim(path) as mine:
        assert not mine
    assert holder(path) == process.pid
    process.kill()
    process.join()
    with claim(path) as mine:
        assert mine
        assert holder(path) == os.getpid()
    assert holder(path) is None


def test_the_table_shows_every_state(tmp_path, pretend) -> None:
    given = config(tmp_path / "x", "--schemes", "score,lump", "--seeds", "2")
    experiment = Experiment.open(given)
    first, second, third, _ = experiment.cells
    for cell in (first, second, third):
        cell.folder.mkdir(parents=True, exist_ok=True)
    (first.folder / "summary.json").write_text('{"metrics": {"gold": 0.25}}')
    (third.folder / "failure.txt").write_text("oops")
    seen = {"timesteps": 40, "budget": 80, "per_second": 10.0}
    (second.folder / "progress.json").write_text(json.dumps(seen))
    console = Console(record=True, width=100, quiet=True)
    with claim(second.claim_file):
        console.quiet = False
        with console.capture() as captured:
            console.print(ProgressTable(experiment))
    text = captured.get()
    assert "1 of 4 runs" in text
    assert "0.250" in text
    assert "seed-0 50% 10/s" in text
    assert "●✕" in text
    assert "◐○" in text


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that begin with what is patched here; spawned ones import everything anew."""
    monkeypatch.setattr("rlhf_gym.pipelines.experiments.workers.START_METHOD", "fork")


def test_jobs_are_processes_that_share_out_the_cells(tmp_path, pretend, forked) -> None:
    compare(config(tmp_path / "x", "--schemes", "score,lump,dense", "--seeds", "4", "--jobs", "2"))
    ran = [line.split() for line in pretend().read_text().splitlines()]
    assert len(ran) == len({name for _, name in ran}) == 12
    assert len({pid for pid, _ in ran}) == 2
    assert str(os.getpid()) not in {pid for pid, _ in ran}


def test_ctrl_c_stops_the_workers(tmp_path, pretend, forked) -> None:
    def slow(config: CompareConfig, cell) -> dict:
        (cell.folder / "began").touch()
        time.sleep(60)
        return {}

    pretend(slow)

    def interruptible(given: CompareConfig) -> None:
        # Whatever else runs in this process of tests may have set another handler.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        compare(given)

    given = config(tmp_path / "x", "--schemes", "score,lump", "--seeds", "1", "--jobs", "2")
    process = fork.Process(target=interruptible, args=(given,))
    process.start()
    cells = Experiment.open(given).cells
    while not all((cell.folder / "began").exists() for cell in cells):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)  # the parent alone, as from another program
    process.join(30)
    assert process.exitcode == 1
    assert not any(cell.is_running or cell.is_done for cell in cells)


def test_workers_end_with_the_process_that_began_them(tmp_path, monkeypatch) -> None:
    from rlhf_gym.pipelines.experiments import workers

    def begin(told) -> None:
        context = multiprocessing.get_context("fork")
        worker = context.Process(target=workers._worker, args=(None, None))
        worker.start()
        told.put(worker.pid)
        time.sleep(60)

    monkeypatch.setattr(workers, "work", lambda config, experiment: time.sleep(60))
    told = fork.SimpleQueue()
    parent = fork.Process(target=begin, args=(told,))
    parent.start()
    worker = told.get()
    parent.kill()
    parent.join()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.05)
    raise AssertionError("the worker goes on alone")


def test_a_task_of_the_users_own(tmp_path, monkeypatch) -> None:
    from rlhf_gym.envs.exact.babbler import babbler, letter_tokenizer

    babbler().save_pretrained(tmp_path / "lm")
    letter_tokenizer().save_pretrained(tmp_path / "lm")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a b"}\n{"prompt": "c"}\n')
    (tmp_path / "taste_of_tests.py").write_text(
        "def count(prompts, responses):\n    return [float(r.count('c')) for r in responses]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    given = tyro.cli(
        CompareConfig,
        args=[
            *("--model", str(tmp_path / "lm"), "--prompts", str(tmp_path / "prompts.jsonl")),
            *("--end-token", "<stop>", "--reward", "taste_of_tests:count"),
            *("--max-response-tokens", "4", "--num-envs", "4", "--budget", "40"),
            *("--episodes", "8", "--schemes", "dense", "--seeds", "1"),
            *("--agent-kwargs", "minibatches=1", "--output", str(tmp_path / "x")),
        ],
    )
    [cell] = compare(given).cells
    assert cell.metrics["gold"] == cell.metrics["score"]  # no judge: the task's own score is one
    assert 0 <= cell.metrics["gold"] <= 4
    assert "share" not in cell.metrics
