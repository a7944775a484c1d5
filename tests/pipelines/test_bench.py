"""The command runs, prints, writes down, and refuses what would measure nothing."""

import json
from pathlib import Path

import pytest
import torch

from rlhf_gym.core.errors import FolderNotWritable, InvalidArgument
from rlhf_gym.pipelines.bench import BenchConfig, as_table, bench
from rlhf_gym.pipelines.bench_timing import Measurement


def test_quick_runs_prints_and_writes_down(tmp_path, capsys):
    bench(BenchConfig(parts=("step",), batches=(2,), quick=True, output=tmp_path / "bench"))

    written = json.loads((tmp_path / "bench" / "bench.json").read_text())
    assert written["machine"]["threads"] == "1"
    step, growth = written["results"].values()
    assert [row["kind"] for row in step] == ["share"] * 4
    assert step[0]["value"] == pytest.approx(100 * step[0]["ours"] / step[0]["baseline"])
    assert len(growth) == 3
    assert "bookkeeping of step, batch 2" in capsys.readouterr().out


def test_without_trl_it_says_how_to_get_it(tmp_path, capsys):
    bench(BenchConfig(parts=("iteration",), trl_python=tmp_path / "python", quick=True))
    assert "make bench-trl" in capsys.readouterr().out


def test_an_output_that_cannot_be_written_is_refused_before_measuring(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FolderNotWritable):
        bench(BenchConfig(parts=("step",), output=tmp_path / "file"))


@pytest.mark.parametrize(("field", "value"), [("rounds", 0), ("batches", ()), ("batches", (16, 0))])
def test_nothing_to_measure_is_refused(field, value):
    with pytest.raises(InvalidArgument, match=field):
        BenchConfig(**{field: value})


def test_units_and_targets_in_the_table(capsys):
    from rich.console import Console

    rows = [
        Measurement("seconds", "speed-up", 3.9, 1.3, target=3.0),
        Measurement("milliseconds", "share", 0.1, 0.0021, target=2.0),
        Measurement("memory", "saving", 200.0, 50.0),
        Measurement("unknown", "saving", float("nan"), 50.0),
    ]
    Console(width=100).print(as_table("title", rows))
    printed = capsys.readouterr().out
    for text in ("3.9 s", "1.3 s", "3.00x", "> 3.00x", "100 ms", "2.1 ms", "2.1 %", "< 2.0 %"):
        assert text in printed
    for text in ("200 MiB", "50 MiB", "4.00x", "unknown"):
        assert text in printed


def test_the_default_interpreter_is_where_make_puts_it():
    assert BenchConfig().trl_python == Path(".bench-trl/bin/python")


def test_the_cpus_figures_are_not_those_of_a_gpu() -> None:
    with pytest.raises(InvalidArgument, match=r"parts=.*control and step.*--device"):
        BenchConfig(device="cuda", parts=("sampling", "step", "control"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"device='cuda'.*sees 0 GPUs"):
        bench(BenchConfig(device="cuda", parts=("sampling",)))
