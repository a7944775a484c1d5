"""What is measured against each other does the same, and the figures are ratios of it."""

import pytest
import torch

from rlhf_gym.pipelines.bench_sb3 import (
    STEPS,
    draw_minibatch,
    language_model,
    make_ours,
    make_stock,
    measure_sb3,
    separate,
    shared,
)
from rlhf_gym.pipelines.bench_task import BenchTask, build_models

TOY = BenchTask(layers=1, hidden=32, heads=2, vocab_size=64, responses=16, response_tokens=8)


def test_rows_of_the_table():
    rows = measure_sb3(TOY, rounds=1)
    assert [row.kind for row in rows] == ["speed-up"] * 5
    assert all(row.baseline > 0 and row.ours > 0 for row in rows)


def test_both_ways_have_the_same_gradient():
    stock = make_stock(build_models(TOY), TOY)
    observations, actions = draw_minibatch(stock, 128)
    parameters = list(language_model(stock).model.parameters())
    gradients = []
    for way in (separate, shared):
        way(stock, observations, actions)
        gradients.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_both_agents_take_as_many_steps_on_as_many_tokens():
    models = build_models(TOY)
    stock, ours = make_stock(models, TOY), make_ours(models, TOY)
    _, callback = ours._setup_learn(1)
    batch = ours.collect_rollouts(callback)
    assert int(batch.mask.sum()) == stock.n_steps * stock.n_envs == 128
    assert stock.n_steps * stock.n_envs / stock.batch_size == pytest.approx(STEPS)
    assert ours.config.minibatches == STEPS
    assert ours.config.epochs == stock.n_epochs == 1
