"""Every decoder, whatever happens to its rows, gives Hugging Face's hidden states to 1e-5."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
    MambaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
)

from rlhf_gym.core.decoding import Decoder, make_decoder
from rlhf_gym.core.decoding import cache as cache_module
from rlhf_gym.core.decoding import linear as linear_module
from rlhf_gym.core.decoding.fast import FastDecoder
from rlhf_gym.core.decoding.generic import TransformersDecoder
from rlhf_gym.core.errors import InvalidArgument, InvalidPrompt

VOCAB = 64
CONTEXT = 48
IDS: dict[str, Any] = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GPT2: dict[str, Any] = {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": CONTEXT, **IDS}
LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    **IDS,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 12,
}

FAST: dict[str, Any] = {
    "gpt2": GPT2Config(**GPT2),
    "gpt2-untied-odd": GPT2Config(
        **GPT2,
        n_inner=40,
        activation_function="relu",
        scale_attn_by_inverse_layer_idx=True,
        tie_word_embeddings=False,
    ),
    "gpt2-exact-gelu-unscaled": GPT2Config(
        **GPT2, activation_function="gelu", scale_attn_weights=False
    ),
    "llama": LlamaConfig(**LLAMA),
    "llama-tied-all-heads": LlamaConfig(
        **LLAMA | {"num_key_value_heads": 4, "tie_word_embeddings": True}
    ),
    "llama-biased-wide-heads": LlamaConfig(
        **LLAMA, attention_bias=True, mlp_bias=True, head_dim=16, hidden_act="gelu_pytorch_tanh"
    ),
    "llama3-rope": LlamaConfig(**LLAMA, rope_parameters=LLAMA3_ROPE),
    "yarn-rope": LlamaConfig(**LLAMA, rope_parameters=YARN_ROPE),
    "mistral": MistralConfig(**LLAMA, sliding_window=None),
    "qwen2": Qwen2Config(**LLAMA),
}
GENERIC: dict[str, Any] = {
    "neox": GPTNeoXConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=CONTEXT,
        **IDS,
    ),
    "mistral-window": MistralConfig(**LLAMA, sliding_window=6),
    "dynamic-rope": LlamaConfig(
        **LLAMA, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    ),
    "gemma2-softcap": Gemma2Config(**LLAMA, head_dim=8, sliding_window=6),
}


def build(config: Any, seed: int = 0) -> PreTrainedModel:
    """A random model whose biases and norms are random too, in training mode with dropout."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.train()


@torch.no_grad()
def true_hidden(model: nn.Module, ids: list[int]) -> Tensor:
    """What Hugging Face gives for one row, without padding, cache, dropout: (tokens, hidden)."""
    was_training = model.training
    model.eval()
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    hidden: Tensor = inner.base_model(torch.tensor([ids]), use_cache=False).last_hidden_state[0]
    model.train(was_training)
    return hidden


def padded(rows: list[list[int]], extra: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask, padded on the left to the longest row plus `extra`, with an id of its own."""
    width = max(map(len, rows)) + extra
    ids = torch.full((len(rows), width), 7)
    mask = torch.zeros(len(rows), width, dtype=torch.int8)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.tensor(row)
        mask[number, width - len(row) :] = 1
    return ids, mask


def last_hidden(decoder: Decoder, rows: list[list[int]]) -> Tensor:
    """Teacher-forced hidden states at the rows' last tokens, shape (rows, hidden)."""
    ids, mask = padded(rows)
    is_last = torch.zeros_like(mask).bool()
    is_last[:, -1] = True
    return decoder.hidden_at(ids, mask, is_last)


class Batch:
    """Rows as plain lists beside the decoder, so that each can be checked alone.

    `check` only notes what the decoder gave; `verify` compares, longest rows first, because one
    forward of Hugging Face gives the truth for all prefixes of its row.
    """

    def __init__(self, model: nn.Module, decoder: Decoder, seed: int = 0) -> None:
        self.model, self.decoder = model, decoder
        self.rows: list[list[int]] = []
        self.noted: list[tuple[list[int], Tensor]] = []
        self.generator = torch.Generator().manual_seed(seed)

    def tokens(self, count: int) -> list[int]:
        return torch.randint(3, VOCAB, (count,), generator=self.generator).tolist()

    def check(self, hidden: Tensor, rows: list[list[int]] | None = None) -> None:
        self.noted += zip(rows or self.rows, hidden, strict=True)

    def verify(self) -> None:
        truths: list[tuple[list[int], Tensor]] = []
        for ids, hidden in sorted(self.noted, key=lambda note: -len(note[0])):
            known = [truth for row, truth in truths if row[: len(ids)] == ids]
            if not known:
                truths.append((ids, true_hidden(self.model, ids)))
                known = [truths[-1][1]]
            torch.testing.assert_close(hidden, known[0][len(ids) - 1], atol=1e-5, rtol=1e-5)
        self.noted.clear()

    def prefill(self, lengths: list[int], capacity: int, extra: int = 0) -> None:
        self.rows = [self.tokens(length) for length in lengths]
        self.check(self.decoder.prefill(*padded(self.rows, extra), capacity))

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            new = self.tokens(len(self.rows))
            self.rows = [[*row, token] for row, token in zip(self.rows, new, strict=True)]
            self.check(self.decoder.step(torch.tensor(new)))

    def keep(self, rows: list[int]) -> None:
        self.decoder.keep(torch.tensor(rows, dtype=torch.long))
        self.rows = [self.rows[row] for row in rows]

    def replace(self, rows: list[int], lengths: list[int]) -> None:
        prompts = [self.tokens(length) for length in lengths]
        hidden = self.decoder.replace(torch.tensor(rows), *padded(prompts))
        self.check(hidden, prompts)
        for row, prompt in zip(rows, prompts, strict=True):
            self.rows[row] = prompt


CASES = [
    *(pytest.param((name, "fast"), id=f"{name}-fast") for name in FAST),
    *(pytest.param((name, "transformers"), id=f"{name}-hf") for name in ("gpt2", "llama")),
    *(pytest.param((name, "auto"), id=f"{name}-auto") for name in GENERIC),
]


@pytest.fixture(params=CASES)
def batch(request: pytest.FixtureRequest) -> Iterator[Batch]:
    name, backend = request.param
    model = build((FAST | GENERIC)[name])
    batch = Batch(model, make_decoder(model, backend))
    yield batch
    batch.verify()


def test_prompts_of_many_lengths_then_steps(batch: Batch) -> None:
    batch.prefill([5, 1, 8, 3], capacity=14, extra=2)
    batch.step(4)


def test_prompts_of_one_length(batch: Batch) -> None:
    batch.prefill([4, 4, 4], capacity=8)
    batch.step(4)


def test_rows_leave_in_any_order(batch: Batch) -> None:
    batch.prefill([5, 1, 8, 3, 6, 2], capacity=20)
    batch.step()
    batch.keep([0, 2, 3, 5])
    batch.step(2)
    batch.keep([3, 1])  # a new order too
    batch.step(2)
    batch.keep([0, 1])
    batch.step()
    batch.keep([1])
    batch.step()


def test_rows_are_replaced_while_others_go_on(batch: Batch) -> None:
    batch.prefill([3, 5, 2], capacity=14)
    batch.step(2)
    batch.replace([1], [4])
    batch.step(2)
    batch.replace([0, 2], [1, 6])
    batch.step(2)


def test_a_replacing_prompt_may_be_wider_than_everything_so_far(batch: Batch) -> None:
    batch.prefill([2, 1], capacity=12)
    batch.step()
    batch.replace([1], [6])
    batch.step(6)


def test_replacing_for_ever_needs_no_more_room(batch: Batch) -> None:
    batch.prefill([2, 3, 1], capacity=9)
    for number in range(9):
        batch.step(2)
        batch.replace([number % 3], [1 + number % 3])


def test_replaced_and_dropped_rows_mix(batch: Batch) -> None:
    batch.prefill([2, 3, 1, 4], capacity=10)
    batch.step(2)
    batch.keep([3, 0, 2])
    batch.replace([1], [5])
    batch.step(2)
    batch.keep([1, 2])
    batch.step(2)
    batch.replace([0], [2])
    batch.step(2)
    batch.keep([1, 0])
    batch.step()


@pytest.fixture
def nan_in_fresh_memory() -> Iterator[None]:
    """Every tensor that is not filled holds NaN, as fresh memory may."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("nan_in_fresh_memory")
@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("lengths", [[5, 2, 4, 1], [3, 3, 3, 3]])
@pytest.mark.parametrize("room", [1, 3])
def test_blocks_that_grow_now_and_then(
    name: str, lengths: list[int], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "ROOM", room)
    model = build(FAST[name])
    batch = Batch(model, make_decoder(model, "fast"))
    batch.prefill(lengths, capacity=16)
    batch.step(2)
    batch.keep([3, 1, 0])
    batch.step(2)
    batch.replace([1], [7])  # widens it at once to all it may have
    batch.step(3)
    batch.prefill(lengths, capacity=16)  # the memory of before does not fit
    batch.step(2)
    batch.verify()


def test_whole_sequences_with_padding_on_both_sides(batch: Batch) -> None:
    rows = [batch.tokens(length) for length in (6, 3, 1)]
    ids, mask = torch.full((3, 9), 7), torch.zeros(3, 9)
    starts = (2, 0, 5)
    for number, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[number, start : start + len(row)] = torch.tensor(row)
        mask[number, start : start + len(row)] = 1
    hidden = batch.decoder.hidden_at(ids, mask, mask.bool())
    batch.check(hidden, [row[: end + 1] for row in rows for end in range(len(row))])


def test_chosen_tokens_of_whole_sequences(batch: Batch) -> None:
    long, short = batch.tokens(5), batch.tokens(3)
    ids, mask = padded([long, short])
    wanted = torch.zeros_like(mask).bool()
    wanted[0, [1, 4]] = True
    wanted[1, 3] = True
    batch.check(batch.decoder.hidden_at(ids, mask, wanted), [long[:2], long, short[:2]])


def test_whole_sequences_leave_the_cache_alone(batch: Batch) -> None:
    batch.prefill([3, 2], capacity=8)
    last_hidden(batch.decoder, [batch.tokens(5)])
    batch.step(2)


def test_logits_are_the_models(batch: Batch) -> None:
    rows = [batch.tokens(4), batch.tokens(2)]
    hidden = batch.decoder.prefill(*padded(rows), 10)
    batch.model.eval()
    with torch.no_grad():
        expected = [batch.model(torch.tensor([row])).logits[0, -1] for row in rows]
    logits = batch.decoder.logits(hidden)
    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-5, rtol=1e-5)
    assert batch.decoder.logits(hidden[:, None]).shape == (2, 1, VOCAB)


def test_models_stay_as_they_were(batch: Batch) -> None:
    before = copy.deepcopy(batch.model.state_dict())
    hidden = batch.decoder.prefill(*padded([[3, 4], [5]]), 6)
    hidden = batch.decoder.step(torch.tensor([3, 4]))
    # `build` left it in training mode, and the decoder has been made since.
    assert all(module.training for module in batch.model.modules())
    assert not hidden.requires_grad
    # Not an inference tensor: a value head may be trained on it.
    nn.Linear(32, 1)(hidden).sum().backward()
    after = batch.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_weights_are_read_at_every_prefill_however_they_changed(batch: Batch) -> None:
    batch.prefill([3, 2], capacity=16)
    batch.verify()
    with torch.no_grad():
        for parameter in batch.model.parameters():
            parameter.data.mul_(1.1)  # no version counter moves
    batch.prefill([3, 2], capacity=16)
    batch.step(2)
    batch.verify()
    for parameter in batch.model.parameters():
        parameter.data = 0.9 * parameter.data
    batch.prefill([3, 2], capacity=16)
    batch.step(2)
    rows = [batch.tokens(3)]
    batch.check(last_hidden(batch.decoder, rows), rows)


def test_no_row_is_left(batch: Batch) -> None:
    batch.prefill([3, 2], capacity=8)
    batch.step()
    batch.keep([])
    batch.prefill([2, 4, 1], capacity=8)
    batch.step()


def test_a_row_that_is_full(batch: Batch) -> None:
    batch.prefill([3, 2], capacity=5)
    batch.step(2)
    with pytest.raises(InvalidArgument, match="capacity"):
        batch.decoder.step(torch.tensor([3, 3]))


def test_prompts_that_cannot_be_read(batch: Batch) -> None:
    ids, mask = padded([[3, 4], [5, 6]])
    with pytest.raises(InvalidPrompt, match="last column is padding"):
        batch.decoder.prefill(ids, mask.flip(0) * torch.tensor([1, 0]), 8)
    with pytest.raises(InvalidPrompt, match="input_ids"):
        batch.decoder.prefill(ids[:, :0], mask[:, :0], 8)
    with pytest.raises(InvalidPrompt, match=f"context of {CONTEXT}"):
        batch.decoder.prefill(ids, mask, CONTEXT + 1)
    batch.decoder.prefill(ids, mask, CONTEXT)


@pytest.mark.parametrize("name", ["gpt2", "llama-biased-wide-heads"])
@pytest.mark.parametrize("backend", ["fast", "transformers"])
def test_packed_weights_give_the_same(
    name: str, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_module, "LARGE", 1)
    model = build(FAST[name])
    batch = Batch(model, make_decoder(model, backend))
    batch.prefill([3, 5, 2], capacity=20)
    batch.step(3)
    batch.keep([2, 0])
    batch.step(2)
    rows = [batch.tokens(3), batch.tokens(1)]
    batch.check(last_hidden(batch.decoder, rows), rows)
    batch.verify()


def test_a_packed_head_is_not_used_for_whole_sequences_after_an_update(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear_module, "LARGE", 1)
    model = build(FAST["llama"]).eval()
    decoder = make_decoder(model)
    decoder.prefill(*padded([[3, 4]]), 20)
    with torch.no_grad():
        model.lm_head.weight.data.mul_(3.0)
        expected = model(torch.tensor([[5, 6]])).logits
    logits = decoder.logits(last_hidden(decoder, [[5, 6]]))
    torch.testing.assert_close(logits, expected[:, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_lora_is_merged_and_switched_off(name: str) -> None:
    base = build(FAST[name])
    targets = ["c_attn", "c_proj", "c_fc"] if name == "gpt2" else ["q_proj", "v_proj", "down_proj"]
    settings = LoraConfig(r=4, target_modules=targets, fan_in_fan_out=name == "gpt2")
    model = get_peft_model(base, settings)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.copy_(0.3 * torch.randn(parameter.shape))
    decoder = make_decoder(model, "fast")
    batch = Batch(model, decoder)
    batch.prefill([3, 5, 2], capacity=20)
    batch.step(3)
    batch.verify()
    adapted = last_hidden(decoder, [[3, 4, 5]])
    with model.disable_adapter():
        batch.prefill([3, 5, 2], capacity=20)
        batch.step(3)
        batch.verify()
        assert not torch.allclose(adapted, last_hidden(decoder, [[3, 4, 5]]), atol=0.1)
    model.merge_adapter()
    batch.prefill([2, 4], capacity=20)
    batch.step()
    batch.verify()
    torch.testing.assert_close(adapted, last_hidden(decoder, [[3, 4, 5]]))
    with model.disable_adapter():  # although it is merged
        batch.prefill([2, 4], capacity=20)
        batch.verify()


def test_adapters_that_change_more_than_weights_go_through_their_own_forward() -> None:
    model = get_peft_model(
        build(FAST["gpt2"]),
        LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, use_dora=True),
    )
    decoder = make_decoder(model)
    assert isinstance(decoder, TransformersDecoder)
    batch = Batch(model, decoder)
    batch.prefill([3, 2], capacity=8)
    batch.step(2)
    batch.verify()


@pytest.mark.parametrize(
    ("kind", "config"),
    [(GPT2ForSequenceClassification, "gpt2"), (LlamaForSequenceClassification, "llama")],
)
@pytest.mark.parametrize("backend", ["fast", "transformers"])
def test_classifiers_give_scores(kind: Any, config: str, backend: Any) -> None:
    settings = copy.deepcopy(FAST[config])
    settings.num_labels = 1
    torch.manual_seed(0)
    model = kind(settings).eval()
    decoder = make_decoder(model, backend)
    rows = [[3, 4, 5, 6], [7, 8]]
    scores = decoder.logits(last_hidden(decoder, rows))
    with torch.no_grad():
        expected = torch.cat([model(torch.tensor([row])).logits for row in rows])
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_half_precision_is_as_close_as_it_can_be(name: str) -> None:
    model = build(FAST[name]).to(torch.bfloat16)
    decoder = make_decoder(model, "fast")
    rows = [[3, 4, 5, 6], [7, 8]]
    decoder.prefill(*padded(rows), 8)
    hidden = decoder.step(torch.tensor([9, 10]))
    assert hidden.dtype == torch.bfloat16
    expected = [true_hidden(model, row)[-1] for row in ([3, 4, 5, 6, 9], [7, 8, 10])]
    torch.testing.assert_close(hidden, torch.stack(expected), atol=0.1, rtol=0.05)


def test_fast_is_chosen_where_there_is_one_and_only_there() -> None:
    assert all(isinstance(make_decoder(build(config)), FastDecoder) for config in FAST.values())
    for config in GENERIC.values():
        model = build(config)
        assert isinstance(make_decoder(model), TransformersDecoder)
        with pytest.raises(InvalidArgument, match="no fast decoder"):
            make_decoder(model, "fast")


def test_a_subclass_may_compute_anything() -> None:
    class Altered(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = build(FAST["llama"])
    model.model.layers[0].mlp.up_proj = Altered(32, 48, bias=False)
    assert isinstance(make_decoder(model), TransformersDecoder)


def test_models_that_are_no_models() -> None:
    with pytest.raises(InvalidArgument, match="backend"):
        make_decoder(build(FAST["gpt2"]), "quick")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="Load it with"):
        make_decoder(nn.Linear(2, 2))
    with pytest.raises(InvalidArgument, match="no trunk"):
        make_decoder(build(FAST["gpt2"]).base_model)
    prompt_tuned = get_peft_model(
        build(FAST["gpt2"]), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    with pytest.raises(InvalidArgument, match="LoRA"):
        make_decoder(prompt_tuned)


@pytest.mark.parametrize("backend", ["fast", "transformers"])
def test_memory_goes_back(backend: Any) -> None:
    decoder = make_decoder(build(FAST["gpt2"]), backend)
    decoder.prefill(*padded([[3, 4]]), 8)
    decoder.release()
    with pytest.raises(InvalidArgument, match="Call prefill first"):
        decoder.step(torch.tensor([3]))


def test_recurrent_models_without_keys_and_values() -> None:
    config = MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, **IDS)
    model = build(config)
    batch = Batch(model, make_decoder(model))
    batch.prefill([3, 3], capacity=8)
    batch.step(2)
    batch.keep([1])
    batch.step()
    batch.verify()


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(Gemma2Config(**LLAMA, head_dim=8), id="gemma2-cap"),
        pytest.param(CohereConfig(**LLAMA, logit_scale=0.25), id="cohere-scale"),
    ],
)
@torch.no_grad()
def test_logits_are_changed_as_the_model_does_where_the_first_row_is_zero(config: Any) -> None:
    model = build(config).eval()
    embeddings = model.get_input_embeddings().get_parameter("weight")
    embeddings.mul_(40)  # far beyond where a cap of 30 hardly changes a logit
    embeddings[0] = 0  # as transformers leaves the row of PAD
    ids = torch.tensor([[5, 9, 30, 12]])
    decoder = make_decoder(model)
    hidden = decoder.prefill(ids, torch.ones_like(ids), 4)
    torch.testing.assert_close(
        decoder.logits(hidden), model(ids).logits[:, -1], atol=1e-4, rtol=1e-4
    )
