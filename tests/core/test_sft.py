"""Fine-tuning: only completions are learned, and they are learned."""

import json
import os
from pathlib import Path

import pytest
import torch

from rlhf_gym.core.data import write_jsonl
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint, InvalidData
from rlhf_gym.core.models import (
    ModelSize,
    load_causal_lm,
    load_tokenizer,
    new_causal_lm,
    save_model,
)
from rlhf_gym.core.supervised.sft import (
    Demonstration,
    SFTConfig,
    collate_demonstrations,
    encode,
    sft,
)
from rlhf_gym.core.tokenizers import train_tokenizer

COLOURS = {"sky": "blue", "grass": "green", "blood": "red", "coal": "black"}
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}:{{ message.content }}; {% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    texts = [f"What is {thing} {colour}" for thing, colour in COLOURS.items()]
    tokenizer = train_tokenizer([*texts, "user:a; assistant:"] * 2, "word", 60, context=24)
    model = new_causal_lm(ModelSize(2, 2, 32), tokenizer, context=24, seed=0)
    return str(save_model(model, tokenizer, folder))


@pytest.fixture
def data(tmp_path):
    records = [
        {"prompt": f"What is {thing}", "completion": f" {colour}"}
        for thing, colour in COLOURS.items()
    ]
    write_jsonl(tmp_path / "data.jsonl", records * 8)
    return str(tmp_path / "data.jsonl")


def config(folder, base, data, **fields):
    defaults = {"batch_size": 8, "learning_rate": 1e-2, "held_out": 0.0, "progress": False}
    return SFTConfig(output=str(folder), model=base, data=(data,), **{**defaults, **fields})


def test_only_completions_have_labels():
    # Prompt 5 6, completion 7, EOS 2; prompt 8, completion 9 3, cut before its EOS.
    batch = collate_demonstrations(
        [Demonstration([5, 6, 7, 2], 2), Demonstration([8, 9, 3], 1)], pad_id=0
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2], [8, 9, 3, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 2], [-100, 9, 3, -100]]


def test_what_does_not_fit_is_cut_without_eos_or_dropped(base):
    tokenizer = load_tokenizer(base)
    records = [
        {"prompt": "What is a sky", "completion": " blue"},  # <bos> What is a sky | blue <eos>
        {"prompt": "What is a sky", "completion": " blue green red"},
        {"prompt": "What is sky What is sky", "completion": " blue"},
    ]
    settings = SFTConfig(output="x", model=base, data=("x",))
    demonstrations, truncated, dropped = encode(records, tokenizer, 7, settings)
    assert [len(d.input_ids) for d in demonstrations] == [7, 7]
    assert [d.input_ids[-1] == tokenizer.eos_token_id for d in demonstrations] == [True, False]
    assert [d.prompt_length for d in demonstrations] == [5, 5]
    assert (truncated, dropped) == (1, 1)
    assert encode(records, tokenizer, None, settings)[1:] == (0, 0)


@pytest.mark.parametrize("prompt", ["a", [{"role": "user", "content": "a"}]])
def test_prompts_through_a_chat_template(base, prompt):
    tokenizer = load_tokenizer(base)
    settings = SFTConfig(output="x", model=base, data=("x",), chat_template=True)
    records = [{"prompt": prompt, "completion": " blue"}]
    with pytest.raises(InvalidArgument, match="chat_template=True: the tokenizer has none"):
        encode(records, tokenizer, None, settings)
    tokenizer.chat_template = TEMPLATE
    ((ids, prompt_length),), _, _ = encode(records, tokenizer, None, settings)
    # The template says all there is to say: no BOS is put in front of it.
    assert tokenizer.decode(ids) == "user:a; assistant: blue<eos>"
    assert tokenizer.decode(ids[prompt_length:]) == " blue<eos>"


def changed_parameters(before, folder):
    pairs = zip(
        load_causal_lm(before).named_parameters(), load_causal_lm(folder).parameters(), strict=True
    )
    return {name for (name, old), new in pairs if not torch.equal(old, new)}


@pytest.mark.parametrize("freeze", [None, 1])
def test_answers_are_learned(tmp_path, base, data, freeze):
    """Each of four questions has its own answer; the base model answers by chance."""
    result = sft(config(tmp_path / "sft", base, data, epochs=12.0, freeze=freeze))
    assert (result.examples, result.truncated, result.dropped) == (32, 0, 0)
    model, tokenizer = load_causal_lm(tmp_path / "sft"), load_tokenizer(tmp_path / "sft")
    for thing, colour in COLOURS.items():
        prompt = tokenizer(f"What is {thing}", return_tensors="pt")
        answer = model.generate(**prompt, max_new_tokens=5, do_sample=False)[0]
        assert tokenizer.decode(answer[prompt["input_ids"].shape[1] :]) == f" {colour}<eos>"
    changed = changed_parameters(base, tmp_path / "sft")
    assert changed
    if freeze is not None:
        assert not any(".h.0." in name or "wte" in name or "wpe" in name for name in changed)
    samples = json.loads((tmp_path / "sft" / "summary.json").read_text())["samples"]
    assert samples[0]["prompt"].startswith("What is")


@pytest.mark.parametrize(("lora", "bound"), [(None, 2.0), (8, 13.0)])
def test_held_out_prompts_are_judged_before_and_after(tmp_path, base, lora, bound):
    """Every question has the same answer, so that what is learned holds for unseen prompts."""
    records = [{"prompt": f"What is{' sky' * i}", "completion": " blue"} for i in range(16)]
    write_jsonl(tmp_path / "data.jsonl", records)
    settings = config(
        tmp_path / "sft",
        base,
        str(tmp_path / "data.jsonl"),
        held_out=0.25,
        epochs=12.0,
        lora=lora,
        learning_rate=2e-2,
    )
    result = sft(settings)
    assert (result.examples, result.held_out_examples) == (12, 4)
    assert result.perplexity_before > 15  # close to a uniform guess over 19 tokens
    assert result.perplexity_after < bound
    if lora is not None:
        changed = changed_parameters(base, tmp_path / "sft")
        assert changed
        assert all(name.endswith("weight") and ".c_" in name for name in changed)


def test_mistakes_are_refused_before_any_training(tmp_path, base, data, monkeypatch):
    def train(*_, **__):
        raise AssertionError("work was begun")

    monkeypatch.setattr("rlhf_gym.core.supervised.trainer.train", train)
    write_jsonl(tmp_path / "bad.jsonl", [{"prompt": "a", "text": "b"}])
    with pytest.raises(InvalidData, match=r"column='completion'.*line 1.*prompt, text"):
        sft(config(tmp_path / "sft", base, str(tmp_path / "bad.jsonl")))
    write_jsonl(tmp_path / "bad.jsonl", [{"prompt": ["a"], "completion": "b"}])
    with pytest.raises(InvalidData, match="holds no text"):
        sft(config(tmp_path / "sft", base, str(tmp_path / "bad.jsonl")))
    with pytest.raises(InvalidData, match="no prompt leaves room in 4 tokens"):
        sft(config(tmp_path / "sft", base, data, max_length=4))
    with pytest.raises(InvalidCheckpoint):
        sft(config(tmp_path / "sft", str(tmp_path / "none"), data))
    with pytest.raises(InvalidArgument, match="freeze=9"):
        sft(config(tmp_path / "sft", base, data, freeze=9))
    with pytest.raises(InvalidArgument, match="max_length=1"):
        config(tmp_path / "sft", base, data, max_length=1)


@pytest.mark.skipif("RLHF_GYM_DATA" not in os.environ, reason="needs the real data")
def test_a_real_model_learns_real_demonstrations(tmp_path):
    root = Path(os.environ["RLHF_GYM_DATA"])
    settings = config(
        tmp_path / "sft",
        str(root / "stories260k"),
        str(root / "simple_stories" / "child.jsonl.gz"),
        end_token="<s>",
        limit=120,
        held_out=0.1,
        max_length=96,
        learning_rate=3e-3,
        epochs=2.0,
    )
    result = sft(settings)
    assert result.perplexity_after < 0.8 * result.perplexity_before
