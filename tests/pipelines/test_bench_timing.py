"""Contestants take turns, medians count, and figures say what their kind says."""

import time

import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.pipelines.bench_timing import (
    Measurement,
    alternate,
    column_medians,
    median_of,
    seconds_of,
    threads,
)


def test_contestants_take_turns_and_the_warm_up_is_thrown_away():
    calls = []

    def run(name):
        calls.append(name)
        return len(calls)

    results = alternate({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=2, warm_up=1)

    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert results == {"a": [3, 5], "b": [4, 6]}


def test_no_rounds_is_refused():
    with pytest.raises(InvalidArgument, match="rounds=0"):
        alternate({"a": lambda: 1.0}, rounds=0)


@pytest.mark.parametrize(
    ("kind", "value", "met"),
    [
        ("speed-up", 2.5, True),  # 5 s / 2 s
        ("saving", 2.5, True),  # 5 MiB / 2 MiB
        ("share", 40.0, False),  # 2 s of 5 s, and at most 2 % were wanted
        ("growth", 0.4, True),  # 2 s after 5 s: it got cheaper
    ],
)
def test_what_the_figure_says(kind, value, met):
    row = Measurement("what", kind, baseline=5.0, ours=2.0, target=2.0)
    assert row.value == pytest.approx(value)
    assert row.met is met


def test_without_a_target_nothing_is_reached_or_missed():
    assert Measurement("what", "speed-up", 5.0, 2.0).met is None


def test_a_target_missed():
    assert Measurement("what", "speed-up", 5.0, 2.0, target=3.0).met is False
    assert Measurement("what", "growth", 2.0, 5.0, target=1.1).met is False


def test_medians_by_column():
    assert column_medians([(1.0, 10.0), (9.0, 30.0), (2.0, 20.0)]) == [2.0, 20.0]


def test_the_median_ignores_one_slow_call(monkeypatch):
    clock = iter([0.0, 100.0, 0.0, 1.0, 0.0, 50.0, 0.0, 3.0])  # warm-up, then 1 s, 50 s, 3 s
    monkeypatch.setattr("rlhf_gym.pipelines.bench_timing.now", lambda: next(clock))
    assert median_of(lambda: None, rounds=3, warm_up=1) == 3.0


def test_on_one_thread_waiting_costs_nothing():
    with threads(1):
        assert seconds_of(lambda: time.sleep(0.2)) < 0.1
    with threads(2):
        assert seconds_of(lambda: time.sleep(0.2)) >= 0.2


def test_the_number_of_threads_is_put_back():
    import torch

    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
