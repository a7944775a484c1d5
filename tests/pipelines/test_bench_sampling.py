"""Both sides of the sampling benchmark do the same work."""

from __future__ import annotations

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.pipelines.bench_sampling import (
    QUICK_SHAPES,
    SamplingBenchConfig,
    measure_sampling,
    sampling_by_generate,
    sampling_measurements,
    sampling_through_step,
)
from rlhf_gym.pipelines.bench_step import Wave
from rlhf_gym.pipelines.bench_task import BenchTask


def test_both_sides_write_the_whole_budget_with_log_probabilities() -> None:
    task = BenchTask(vocab_size=64, prompt_tokens=6, responses=3, response_tokens=5, minibatches=1)
    model = QUICK_SHAPES[0].build()
    log_probs = sampling_by_generate(model, task)()
    assert log_probs.shape == (3, 5)
    assert log_probs.isfinite().all()
    assert (log_probs < 0).all()
    wave = sampling_through_step(model, task)()
    assert isinstance(wave, Wave)
    assert len(wave.token_seconds) == 5


def test_models_are_the_same_every_time_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second = (QUICK_SHAPES[0].build().state_dict() for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_measurement_compares_with_its_target() -> None:
    (row,) = measure_sampling(QUICK_SHAPES[0], 2, 1, prompt_tokens=4, response_tokens=3)
    assert row.kind == "speed-up"
    assert row.value == pytest.approx(row.baseline / row.ours)
    assert row.target is None


def test_the_quick_run() -> None:
    rows = list(sampling_measurements(SamplingBenchConfig(quick=True, batches=(2,))))
    assert [row.what for row in rows] == [f"{QUICK_SHAPES[0].label}, batch 2"]


def test_a_shape_that_there_is_not() -> None:
    with pytest.raises(InvalidArgument, match="GPT-2 small"):
        SamplingBenchConfig(only="GPT-5")
