"""Both sides of the benchmark get the same task, and it is the one that was asked for."""

import json

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.pipelines.bench_task import (
    EOS_ID,
    PAD_ID,
    BenchTask,
    build_models,
    save_task,
)

TOY = BenchTask(
    layers=1, hidden=32, heads=2, vocab_size=64, prompt_tokens=16, responses=8, response_tokens=8
)


def next_token_probabilities(task):
    models = build_models(task)
    with torch.no_grad():
        logits = models.policy(
            input_ids=torch.tensor([ids[:6] for ids in models.prompt_ids])
        ).logits
    return logits[:, -1].softmax(-1)


def test_the_stop_token_has_the_probability_asked_for():
    probabilities = next_token_probabilities(BenchTask(stop_probability=0.05))
    # A context moves it by a few hundredths: the hidden state has a part in EOS's direction too.
    assert probabilities[:, EOS_ID].mean() == pytest.approx(0.05, rel=0.05)
    assert probabilities[:, EOS_ID].std() < 0.003


def test_pad_is_never_drawn_and_without_stops_neither_is_eos():
    probabilities = next_token_probabilities(BenchTask())
    assert probabilities[:, PAD_ID].max() < 1e-15
    assert probabilities[:, EOS_ID].max() < 1e-15


def test_mean_length():
    # Budget 2, chance 1/4: one token with 1/4, two with 3/4, on average 1.75.
    assert BenchTask(stop_probability=0.25, response_tokens=2).mean_length == pytest.approx(1.75)
    assert BenchTask(response_tokens=32).mean_length == 32


def test_the_usual_variant_takes_half_of_the_budget():
    assert BenchTask(stop_probability=0.05).mean_length == pytest.approx(16.1, abs=0.1)


def test_the_same_task_gives_the_same_networks_whatever_the_global_generator_says():
    torch.manual_seed(1)
    one = build_models(TOY)
    torch.manual_seed(2)
    two = build_models(TOY)
    assert one.prompt_ids == two.prompt_ids
    for network in ("policy", "reward", "value"):
        pairs = zip(
            getattr(one, network).parameters(), getattr(two, network).parameters(), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs)


def test_prompts_have_different_lengths_up_to_the_limit():
    lengths = {len(ids) for ids in build_models(TOY).prompt_ids}
    assert lengths == {8, 9, 10, 11, 13, 14, 15, 16}  # 8 rows spread from 16 / 2 to 16


def test_what_is_saved_is_what_was_built(tmp_path):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    save_task(TOY, tmp_path)
    models = build_models(TOY)
    settings = json.loads((tmp_path / "settings.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    reward = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    value = AutoModelForSequenceClassification.from_pretrained(tmp_path / "value")

    # Both sides see the same ids, whether they read ids or text.
    assert settings["prompt_ids"] == models.prompt_ids
    assert tokenizer(settings["prompts"])["input_ids"] == models.prompt_ids
    assert torch.equal(policy.transformer.wte.weight, models.policy.transformer.wte.weight)
    assert reward.num_labels == value.num_labels == 1
    assert reward.score.weight.abs().max() > 0
    assert value.score.weight.abs().max() == 0
    assert settings["stops"] is False


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_what_is_no_probability_is_refused(probability):
    with pytest.raises(InvalidArgument, match="stop_probability"):
        BenchTask(stop_probability=probability)


def test_minibatches_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(InvalidArgument, match="minibatches=3"):
        BenchTask(responses=64, minibatches=3)
