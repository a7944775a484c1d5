"""Evaluation against the exact answers of Exact-v0, and the files it leaves."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from rlhf_gym.core.data import read_records
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.models import save_model
from rlhf_gym.core.scoring import token_log_probs
from rlhf_gym.envs.exact import ExactVectorEnv
from rlhf_gym.envs.exact.babbler import BAIT_ID, babbler, letter_tokenizer
from rlhf_gym.envs.text import TextGenerationVectorEnv
from rlhf_gym.pipelines.environment import EnvironmentConfig
from rlhf_gym.pipelines.evaluate import (
    EvaluateConfig,
    Evaluation,
    evaluate,
    evaluate_policy,
    sample_table,
    show,
)
from rlhf_gym.pipelines.generation import Generation


def sceptic() -> PreTrainedModel:
    """The reference with a dislike of bait: a policy that is better and not far away."""
    model = babbler()
    head = torch.nn.Linear(32, 7)
    with torch.no_grad():
        head.weight.copy_(model.lm_head.weight)
        head.bias.zero_()
        head.bias[BAIT_ID] = -2.0
    model.config.tie_word_embeddings = False
    model.lm_head = head
    return model


@pytest.fixture(scope="module")
def evaluated() -> tuple[ExactVectorEnv, PreTrainedModel, Evaluation]:
    env, model = ExactVectorEnv(num_envs=128), sceptic()
    return env, model, evaluate_policy(model, env, episodes=768, seed=1)


def test_samples_agree_with_the_exact_answers(
    evaluated: tuple[ExactVectorEnv, PreTrainedModel, Evaluation],
) -> None:
    env, model, evaluation = evaluated
    exact = env.judge.performance(model)
    report = evaluation.policy
    assert report.kl is not None
    # A 95 % interval is 4 standard errors wide: the truth is within 3 of them, seed fixed.
    for estimate, truth in ((report.score, exact.reward), (report.kl, exact.kl)):
        error = (estimate.high - estimate.low) / (2 * 1.959964)
        assert estimate.value == pytest.approx(float(truth.mean()), abs=3 * error)
    assert report.kl.low > 0
    assert evaluation.win_rate is not None
    assert evaluation.win_rate.low > 0.5


def test_perplexity_is_the_reference_passs_own(
    evaluated: tuple[ExactVectorEnv, PreTrainedModel, Evaluation],
) -> None:
    env, _, evaluation = evaluated
    nats, tokens = 0.0, 0
    for sample in evaluation.samples[:64]:
        prompt = letter_tokenizer()(sample.prompt)["input_ids"]
        ids = torch.tensor([[*prompt, *sample.tokens]])
        scored = token_log_probs(env.reference, ids, torch.ones_like(ids), len(prompt), env.rules)
        nats -= float(scored.sum())
        tokens += sample.length
    from rlhf_gym.pipelines.evaluate import describe

    assert describe(evaluation.samples[:64]).perplexity == pytest.approx(
        math.exp(nats / tokens), rel=1e-4
    )


def test_the_reference_beside_itself() -> None:
    env = ExactVectorEnv(num_envs=32)
    evaluation = evaluate_policy(copy.deepcopy(env.reference), env, episodes=64)
    assert evaluation.win_rate == (0.5, 0.5, 0.5)
    assert evaluation.policy.kl is not None
    assert evaluation.policy.kl.value == pytest.approx(0.0, abs=1e-5)
    assert evaluation.policy == evaluation.reference
    assert sum(evaluation.policy.finish.values()) == pytest.approx(1.0)


def test_without_a_reference_there_is_nothing_beside_it() -> None:
    env = TextGenerationVectorEnv(
        ["b", "a d"],
        letter_tokenizer(),
        reward=lambda prompts, responses: [float(len(r)) for r in responses],
        gold=lambda prompts, responses: [-float(len(r)) for r in responses],
        num_envs=4,
        max_response_tokens=3,
    )
    evaluation = evaluate_policy(babbler(), env, episodes=8)
    assert evaluation.reference is evaluation.win_rate is evaluation.policy.kl is None
    assert evaluation.policy.perplexity is None
    assert evaluation.policy.gold is not None
    assert evaluation.policy.gold.value == pytest.approx(-evaluation.policy.score.value)


def test_files_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = babbler()
    with torch.no_grad():
        policy.transformer.ln_f.weight.mul_(0.5)  # as a higher temperature would do
    save_model(policy, letter_tokenizer(), tmp_path / "policy")
    config = EvaluateConfig(
        environment=EnvironmentConfig(env="rlhf_gym/Exact-v0", num_envs=32),
        policy=str(tmp_path / "policy"),
        output=str(tmp_path / "evaluation"),
        episodes=40,
        examples=5,
    )
    show(config)
    shown = capsys.readouterr().out
    assert "80/80" in shown  # responses of both
    assert "win rate" in shown
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    assert summary["policy"]["kl"][0] > 0.01
    assert 0 <= summary["win_rate"][1] <= summary["win_rate"][0] <= summary["win_rate"][2] <= 1
    rows = read_records(tmp_path / "evaluation" / "samples.jsonl")
    assert len(rows) == 40
    assert rows[0]["reference"]["prompt"] == rows[0]["prompt"]
    table = (tmp_path / "evaluation" / "samples.md").read_text().splitlines()
    assert table[0] == "| prompt | reference | policy | score | gold | kl |"
    assert len(table) == 2 + 5
    again = evaluate(dataclasses.replace(config, progress=False))
    assert capsys.readouterr().out == ""
    assert [sample.completion for sample in again.samples] == [row["completion"] for row in rows]


def test_a_judge_that_is_not_there_is_named_before_anything_is_written() -> None:
    env = ExactVectorEnv(num_envs=2)
    env.step = None  # nobody gets that far
    with pytest.raises(InvalidArgument, match="no gold reward"):
        evaluate_policy(env.reference, env, episodes=2, judge="gold")


def test_texts_cannot_break_the_table() -> None:
    sample = Generation(0, "a|b", "x\ny `z` <b>", [1], -1.0, 0.0, {}, None, None, True)
    evaluation = Evaluation(policy_report(), None, None, [sample], [])
    row = sample_table(evaluation, 1).splitlines()[2]
    assert row == "| a\\|b | x y \\`z\\` \\<b> | 0.00 |  |  |"


def policy_report() -> Any:
    env = ExactVectorEnv(num_envs=2)
    return evaluate_policy(env.reference, env, episodes=2).policy


def test_bad_settings_are_named() -> None:
    with pytest.raises(InvalidArgument, match="episodes=0"):
        EvaluateConfig(episodes=0)
    with pytest.raises(InvalidArgument, match="examples=-1"):
        EvaluateConfig(examples=-1)
