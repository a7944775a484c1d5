"""Collected records say what the labeler thought, and the reward-model stage can read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tyro

from rlhf_gym.core.data import read_records
from rlhf_gym.core.errors import (
    FolderNotWritable,
    InvalidArgument,
    InvalidCheckpoint,
    TokenizerMismatch,
)
from rlhf_gym.core.models import save_model
from rlhf_gym.core.supervised.preference_data import read_judgements
from rlhf_gym.pipelines.collect import CollectConfig, CollectResult, collect
from rlhf_gym.pipelines.environment import EnvironmentConfig
from rlhf_gym.pipelines.evaluate import EvaluateConfig

EXACT = EnvironmentConfig(env="rlhf_gym/Exact-v0", num_envs=16)


def collected(folder: Path, **changes: Any) -> tuple[CollectResult, list[dict[str, Any]]]:
    settings: dict[str, Any] = {
        "environment": EXACT,
        "output": str(folder / "feedback.jsonl"),
        "prompts": 24,
    }
    result = collect(CollectConfig(**(settings | changes)))
    return result, read_records(result.output) if result.records else []


def test_an_oracle_prefers_what_is_worth_more(tmp_path: Path) -> None:
    result, records = collected(tmp_path)
    assert result.completions == 48
    assert result.records == len(records) == result.queries
    for record in records:
        better, worse = record["scores"]
        assert better >= worse
        assert record["chosen"] != record["rejected"]
        assert record["labeler"] == "oracle"
        assert record["policy"] == "reference"
        assert record["task"] == "rlhf_gym/Exact-v0"
    assert any(better > worse for better, worse in (record["scores"] for record in records))


def test_a_bar_counts_responses_if_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collected(tmp_path, prompts=20)
    assert "40/40" in capsys.readouterr().out
    collected(tmp_path, prompts=20, progress=False)
    assert capsys.readouterr().out == ""


def test_the_reward_model_stage_reads_them(tmp_path: Path) -> None:
    result, records = collected(tmp_path, completions=4)
    judgements = read_judgements(result.output)
    assert len(judgements) == len(records)
    assert {judged.kind for judged in judgements} == {"comparison"}
    assert {len(judged.responses) for judged in judgements} <= {2, 3, 4}
    for judged, record in zip(judgements, records, strict=True):
        assert list(judged.stopped) == record["stopped"]
        if not judged.tie:
            assert record["scores"] == sorted(record["scores"], reverse=True)


@pytest.mark.parametrize(
    ("question", "column", "count"), [("thumb", "label", 1), ("rating", "rating", 1)]
)
def test_each_answer_can_be_judged_alone(
    tmp_path: Path, question: str, column: str, count: int
) -> None:
    result, records = collected(tmp_path, question=question, completions=count)
    assert len(records) == result.queries == 24
    for record in records:
        (score,) = record["scores"]
        assert record[column] == pytest.approx(score if column == "rating" else score > 0)


def test_best_of_several_makes_pairs(tmp_path: Path) -> None:
    _, records = collected(tmp_path, question="best", completions=3)
    assert all(record["scores"][0] >= record["scores"][1] for record in records)
    assert len(records) > 24


def test_labelers_err_as_they_should(tmp_path: Path) -> None:
    _, records = collected(tmp_path, labeler="mistake", prompts=200)
    wrong = sum(record["scores"][0] < record["scores"][1] for record in records)
    # One in ten is turned round: 18 of 180 or so, fewer for those that turn a tie.
    assert 5 <= wrong <= 35


def test_the_same_seed_collects_the_same(tmp_path: Path) -> None:
    first, _ = collected(tmp_path, output=str(tmp_path / "a.jsonl"), labeler="stochastic")
    second, _ = collected(tmp_path, output=str(tmp_path / "b.jsonl"), labeler="stochastic")
    other, _ = collected(tmp_path, output=str(tmp_path / "c.jsonl"), labeler="stochastic", seed=1)
    assert first.output.read_text() == second.output.read_text()
    assert first.output.read_text() != other.output.read_text()


def test_the_gold_reward_is_what_a_labeler_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counting.py").write_text(
        "def letters(prompts, responses):\n    return [float(len(r.split())) for r in responses]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    environment = EnvironmentConfig(env="rlhf_gym/Exact-v0", num_envs=16, gold="counting:letters")
    _, by_gold = collected(tmp_path, environment=environment)
    for record in by_gold:
        assert record["scores"][0] == len(record["chosen"].split())
    _, by_score = collected(tmp_path, environment=environment, judge="score")
    assert by_gold != by_score


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"completions": 1}, "completions"),
        ({"prompts": 0}, "prompts"),
        ({"labeler": "aunt"}, "labeler"),
        ({"output": "pairs.parquet"}, "output"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{field}="):
        CollectConfig(**changes)


def test_what_is_missing_is_named_before_sampling(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no gold reward"):
        collected(tmp_path, judge="gold")
    with pytest.raises(InvalidCheckpoint):
        collected(tmp_path, policy=str(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderNotWritable):
        collected(tmp_path, output=str(tmp_path / "file" / "feedback.jsonl"))


@pytest.mark.parametrize("config", [CollectConfig, EvaluateConfig])
def test_flags_do_not_clash(config: type[CollectConfig | EvaluateConfig]) -> None:
    # The environment's flags stand beside the command's own, without a prefix.
    parsed = tyro.cli(config, args=["--env", "rlhf_gym/Exact-v0", "--seed", "3"])
    assert (parsed.environment.env, parsed.seed) == ("rlhf_gym/Exact-v0", 3)


def test_a_model_may_label(tmp_path: Path) -> None:
    """An untrained one says nothing that is an answer: every query is skipped, and counted."""
    from rlhf_gym.core.ai_config import AIConfig
    from rlhf_gym.core.models import new_causal_lm, save_model
    from rlhf_gym.core.tokenizers import train_tokenizer

    tokenizer = train_tokenizer(["Reply with A or B"], "char", 128, context=1024)
    judge = save_model(new_causal_lm("tiny", tokenizer, 1024, seed=0), tokenizer, tmp_path / "lm")
    result = collect(
        CollectConfig(
            environment=EnvironmentConfig(num_envs=8),
            output=str(tmp_path / "feedback.jsonl"),
            prompts=4,
            labeler="model",
            ai=AIConfig(directory=str(judge), max_tokens=2),
        )
    )
    assert (result.records, result.skipped) == (0, result.queries)


def test_a_policy_of_other_tokens_is_refused(tmp_path: Path) -> None:
    from rlhf_gym.envs.exact.babbler import babbler, letter_tokenizer
    from rlhf_gym.envs.sentiment.task import REFERENCE

    with pytest.raises(TokenizerMismatch, match=r"policy=.*495 tokens are not the 7"):
        collected(tmp_path, policy=str(REFERENCE))
    own = save_model(babbler(), letter_tokenizer(), tmp_path / "own")
    result, _ = collected(tmp_path, policy=str(own))
    assert result.completions == 48
