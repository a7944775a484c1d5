"""Reward training end to end on a language of nine words: what is learned, chosen and written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from rlhf_gym.core.errors import FolderNotWritable, InvalidArgument, InvalidCheckpoint, InvalidData
from rlhf_gym.core.models import load_reward_model, load_tokenizer
from rlhf_gym.core.reward_head import per_token_scores, reward_mean
from rlhf_gym.core.supervised.preference_batches import FeedbackCollator, make_targets
from rlhf_gym.core.supervised.preference_data import Example, Judgement, encode
from rlhf_gym.core.supervised.preference_split import split_judgements
from rlhf_gym.core.supervised.reward_evaluation import (
    decisions,
    evaluate_reward_model,
    score_sequences,
)
from rlhf_gym.core.supervised.reward_model import (
    RewardModelConfig,
    RewardModelResult,
    feedback_loss,
    train_reward_model,
)

GOOD, BAD, PLAIN = ("good", "great", "fine"), ("bad", "poor", "dull"), ("film", "plot", "cast")


def review(rng: np.random.Generator, praise: bool) -> str:
    words = [str(rng.choice(GOOD if praise else BAD)), *map(str, rng.choice(PLAIN, 3))]
    return " " + " ".join(rng.permutation(words))


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {"prompt": f"{i}", "chosen": review(rng, True), "rejected": review(rng, False)}
        for i in range(count)
    ]


def write(folder: Path, records: list[dict[str, Any]], name: str = "data.jsonl") -> str:
    file = folder / name
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


def config(folder: Path, file: str, **changes: Any) -> RewardModelConfig:
    settings: dict[str, Any] = {
        "data": (file,),
        "output": str(folder / "reward_model"),
        "tokenizer": "word",
        "vocab_size": 64,
        "context": 16,
        "batch_size": 8,
        "epochs": 2,
        "learning_rate": 3e-3,
        "device": "cpu",
        "progress": False,
    }
    return RewardModelConfig(**(settings | changes))


def learn(
    folder: Path, records: list[dict[str, Any]], **changes: Any
) -> tuple[RewardModelResult, Any]:
    result = train_reward_model(config(folder, write(folder, records), **changes))
    return result, json.loads((result.output / "summary.json").read_text())


def scores_of(folder: Path, texts: list[str]) -> torch.Tensor:
    tokenizer = load_tokenizer(folder)
    judged = [Judgement("rating", "", (text,)) for text in texts]
    sequences = [example.sequences[0] for example in encode(judged, tokenizer)]
    return score_sequences(load_reward_model(folder), sequences, int(tokenizer.pad_token_id))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RewardModelResult, Any]:
    return learn(tmp_path_factory.mktemp("pairs"), pairs(300))


def test_pairs_are_learned_and_judged_on_unseen_prompts(
    trained: tuple[RewardModelResult, Any],
) -> None:
    # Chance is 0.5; the words decide, so all 30 held-out pairs can be told apart.
    result, summary = trained
    assert result.accuracy > 0.9
    assert result.accuracy_interval[0] <= result.accuracy <= result.accuracy_interval[1]
    assert result.held_out_judgements == 30
    assert result.loss < math.log(2)
    assert summary["held_out"]["decisions"] == 30
    assert sum(band["size"] for band in summary["reliability"]) == 30


def test_scores_are_normalised_on_the_training_responses(
    trained: tuple[RewardModelResult, Any],
) -> None:
    result, _ = trained
    model = load_reward_model(result.output)
    split = split_judgements(config(result.output.parent, str(result.output.parent / "data.jsonl")))
    tokenizer = load_tokenizer(result.output)
    sequences = [ids for e in encode(split.train, tokenizer, 16) for ids in e.sequences]
    scores = score_sequences(model, sequences, int(tokenizer.pad_token_id))
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert scores.std(correction=0).item() == pytest.approx(1.0, abs=1e-4)
    assert reward_mean(model.config) == pytest.approx(result.score_mean / result.score_std)
    assert not (result.output / "checkpoints").exists()


def test_rankings_thumbs_and_ratings_are_learned(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    records: list[dict[str, Any]] = []
    for i in range(120):
        good, bad = review(rng, True), review(rng, False)
        records += [
            {"prompt": f"{i}", "ranking": [good, f"{good} {bad}", bad]},
            {"prompt": f"{i}", "completion": good, "label": True},
            {"prompt": f"{i}", "completion": bad, "label": False},
            {"prompt": f"{i}", "completion": good, "rating": 9.0},
            {"prompt": f"{i}", "completion": bad, "rating": 3.0},
        ]
    result, summary = learn(tmp_path, records, epochs=1)
    assert result.held_out_judgements == 5 * 12
    assert summary["held_out"]["decisions"] == 12 * (3 + 2)
    assert result.accuracy > 0.8
    assert result.rating_concordance > 0.9
    good, bad = scores_of(result.output, [" great film", " poor film"]).tolist()
    assert good > bad


def test_labelled_texts_are_thumbs(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    records = [{"text": review(rng, i % 2 == 0), "label": int(i % 2 == 0)} for i in range(300)]
    # Sorted as real files are: the split and the limit must not take one label only.
    records.sort(key=lambda record: record["label"])
    result, _ = learn(tmp_path, records, limit=250)
    assert result.train_judgements + result.held_out_judgements <= 250
    assert result.accuracy > 0.9
    assert math.isnan(result.longer_wins)


def test_unfinished_responses_can_be_scored_too(tmp_path: Path) -> None:
    result, _ = learn(tmp_path, pairs(200), cut=0.5)
    assert result.accuracy > 0.9


def test_normalising_on_given_responses(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    texts = [review(rng, True) for _ in range(40)]
    samples = write(tmp_path, [{"text": text} for text in texts], "samples.jsonl")
    result, _ = learn(tmp_path, pairs(120), normalise_on=samples, epochs=1)
    scores = scores_of(result.output, texts)
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert scores.std(correction=0).item() == pytest.approx(1.0, abs=1e-3)


def test_the_same_seed_gives_the_same_model_and_a_killed_run_goes_on_to_it(tmp_path: Path) -> None:
    records = pairs(80)
    straight, _ = learn(tmp_path / _made(tmp_path, "a"), records)
    broken = tmp_path / _made(tmp_path, "b")
    with pytest.raises(KeyboardInterrupt):
        _learn_until(broken, records, steps=3)
    resumed, _ = learn(broken, records)
    expected = load_reward_model(straight.output).state_dict()
    found = load_reward_model(resumed.output).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed.accuracy == straight.accuracy


def _made(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    return name


def _learn_until(folder: Path, records: list[dict[str, Any]], steps: int) -> None:
    from rlhf_gym.core.supervised import reward_model

    calls = 0
    whole_loss = reward_model.feedback_loss

    def dying_loss(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > steps:
            raise KeyboardInterrupt
        return whole_loss(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward_model, "feedback_loss", dying_loss)
        learn(folder, records)


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    from rlhf_gym.core.supervised.best_model import BestModel

    model = load_reward_model(learn(tmp_path, pairs(40), epochs=1)[0].output)
    best = BestModel(tmp_path)
    weight = model.score.weight
    for value, loss in ((1.0, 0.6), (2.0, 0.5), (3.0, 0.55), (4.0, math.nan)):
        with torch.no_grad():
            weight.fill_(value)
        best.offer(model, loss)
    BestModel(tmp_path).offer(model, 0.52)  # as after a resumption: 0.5 is still the best
    best.restore(model)
    assert weight.unique().tolist() == [2.0]


def test_the_loss_of_a_batch_is_that_of_its_pairs_in_any_order(
    trained: tuple[RewardModelResult, Any],
) -> None:
    folder = trained[0].output
    model, tokenizer = load_reward_model(folder), load_tokenizer(folder)
    model.config.reward_mean = 0.0
    collate = FeedbackCollator(int(tokenizer.pad_token_id))
    judged = [Judgement("comparison", p["prompt"], (p["chosen"], p["rejected"])) for p in pairs(6)]
    examples = encode(judged, tokenizer)
    with torch.no_grad():
        whole = feedback_loss(model, collate(examples))
        shuffled = feedback_loss(model, collate(examples[::-1]))
        alone = torch.stack([feedback_loss(model, collate([example])) for example in examples])
    torch.testing.assert_close(whole, alone.mean())
    torch.testing.assert_close(whole, shuffled)


def test_the_token_loss_is_that_of_the_mean_score_of_a_response(
    trained: tuple[RewardModelResult, Any],
) -> None:
    folder = trained[0].output
    model, tokenizer = load_reward_model(folder), load_tokenizer(folder)
    model.config.reward_mean = 0.0
    judged = [Judgement("comparison", "0", (" good film plot", " dull cast"))]
    examples = encode(judged, tokenizer)
    (better, worse), start = examples[0].sequences, len(examples[0].sequences[0]) - 4
    batch = FeedbackCollator(int(tokenizer.pad_token_id))(examples)
    with torch.no_grad():
        last, half, mean = (feedback_loss(model, batch, token_loss=s) for s in (0.0, 0.5, 1.0))
        prefixes = per_token_scores(model, batch["input_ids"], batch["attention_mask"])
    # After the same prompt 3 words and EOS, or 2 words and EOS.
    margin = prefixes[0, start : len(better)].mean() - prefixes[1, start : len(worse)].mean()
    torch.testing.assert_close(mean, -torch.nn.functional.logsigmoid(margin))
    torch.testing.assert_close(half, (last + mean) / 2)


def test_where_responses_are_one_token_the_token_loss_changes_nothing(
    trained: tuple[RewardModelResult, Any],
) -> None:
    folder = trained[0].output
    model, tokenizer = load_reward_model(folder), load_tokenizer(folder)
    judged = [Judgement("thumbs", "0 good", ("",), 1.0), Judgement("rating", "1 dull", ("",), -0.5)]
    batch = FeedbackCollator(int(tokenizer.pad_token_id))(encode(judged, tokenizer))
    model.config.reward_mean = 0.0
    losses = [feedback_loss(model, batch, token_loss=share) for share in (0.0, 0.7)]
    torch.testing.assert_close(losses[0], losses[1])


def test_an_encoder_has_no_token_loss() -> None:
    encoder = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=8,
            hidden_size=4,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=4,
            num_labels=1,
        )
    )
    batch = FeedbackCollator(0)([Example(Judgement("thumbs", "", ("a",), 1.0), ([3, 2],), (1,))])
    with pytest.raises(InvalidArgument, match="encoder has no scores for prefixes"):
        feedback_loss(encoder, batch, token_loss=0.5)


def test_decisions_by_hand() -> None:
    judged = [
        Judgement("comparison", "p", ("a", "b", "c")),
        Judgement("comparison", "q", ("a", "b"), tie=True),
        Judgement("thumbs", "", ("a",), 0.0),
        Judgement("comparison", "r", ("a", "b")),
    ]
    examples = [Example(j, tuple([1] for _ in j.responses), (1,)) for j in judged]
    scores = np.array([3.0, 1.0, 2.0, 0.0, 9.0, -4.0, 1.0, 1.0])
    lengths = np.array([5, 5, 7, 1, 1, 3, 2, 1])
    found = decisions(scores, lengths, examples, make_targets(judged))
    # p: a > b by 2, a > c by 1, b < c by 1; r: equal; the tie says nothing; thumb down at -4: 4
    assert found.margins.tolist() == [2.0, 1.0, -1.0, 0.0, 4.0]
    assert found.longer[:4].tolist() == [0.5, 0.0, 0.0, 1.0]
    assert found.groups == ["p", "p", "p", "r", "a"]
    # 2 + 1/2 + 1 right of 5
    assert found.accuracy.value == pytest.approx(0.7)


def test_without_held_out_data_nothing_is_claimed(trained: tuple[RewardModelResult, Any]) -> None:
    model = load_reward_model(trained[0].output)
    metrics, bands = evaluate_reward_model(model, [], 0)
    assert math.isnan(metrics.accuracy)
    assert (metrics.judgements, metrics.decisions, bands) == (0, 0, [])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"data": ()}, "data"),
        ({"context": 1}, "context"),
        ({"validation": 1.0}, "validation"),
        ({"noise": -0.1}, "noise"),
        ({"cut": 2.0}, "cut"),
        ({"token_loss": 1.5}, "token_loss"),
        ({"limit": 0}, "limit"),
        ({"held_out": 1.0}, "held_out"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{field}="):
        config(tmp_path, "data.jsonl", **changes)


def test_data_that_says_nothing_is_refused(tmp_path: Path) -> None:
    same = [{"text": f"film {i}", "label": 1} for i in range(20)]
    with pytest.raises(InvalidData, match="nothing to learn"):
        learn(tmp_path, same)


def test_each_scale_of_ratings_has_its_own_size(tmp_path: Path) -> None:
    # Levels 0 and 4 of five are as far apart as marks 0 and 100, and a scale of one value says
    # nothing: deviations of 2, 50 and 0 about 2, 50 and 7.
    records = [
        {"text": f"{scale} {value} {n}", "rating": value, "scale": scale}
        for scale, values in (("5 levels", (0, 4)), ("", (0, 100)), ("dull", (7,)))
        for value in values
        for n in range(3)
    ]
    split = split_judgements(config(tmp_path, write(tmp_path, records), held_out=0, validation=0))
    values = [judged.value for judged in split.train]
    assert values == [*[-1.0] * 3, *[1.0] * 3, *[-1.0] * 3, *[1.0] * 3, *[0.0] * 3]


def test_ratings_are_brought_to_the_scale_of_a_fresh_head(tmp_path: Path) -> None:
    records = [{"text": f"film {i}", "rating": 10.0 * (i % 3)} for i in range(30)]
    split = split_judgements(config(tmp_path, write(tmp_path, records), held_out=0.2))
    values = np.array([judged.value for judged in split.train])
    assert values.mean() == pytest.approx(0.0, abs=1e-9)
    assert values.std() == pytest.approx(1.0)
    assert {round(j.value, 6) for j in split.held_out} <= {round(v, 6) for v in values.tolist()}


def test_no_prompt_is_on_two_sides(tmp_path: Path) -> None:
    records = [{**p, "prompt": f"{i % 30}"} for i, p in enumerate(pairs(120))]
    split = split_judgements(config(tmp_path, write(tmp_path, records)))
    train, validation, held_out = ({judged.group for judged in part} for part in split)
    assert train.isdisjoint(validation | held_out)
    assert validation.isdisjoint(held_out)
    assert [len(part) for part in split] == [96, 12, 12]


def test_prompts_of_held_out_data_are_not_trained_on(tmp_path: Path) -> None:
    shared = write(tmp_path, pairs(7), "shared.jsonl")
    data = write(tmp_path, pairs(40))
    split = split_judgements(config(tmp_path, data, held_out_data=(shared,), validation=0))
    assert [len(part) for part in split] == [33, 0, 7]
    with pytest.raises(InvalidData, match="every prompt"):
        split_judgements(config(tmp_path, data, held_out_data=(data,)))


def test_a_scale_needs_different_responses_and_says_so_before_training(tmp_path: Path) -> None:
    samples = write(tmp_path, [{"text": "good film"}] * 5, "samples.jsonl")
    with pytest.raises(InvalidData, match="normalise_on"):
        learn(tmp_path, pairs(20), normalise_on=samples)
    assert not (tmp_path / "reward_model" / "model.safetensors").exists()


def test_a_base_that_is_no_model_and_a_folder_that_is_a_file_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path, pairs(20))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidCheckpoint):
        train_reward_model(config(tmp_path, data, model=str(tmp_path / "empty")))
    with pytest.raises(FolderNotWritable):
        train_reward_model(config(tmp_path, data, output=data))
