"""Responses through the environment are the sampler's own, and what is said of them is true."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.sampler import complete
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs.exact import ExactVectorEnv
from rlhf_gym.envs.exact.babbler import STOP_ID
from rlhf_gym.pipelines.generation import (
    Generation,
    draw_prompts,
    filler_token,
    generate,
    text_task,
)


def reference_answers(count: int = 12, num_envs: int = 12, **options: Any) -> list[Generation]:
    env = ExactVectorEnv(num_envs=num_envs, **options)
    return generate(env.reference, env, draw_prompts(env, count, seed=0), seed=3)


def test_the_environment_sees_what_the_sampler_writes() -> None:
    env = ExactVectorEnv(num_envs=12)
    prompts = draw_prompts(env, 12, seed=0)
    answers = generate(env.reference, env, prompts, seed=3)
    ids, mask = env.prompts.padded(prompts, env.prompt_width, env.rules.pad_id)
    expected = complete(
        env.reference,
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        env.rules,
        env.max_response_tokens,
        torch.Generator().manual_seed(3),
    )
    for row, answer in enumerate(answers):
        length = int(expected.mask[row].sum())
        assert answer.tokens == expected.response_ids[row, :length].tolist()
        assert answer.stopped == bool(expected.stopped[row])
        assert answer.log_prob == pytest.approx(float(expected.log_probs[row].sum()), abs=1e-5)
        assert answer.prompt == env.prompts.texts[prompts[row]]


def test_what_is_said_of_a_response_is_true() -> None:
    answers = reference_answers(40)
    assert {answer.stopped for answer in answers} == {True, False}
    for answer in answers:
        assert answer.stopped == (answer.tokens[-1] == STOP_ID)
        assert answer.length == 5 or answer.stopped
        assert len(answer.completion.split()) == answer.length - answer.stopped
        assert answer.kl == pytest.approx(0.0, abs=1e-5)
        assert answer.score == pytest.approx(answer.terms["ladder"])
        assert answer.record()["finish_reason"] == ("stop" if answer.stopped else "length")


def test_autoreset_modes_make_no_difference() -> None:
    same, following, disabled = (
        reference_answers(30, autoreset_mode=mode) for mode in ("SameStep", "NextStep", "Disabled")
    )
    assert [a.tokens for a in same] == [a.tokens for a in following] == [a.tokens for a in disabled]
    assert [a.score for a in same] == [a.score for a in following] == [a.score for a in disabled]


def test_more_and_fewer_prompts_than_rows() -> None:
    assert len(reference_answers(count=7, num_envs=3)) == 7
    assert len(reference_answers(count=2, num_envs=5)) == 2


def test_the_same_seed_writes_the_same() -> None:
    assert reference_answers() == reference_answers()


def test_greedy_responses_need_no_seed() -> None:
    env = ExactVectorEnv(num_envs=3)
    prompts = np.arange(3)
    first, second = (
        generate(env.reference, env, prompts, seed=seed, deterministic=True) for seed in (0, 1)
    )
    assert [answer.tokens for answer in first] == [answer.tokens for answer in second]


def test_action_masks_are_obeyed() -> None:
    # No stop token among the first three, so the shortest response has one behind three letters.
    answers = reference_answers(60, min_response_tokens=3)
    assert min(answer.length for answer in answers) == 4


def test_an_exact_kl_penalty_gets_its_distributions() -> None:
    env = ExactVectorEnv(num_envs=16, kl_estimator="exact", kl_coef=0.1)
    model = copy.deepcopy(env.reference)
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(0.5)
    answers = generate(model, env, draw_prompts(env, 16, 0), seed=0)
    # An exact KL is never negative, so its penalty never pays; a sampled one may.
    assert all(answer.terms["kl"] < 0 for answer in answers)


def test_prompts_come_once_before_any_comes_again() -> None:
    env = ExactVectorEnv(num_envs=2)
    drawn = draw_prompts(env, 8, seed=5)
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [0, 1, 2]
    assert np.array_equal(drawn, draw_prompts(env, 8, seed=5))
    with pytest.raises(InvalidArgument, match="prompts=0"):
        draw_prompts(env, 0, seed=5)


def test_other_environments_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="not a batch of text environments"):
        text_task(gym.make_vec("CartPole-v1", num_envs=2))


def test_a_filler_ends_nothing_where_it_can() -> None:
    assert filler_token(TokenRules(4, 0, (1,), banned_ids=(2,))) == 3
    assert filler_token(TokenRules(3, 0, (1, 2))) == 1
