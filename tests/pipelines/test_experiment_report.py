"""Reports and TensorBoard of an experiment whose cells were written by hand."""

import csv
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlhf_gym.core.data import write_jsonl
from rlhf_gym.core.errors import InvalidData
from rlhf_gym.core.supervised.common import write_json
from rlhf_gym.pipelines.environment import EnvironmentConfig
from rlhf_gym.pipelines.experiments.board import side_by_side, write_board
from rlhf_gym.pipelines.experiments.cells import Experiment
from rlhf_gym.pipelines.experiments.config import CompareConfig
from rlhf_gym.pipelines.experiments.curves import over_seeds, read_curves
from rlhf_gym.pipelines.experiments.events import CellEvents, session, write_session
from rlhf_gym.pipelines.experiments.figures import draw_frontier
from rlhf_gym.pipelines.experiments.report import ReportConfig, show

GOLD = {"score": [0.1, 0.2, 0.3], "whitened": [0.7, 0.8, 0.9]}
STEPS = (100, 200, 300)


def write_cell(experiment: Experiment, name: str, seed: int, gold: float) -> None:
    """A cell that rises to its gold score in a straight line, at a KL of twice as much."""
    scheme = next(scheme for scheme in experiment.schemes if scheme.name == name)
    cell = experiment.cell(scheme, seed)
    cell.folder.mkdir(parents=True)
    events = CellEvents(cell.folder)
    logger = events.logger()
    for step in STEPS:
        logger.record("reward/gold", gold * step / STEPS[-1])
        logger.record("kl/reference", 2 * gold * step / STEPS[-1])
        logger.record("terms/score", torch.tensor([gold, step / STEPS[-1]]))
        logger.dump(step)
    events.writer.add_text("text/samples", f"{name} while it learned", STEPS[-1])
    metrics = {"gold": gold, "kl": 2 * gold, "length": 9.0 + seed**2, "repetition": 0.5}
    write_session(events.writer, name, session(experiment.settings, scheme), metrics)
    events.close()
    samples = [{"prompt": "say", "completion": f"{name} | hello", "gold": gold, "kl": 2 * gold}]
    write_jsonl(cell.folder / "samples.jsonl", samples)
    write_json(cell.folder / "summary.json", {"metrics": metrics, "seconds": 15.0})


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Three seeds of two schemes, and a third scheme that is not there yet."""
    config = CompareConfig(schemes="score,whitened,length", seeds=3, output=str(tmp_path / "x"))
    opened = Experiment.open(config)
    for name, values in GOLD.items():
        for seed, gold in enumerate(values):
            write_cell(opened, name, seed, gold)
    return opened


def test_the_report_of_half_an_experiment(experiment: Experiment, capsys) -> None:
    show(ReportConfig(experiment.folder))
    text = (experiment.folder / "report.md").read_text()
    best, second = [line for line in text.splitlines() if "| 3 |" in line]
    # the middle of three is what the interquartile mean is: a quarter of three is none, so all
    # count: (0.7 + 0.8 + 0.9) / 3
    assert best.startswith("| whitened | batch | 3 | 0.800 [")
    assert second.startswith("| score | no | 3 | 0.200 [")
    assert "| 1.00 [1.00, 1.00] |" in best  # all nine pairs of runs are won
    # t = 0.6 / sqrt(2 * 0.01 / 3) = 7.35 with 4 degrees of freedom: p = 0.0018
    assert "1 of 1 pairs differ" in text
    assert "| whitened | score | 0.600 | 0.0018 |" in text
    assert "6 runs, 1.5 minutes in all." in text
    assert "Missing, 3 runs: length/seed-0, length/seed-1, length/seed-2." in text
    assert "missing, 3 runs" in capsys.readouterr().out
    with (experiment.folder / "report.csv").open() as file:
        rows = {row["scheme"]: row for row in csv.DictReader(file)}
    assert float(rows["whitened"]["gold"]) == pytest.approx(0.8)
    assert float(rows["score"]["repetition"]) == 0.5
    assert rows["score"]["improvement"] == ""
    # the mean of a straight line from a third of 0.8 to 0.8
    assert float(rows["whitened"]["speed"]) == pytest.approx(0.8 * 2 / 3)
    for name in ("curves.png", "frontier.png", "intervals.png"):
        assert (experiment.folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_report_of_tasks_of_acting(tmp_path: Path) -> None:
    written = "gold,automated,mine=gold+shaping('no_longer_there:progress')"
    environment = EnvironmentConfig(env="rlhf_gym/Pizza-v0", env_kwargs=("taste=spicy",))
    config = CompareConfig(
        schemes=written, environment=environment, seeds=2, agent="sb3.ppo", output=str(tmp_path)
    )
    opened = Experiment.open(config)
    for cell in opened.cells:
        cell.folder.mkdir(parents=True)
        write_json(cell.folder / "summary.json", {"metrics": {"gold_return": 3.0 + cell.seed}})
        events = CellEvents(cell.folder)
        logger = events.logger()
        for step in STEPS:
            logger.record("reward/gold", step / 100)
            logger.dump(step)
        events.close()
    show(ReportConfig(tmp_path))
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "rlhf_gym/Pizza-v0 (taste=spicy)" in lines[0]
    # gold's mean over training is that of 1 to 3; what a scheme moves is told from its form
    assert "| gold | no | 2 | 3.500 [3.000, 4.000] | 2.000 |  |" in lines
    assert [line.split(" | ")[1] for line in lines if "| 2 |" in line] == ["no", "yes", ""]


def test_before_anything_is_finished(tmp_path: Path) -> None:
    Experiment.open(CompareConfig(schemes="score", output=str(tmp_path)))
    with pytest.raises(InvalidData, match="no run is finished"):
        show(ReportConfig(tmp_path))


def test_curves_are_read_off_at_common_steps() -> None:
    # runs of 0..10 and 5..20 share 5..10; of two points at one step the last one counts
    curve = over_seeds([[(0, 9.0), (0, 0.0), (10, 10.0)], [(5, 1.0), (20, 1.0)]])
    assert (curve.steps[0], curve.steps[-1]) == (5, 10)
    assert (curve.low[0], curve.mean[0], curve.high[0]) == (1, 3, 5)
    assert (curve.low[-1], curve.mean[-1], curve.high[-1]) == (1, 5.5, 10)


def test_a_scheme_has_a_curve_of_its_own(experiment: Experiment) -> None:
    cells = [cell for cell in experiment.cells if cell.scheme.name == "whitened"]
    curve = read_curves(cells)["gold"]
    np.testing.assert_allclose([curve.low[-1], curve.mean[-1], curve.high[-1]], [0.7, 0.8, 0.9])


def test_events_behind_a_checkpoint_are_void(tmp_path: Path) -> None:
    from rlhf_gym.pipelines.curves import read_scalars

    for after, values in ((None, (1.0, 2.0, 3.0)), (100, (4.0, 5.0))):
        events = CellEvents(tmp_path, after)
        logger = events.logger()
        for step, value in zip(STEPS[-len(values) :], values, strict=True):
            logger.record("reward/gold", value)
            logger.dump(step)
        events.close()
        time.sleep(1.1)  # event files are read in the order of the second in their name
    assert read_scalars(tmp_path)["reward/gold"] == [(100, 1.0), (200, 4.0), (300, 5.0)]


def test_no_frontier_without_kl(experiment: Experiment, tmp_path: Path) -> None:
    curve = over_seeds([[(0, 0.0), (10, 10.0)]])
    assert draw_frontier({"gold": {"gold_return": curve}}, tmp_path / "frontier.png") is None


def test_samples_stand_side_by_side(experiment: Experiment) -> None:
    header, _, row = side_by_side(experiment).splitlines()
    assert header == "| prompt | score | whitened |"
    assert r"score \| hello *(gold 0.10, kl 0.20)*" in row  # the bar in it breaks no table


def test_the_board_has_one_run_for_each_scheme(experiment: Experiment) -> None:
    write_board(experiment)
    write_board(experiment)  # anew: nothing of before is left
    board = experiment.folder / "board"
    runs = {path.parent.name for path in board.rglob("events.out.tfevents.*")}
    assert runs == {"score", "whitened", "overview"}
    found = EventAccumulator(str(board / "whitened"), {"tensors": 0, "histograms": 0}).Reload()
    # the mean over seeds: (0.7 + 0.8 + 0.9) / 3, (9 + 10 + 13) / 3
    assert found.Scalars("judged/gold")[0].value == pytest.approx(0.8)
    assert found.Scalars("judged/length")[0].value == pytest.approx(32 / 3)
    # of its first seed: a histogram of 0.7 and 1 at the last step, and what it wrote
    last = found.Histograms("terms/score")[-1]
    assert (last.step, last.histogram_value.num, last.histogram_value.max) == (300, 2, 1.0)
    assert last.histogram_value.sum == pytest.approx(1.7)
    text = found.Tensors("text/samples/text_summary")[-1]
    assert text.tensor_proto.string_val == [b"whitened while it learned"]


def test_tensorboard_shows_it_without_a_setting(experiment: Experiment, chromium) -> None:
    write_board(experiment)
    port = free_port()
    board = str(experiment.folder / "board")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", board]
    server = subprocess.Popen([*command, "--port", str(port), "--load_fast=false"], stderr=-3)
    try:
        page = chromium.new_page()
        address = f"http://localhost:{port}/"
        wait_for_runs(address)
        page.set_default_timeout(60_000)
        page.goto(f"{address}#custom_scalars")
        for title in ("gold score", "KL to the reference, nats"):
            page.get_by_text(title).first.wait_for()
        page.get_by_text("Matches (2)").first.wait_for()  # a line for each scheme
        page.goto(f"{address}#hparams")
        frame = page.frame_locator("iframe") if page.locator("iframe").count() else page
        # one line for each group, with the mean length over seeds: (9 + 10 + 13) / 3
        for text in ("whitened(score)", "10.667"):
            frame.get_by_text(text).first.wait_for()
        page.goto(f"{address}#text")
        page.get_by_role("cell", name=re.compile(r"whitened \| hello")).first.wait_for()
        page.get_by_text("whitened while it learned").first.wait_for()
        page.goto(f"{address}#histograms")
        # one chart for each scheme, the second whitened's, each with its three steps
        charts = page.locator("tf-histogram-loader")
        charts.nth(1).get_by_text("whitened").wait_for()
        for number in (0, 1):
            charts.nth(number).get_by_text("terms/score").wait_for()
            charts.nth(number).locator(".histogram").nth(2).wait_for(state="attached")
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def wait_for_runs(address: str) -> None:
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"{address}data/runs") as answer:
                if b"overview" in answer.read():
                    return
        except OSError:
            pass
        time.sleep(0.3)
    raise TimeoutError("TensorBoard shows no runs")
