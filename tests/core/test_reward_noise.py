"""Rater noise and weights in reward training: what is supposed, what is learned, what is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.raters import RaterNoise
from rlhf_gym.core.supervised.noise_setting import NoiseSetting
from rlhf_gym.core.supervised.preference_batches import (
    judgement_log_probs,
    make_targets,
    random_log_probs,
)
from rlhf_gym.core.supervised.preference_noise import AnswerNoise, RaterNoiseCallback
from rlhf_gym.core.supervised.preference_records import Judgement, judgement, read_judgements
from rlhf_gym.core.supervised.preference_split import split_judgements
from rlhf_gym.core.supervised.reward_model import RewardModelConfig, train_reward_model


def pair(rater: str = "", *, tie: bool = False, weight: float = 1.0) -> Judgement:
    return Judgement("comparison", "p", ("a", "b"), tie=tie, rater=rater, weight=weight)


def thumb(rater: str = "") -> Judgement:
    return Judgement("thumbs", "p", ("a",), 1.0, rater=rater)


def rating(value: float, rater: str = "") -> Judgement:
    return Judgement("rating", "p", ("a",), value, rater=rater)


@pytest.mark.parametrize(
    ("text", "kind", "random"),
    [
        (0.1, "share", 0.1),
        ("0.1", "share", 0.1),
        ("share=0.3", "share", 0.3),
        ("flipped=0.3", "flipped", 0.6),  # of 6 random answers 3 are wrong
        ("learned", "learned", 0.0),
        ("raters", "raters", 0.0),
    ],
)
def test_settings_are_read(text: str | float, kind: str, random: float) -> None:
    setting = NoiseSetting.parse(text)
    assert (setting.kind, setting.random) == (kind, pytest.approx(random))
    assert setting.is_learned == (kind in ("learned", "raters"))


@pytest.mark.parametrize("text", ["share", "some", "raters=3", "share=1", "flipped=0.5", "x=0.1"])
def test_settings_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^noise="):
        NoiseSetting.parse(text)


def test_each_kind_of_judgement_takes_the_noise_of_its_own_rater() -> None:
    judged = [rating(2.0, "a"), pair("b"), thumb("a"), pair("b", tie=True)]
    raters = {"a": 0, "b": 1}
    targets = make_targets(judged, raters)
    # comparisons first, then thumbs, then ratings
    assert targets.raters.tolist() == [1, 1, 0, 0]
    scores = torch.tensor([1.0, 1.0, 0.0, 1.0, 2.0, 0.0])
    found = judgement_log_probs(scores, targets, torch.tensor([0.2, 0.2, 0.5, 0.5]))
    # pair .8 sigmoid(1) + .1 = .684847; thumb .5 sigmoid(1) + .25 = .615529;
    # tie (log(.8 sigmoid(2) + .1) + log(.8 sigmoid(-2) + .1)) / 2 = (log .804638 + log .195362) / 2
    # rating .5 N(2; 1, 1) + .5 N(2; 0, 1) = .5 (.241971 + .053991)
    expected = [0.684847, math.sqrt(0.804638 * 0.195362), 0.615529, 0.147981]
    assert found.exp().tolist() == pytest.approx(expected, abs=1e-5)


def test_random_answers_by_hand() -> None:
    judged = [Judgement("comparison", "p", ("a", "b", "c")), pair(), thumb(), rating(0.0)]
    # 3! = 6 orders, 2 orders, 2 thumbs, N(0; 0, 1) = .398942
    found = random_log_probs(make_targets(judged)).exp().tolist()
    assert found == pytest.approx([1 / 6, 1 / 2, 1 / 2, 0.398942], abs=1e-6)


def test_known_noise_is_believed_step_by_step() -> None:
    noise = AnswerNoise(NoiseSetting.parse("flipped=0.3"))
    nobody = torch.zeros(2, dtype=torch.long)
    assert noise.in_training(nobody) == pytest.approx(0.6)  # where nothing is trained, all of it
    (callback,) = noise.callbacks
    believed = []
    for step in (0, 10, 25, 50, 75):
        state = TrainerState(global_step=step, max_steps=100)
        callback.on_step_begin(TrainingArguments(), state, TrainerControl())
        believed.append(noise.in_training(nobody))
        assert noise.of(nobody) == pytest.approx(0.6)  # what is held out is judged with all of it
    # 0.6 times 0, 10 / 50, 25 / 50, and all from the middle on.
    assert believed == pytest.approx([0.0, 0.12, 0.3, 0.6, 0.6])
    assert AnswerNoise(NoiseSetting.parse(0)).callbacks == []


def test_a_tie_is_no_evidence_about_its_rater() -> None:
    noise = AnswerNoise(NoiseSetting.parse("raters"), [pair("a"), pair("b")])
    targets = make_targets([pair("a", tie=True), pair("b")], noise.numbers)
    noise.observe(torch.tensor([9.0, 0.0, 0.0, 9.0]), targets)
    assert noise.learned is not None
    noise.learned.update()
    assert noise.by_rater["a"] == pytest.approx(0.1)
    assert noise.by_rater["b"] > 0.1  # said the less likely of two


def test_noise_by_rater_needs_raters() -> None:
    with pytest.raises(InvalidArgument, match="some rows name no rater"):
        AnswerNoise(NoiseSetting.parse("raters"), [pair("a"), pair()])


def test_records_name_rater_weight_and_worth() -> None:
    record = {"prompt": "p", "chosen": "a", "rejected": "b", "rater": "anna", "weight": 2}
    found = judgement({**record, "scores": [0.5, -0.5], "meaning": 7}, "record 1")
    assert (found.rater, found.weight, found.worth, found.meaning) == (
        "anna",
        2.0,
        (0.5, -0.5),
        "7",
    )
    assert judgement({**record, "scores": "high"}, "record 1").worth == ()
    with pytest.raises(InvalidData, match="record 1: no weight"):
        judgement({**record, "weight": -1}, "record 1")


def test_skips_are_left_out(tmp_path: Path) -> None:
    file = write(tmp_path, [{"text": "x", "skip": True}, {"text": "y", "label": 1}])
    assert [judged.responses for judged in read_judgements(file)] == [("y",)]


def write(folder: Path, records: list[dict[str, Any]]) -> str:
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


def config(folder: Path, records: list[dict[str, Any]], **changes: Any) -> RewardModelConfig:
    settings: dict[str, Any] = {
        "data": (write(folder, records),),
        "output": str(folder / "reward_model"),
        "tokenizer": "word",
        "vocab_size": 64,
        "context": 16,
        "batch_size": 32,
        "epochs": 4,
        "learning_rate": 3e-3,
        "device": "cpu",
        "progress": False,
    }
    return RewardModelConfig(**(settings | changes))


def test_weights_get_mean_one_and_no_weight_is_left_out(tmp_path: Path) -> None:
    records = [{"text": f"film {i}", "label": i % 2, "weight": [0, 1, 3][i % 3]} for i in range(30)]
    split = split_judgements(config(tmp_path, records, held_out=0.0, validation=0.0))
    assert {judged.weight for judged in split.train} == {0.5, 1.5}
    nobody = [{**record, "weight": 0} for record in records]
    with pytest.raises(InvalidData, match="no row counts"):
        split_judgements(config(tmp_path, nobody))


def crowd(count: int) -> list[dict[str, Any]]:
    """Words good or bad decide; the fourth rater does not read."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(count):
        texts = [f" {rng.choice(words)} film" for words in (("good", "fine"), ("bad", "dull"))]
        rater = ("anna", "bela", "cleo", "coin")[i % 4]
        if rater == "coin" and rng.random() < 0.5:
            texts = texts[::-1]
        records.append({"prompt": f"{i}", "chosen": texts[0], "rejected": texts[1], "rater": rater})
    return records


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("crowd")
    result = train_reward_model(config(folder, crowd(480), noise="raters"))
    summary: dict[str, Any] = json.loads((result.output / "summary.json").read_text())
    return summary | {"markdown": (result.output / "report.md").read_text()}


def test_training_finds_who_does_not_read(learned: dict[str, Any]) -> None:
    noise = learned["report"]["noise"]
    assert noise["coin"] > 0.6
    assert max(noise[name] for name in ("anna", "bela", "cleo")) < 0.2


def test_the_report_tells_raters_apart(learned: dict[str, Any]) -> None:
    by_rater = {row["of"]: row["accuracy"][0] for row in learned["report"]["by_rater"]}
    assert set(by_rater) == {"anna", "bela", "cleo", "coin"}
    assert min(by_rater[name] for name in ("anna", "bela", "cleo")) > 0.9
    assert "| coin |" in learned["markdown"]


def test_a_resumed_run_has_the_noise_of_its_checkpoint() -> None:
    first, second = RaterNoise(["anna"]), RaterNoise(["anna"])
    first.observe(torch.tensor([0]), torch.tensor([-3.0]), torch.tensor([-0.7]))
    first.update()
    first.observe(torch.tensor([0]), torch.tensor([-3.0]), torch.tensor([-0.7]))
    # What Trainer writes into trainer_state.json, and reads from it.
    kept = json.loads(json.dumps(RaterNoiseCallback(first).state()))
    state = TrainerState(stateful_callbacks={"RaterNoiseCallback": kept})
    arguments = TrainingArguments(use_cpu=True)
    RaterNoiseCallback(second).on_train_begin(arguments, state, TrainerControl())
    for noise in (first, second):
        noise.update()
    assert first.by_rater == second.by_rater != {"anna": 0.1}
