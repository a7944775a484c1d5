"""The story study: what is paid, what is measured, and one small run on the real model."""

import json
import math
import os
from pathlib import Path

import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.pipelines.generation import Generation
from rlhf_gym.pipelines.studies import StudyConfig
from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.story_feedback import (
    feedback_config,
    leave_out_ties,
    reward_model_config,
    write_files,
)
from rlhf_gym.pipelines.studies.story_task import (
    RESPONSE_TOKENS,
    StoryMeasurement,
    StoryTask,
    feelings,
    opening,
)

real_data = pytest.mark.skipif(
    "RLHF_GYM_DATA" not in os.environ, reason="RLHF_GYM_DATA names no folder of real data"
)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("The tree was big.", 0),
        ("She was happy. He was happy too.", 1),
        ("Happy and SAD!", 2),
        ("an unhappy boy felt sadness", 0),
        ("happy sad shy proud angry", 3),
    ],
)
def test_different_feelings_are_paid_up_to_three(text, score):
    assert feelings(["Once."], [text]) == [score]


@pytest.mark.parametrize(
    ("story", "first"),
    [
        ("Once there was a red fox. It ran.", "Once there was a red fox."),
        ("Tim ran. He was a very quick boy indeed.", None),
        ('Tim said, "Look at my big red ball." He ran.', None),
        ("Once there was a red fox", None),
    ],
)
def test_an_opening_is_a_first_sentence(story, first):
    assert opening(story) == first


def written(completion, tokens, log_prob, kl, score=1.0, gold=None):
    return Generation(0, "Once.", completion, tokens, log_prob, score, {}, gold, kl, False)


def test_perplexity_is_the_references_not_the_policys():
    """log pi_ref = log pi - kl: -2 - 1 = -3 and -1 - 0 = -1, so 4 nats over 3 + 1 tokens."""
    measured = StoryMeasurement.of(
        [written("a b a", [4, 5, 4], -2.0, 1.0), written("zzz", [6], -1.0, 0.0, score=0.0)],
        known={"a", "b"},
    )
    assert measured.perplexity == pytest.approx(math.exp(4 / 4))
    assert measured.kl == pytest.approx(0.5)
    # words a, b, a are known and zzz is not
    assert measured.known_words == pytest.approx(3 / 4)
    assert measured.score == measured.gold == pytest.approx(0.5)


def test_gold_is_kept_apart_from_the_reward():
    measured = StoryMeasurement.of([written("a", [4], -1.0, 0.0, score=2.0, gold=3.0)], {"a"})
    assert (measured.score, measured.gold) == (2.0, 3.0)


def test_ties_are_left_out(tmp_path):
    pairs = [{"chosen": "a", "rejected": "b"}, {"chosen": "c", "rejected": "d", "tie": True}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    assert leave_out_ties(tmp_path / "pairs.jsonl", tmp_path / "decided.jsonl") == 1
    assert json.loads((tmp_path / "decided.jsonl").read_text()) == pairs[0]


def test_what_is_kept_is_computed_again_only_if_something_changed(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"runs": len(calls), "interval": (0.5, math.nan)}

    path = tmp_path / "seed-0" / "result.json"
    for settings, runs in (({"seed": 0}, 1), ({"seed": 0}, 1), ({"seed": 1}, 2)):
        assert kept(path, settings, compute) == {"runs": runs, "interval": [0.5, None]}


def test_real_data_is_asked_for_by_name(monkeypatch):
    monkeypatch.delenv("RLHF_GYM_DATA", raising=False)
    with pytest.raises(InvalidArgument, match="RLHF_GYM_DATA"):
        _ = StudyConfig("stories").data_folder


@real_data
def test_the_storyteller_continues_openings(tmp_path):
    task = StoryTask.load(Path(os.environ["RLHF_GYM_DATA"]))
    assert task.tokenizer.eos_token_id == task.tokenizer.bos_token_id == 1
    assert not set(task.prompts) & set(task.held_out)
    env = task.env(task.held_out[:32], feelings, kl_coef=0.1, num_envs=32)
    # BOS and the whole opening, nothing taken off at its end
    assert task.tokenizer.decode(env.prompts.tokens[1 : env.prompts.ends[0]]) == task.held_out[0]
    measured = task.measure(task.model, env, seed=0)
    assert measured.kl == pytest.approx(0, abs=1e-3)
    # It was published with 1.30 nats a token, a perplexity of 3.7; its own samples are near that.
    assert 3 < measured.perplexity < 5
    assert measured.known_words > 0.9

    files = write_files(task, tmp_path)
    asked = feedback_config(files, tmp_path / "pairs.jsonl", held_out=True, seed=0)
    assert asked.labeler == "oracle"
    assert asked.environment.max_response_tokens == RESPONSE_TOKENS
    learned = reward_model_config(files, tmp_path / "a", tmp_path / "b", tmp_path / "c", seed=1)
    assert Path(learned.model or "", "model.safetensors").is_file()
