"""Waves are whole, and shares are shares of the sampling."""

import pytest
import torch

from rlhf_gym.pipelines.bench_step import (
    attention_seconds,
    make_env,
    make_sampler,
    measure_growth,
    measure_step,
    sample_wave,
)
from rlhf_gym.pipelines.bench_task import BenchTask, build_models
from rlhf_gym.rewards.base import ScoreTerm

TOY = BenchTask(layers=1, hidden=32, heads=2, vocab_size=64, responses=4, response_tokens=8)


class CountingReward(ScoreTerm):
    name = "counting"

    def __init__(self):
        self.lengths = []
        self.log_probs_known = False

    def scores(self, episodes):
        self.lengths.append(episodes.lengths.tolist())
        self.log_probs_known = bool(episodes.log_probs.isfinite().all())
        return torch.zeros(len(episodes))


def test_a_wave_writes_whole_responses_and_scores_them_once():
    models, reward = build_models(TOY), CountingReward()
    env = make_env(models, TOY, 4, reward)
    wave = sample_wave(env, make_sampler(models, TOY))

    assert reward.lengths == [[8, 8, 8, 8]]
    assert reward.log_probs_known
    assert len(wave.token_seconds) == 8
    assert wave.stepping > 0
    assert wave.sampling > sum(wave.token_seconds)  # the prefill comes on top


def test_the_shares_are_of_one_sampling_time():
    rows = measure_step(TOY, batch=4, rounds=1)
    assert [row.kind for row in rows] == ["share"] * 4
    assert len({row.baseline for row in rows}) == 1
    assert rows[0].target == 2.0
    assert rows[0].ours > rows[1].ours > 0  # a step that does nothing costs less


def test_growth_takes_attention_out():
    whole, attention, rest = measure_growth(TOY, batch=2, rounds=1)
    assert rest.baseline == pytest.approx(whole.baseline - attention.baseline)
    assert rest.ours == pytest.approx(whole.ours - attention.ours)
    assert rest.target == 1.1


def test_attention_over_more_keys_takes_longer():
    assert attention_seconds(TOY, 16, 2000, rounds=2) > attention_seconds(TOY, 16, 20, rounds=2)
