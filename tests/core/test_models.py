"""Language models: made, loaded, changed and saved without surprises."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM as AutoLM
from transformers import AutoModelForSequenceClassification as AutoClassifier
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, LlamaConfig

from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
from rlhf_gym.core.models import (
    SIZES,
    ModelSize,
    add_lora,
    context_length,
    disable_dropout,
    freeze_layers,
    load_causal_lm,
    load_reward_model,
    load_tokenizer,
    new_causal_lm,
    save_model,
)
from rlhf_gym.core.tokenizers import train_tokenizer

CONFIGS = {
    "gpt2": GPT2Config(vocab_size=40, n_positions=16, n_layer=2, n_head=2, n_embd=8),
    "llama": LlamaConfig(
        vocab_size=40,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        attention_dropout=0.5,
    ),
    "gpt_neox": GPTNeoXConfig(
        vocab_size=40,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        hidden_dropout=0.5,
    ),
}
IDS = torch.tensor([[3, 1, 4, 1, 5, 9]])


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["the cat sat on the mat"] * 2, "word", 40, context=16)


def lm(name):
    torch.manual_seed(0)
    return AutoLM.from_config(CONFIGS[name])


def test_a_fresh_model_has_the_shape_and_ids_asked_for(tokenizer):
    model = new_causal_lm("tiny", tokenizer, context=16, seed=0)
    config = model.config
    assert (config.n_layer, config.n_embd, config.n_positions) == (2, 96, 16)
    assert config.vocab_size == len(tokenizer)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    assert model.generation_config.eos_token_id == 2
    # Per block 12 d^2 + 13 d = 111,840; embeddings (V + 16) 96; last norm 192.
    assert model.num_parameters() == 2 * 111_840 + (len(tokenizer) + 16) * 96 + 192


def test_a_seed_is_all_that_a_fresh_model_depends_on(tokenizer):
    before = torch.get_rng_state()
    first = new_causal_lm(ModelSize(1, 1, 4), tokenizer, 16, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again = new_causal_lm(ModelSize(1, 1, 4), tokenizer, 16, seed=1).state_dict()
    other = new_causal_lm(ModelSize(1, 1, 4), tokenizer, 16, seed=2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["transformer.wte.weight"], other["transformer.wte.weight"])


def test_sizes_that_cannot_be(tokenizer):
    with pytest.raises(InvalidArgument, match=r"size='huge'.*gpt2, medium, small, tiny"):
        new_causal_lm("huge", tokenizer, 16, seed=0)
    with pytest.raises(InvalidArgument, match="context=1"):
        new_causal_lm("tiny", tokenizer, 1, seed=0)
    with pytest.raises(InvalidArgument, match="n_head divide"):
        ModelSize(2, 5, 96)
    assert SIZES["gpt2"] == ModelSize(12, 12, 768)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_saved_is_loaded_again(tmp_path, tokenizer, name):
    model = lm(name).eval()
    save_model(model, tokenizer, tmp_path)
    loaded = load_causal_lm(tmp_path)
    assert not loaded.training
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert load_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
    assert all(name.endswith((".json", ".safetensors")) for name in names)
    assert load_causal_lm(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/no/such/folder", "there is no such folder"),
        ("./runs/none", "there is no such folder"),
        ("", "the folder has no config.json"),
    ],
)
def test_a_missing_directory(tmp_path, path, message):
    with pytest.raises(InvalidCheckpoint, match=message):
        load_causal_lm(path or tmp_path)
    with pytest.raises(InvalidCheckpoint, match=message.replace("config", "tokenizer_config")):
        load_tokenizer(path or tmp_path)


def test_a_runs_folder_points_to_the_models_in_it(tmp_path, tokenizer):
    save_model(lm("gpt2"), tokenizer, tmp_path / "policy")
    with pytest.raises(InvalidCheckpoint, match=r"no config.json\. Give .*policy\.$"):
        load_causal_lm(tmp_path)
    save_model(lm("gpt2"), tokenizer, tmp_path / "sft")
    with pytest.raises(InvalidCheckpoint, match=r"Give .*policy or .*sft\.$"):
        load_causal_lm(tmp_path)


def test_a_truncated_directory(tmp_path, tokenizer):
    save_model(lm("gpt2"), tokenizer, tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidCheckpoint, match="cannot be loaded"):
        load_causal_lm(tmp_path)
    weights.unlink()
    with pytest.raises(InvalidCheckpoint, match="cannot be loaded"):
        load_causal_lm(tmp_path)


def test_a_foreign_directory_is_not_filled_with_random_weights(tmp_path, tokenizer):
    save_model(lm("gpt2"), tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    with pytest.raises(InvalidCheckpoint, match=r"12 weights are missing .* transformer\.h\.2"):
        load_causal_lm(tmp_path)


def test_a_directory_cannot_execute_its_code_unasked(tmp_path):
    marker = tmp_path / "executed"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nraise SystemExit\n")
    auto = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    with pytest.raises(InvalidCheckpoint):
        load_causal_lm(tmp_path)
    assert not marker.exists()


def test_a_reward_model_has_one_trained_output(tmp_path, tokenizer):
    save_model(lm("llama"), tokenizer, tmp_path / "lm")
    with pytest.raises(InvalidCheckpoint, match=r"score\.weight"):
        load_reward_model(tmp_path / "lm")
    for labels in (1, 2):
        config = LlamaConfig(**{**CONFIGS["llama"].to_dict(), "num_labels": labels})
        save_model(AutoClassifier.from_config(config), tokenizer, tmp_path / str(labels))
    assert load_reward_model(tmp_path / "1").config.num_labels == 1
    with pytest.raises(InvalidCheckpoint, match="2 outputs"):
        load_reward_model(tmp_path / "2")


@pytest.mark.parametrize("name", CONFIGS)
def test_context_length(name):
    assert context_length(CONFIGS[name]) == 16


@pytest.mark.parametrize("name", CONFIGS)
def test_two_forwards_agree_without_dropout(name):
    config = GPT2Config(
        vocab_size=40, n_positions=16, n_layer=2, n_head=2, n_embd=8, resid_pdrop=0.5
    )
    model = (GPT2LMHeadModel(config) if name == "gpt2" else lm(name)).train()
    assert not torch.equal(model(IDS).logits, model(IDS).logits)
    disable_dropout(model)
    assert torch.equal(model(IDS).logits, model(IDS).logits)


def test_freezing_the_first_blocks(tokenizer):
    model = new_causal_lm(ModelSize(2, 1, 4), tokenizer, 16, seed=0)
    # Embeddings (V + 16) 4, and one block 12 * 4^2 + 13 * 4 = 244.
    assert freeze_layers(model, 1) == (len(tokenizer) + 16) * 4 + 244
    trained = {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"1", "weight", "bias"}  # the second block and the last norm
    model(IDS % 4, labels=IDS % 4).loss.backward()
    assert model.transformer.wte.weight.grad is None


@pytest.mark.parametrize("name", CONFIGS)
def test_freezing_by_name(name):
    model = lm(name)
    frozen = freeze_layers(model, r"\.1\.")
    assert frozen == sum(p.numel() for n, p in model.named_parameters() if ".1." in n) > 0
    assert {p.requires_grad for n, p in model.named_parameters() if ".1." in n} == {False}
    assert {p.requires_grad for n, p in model.named_parameters() if ".1." not in n} == {True}


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (0, "2 blocks"),
        (3, "2 blocks"),
        ("nowhere", "Names look like"),
        ("(", "no regular expression"),
        (".", "left to train"),
    ],
)
def test_freezing_nothing_or_everything(which, message):
    model = lm("gpt2")
    with pytest.raises(InvalidArgument, match=message):
        freeze_layers(model, which)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_lora_begins_at_its_reference_and_is_saved_without_peft(tmp_path, tokenizer, name):
    model = lm(name).eval()
    disable_dropout(model)
    before = model(IDS).logits
    generator = torch.get_rng_state()
    policy = add_lora(model, 2, seed=0)
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(policy(IDS).logits, before)
    assert all("lora_" in n for n, p in policy.named_parameters() if p.requires_grad)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    after = policy(IDS).logits
    with policy.disable_adapter():
        assert torch.equal(policy(IDS).logits, before)
    save_model(policy, tokenizer, tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    torch.testing.assert_close(load_causal_lm(tmp_path)(IDS).logits, after)
    assert torch.equal(policy(IDS).logits, after)  # saving merged a copy


def test_a_rank_below_one():
    with pytest.raises(InvalidArgument, match="lora_rank=0"):
        add_lora(lm("gpt2"), 0)
