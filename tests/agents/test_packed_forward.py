"""The packed training pass equals Hugging Face's forward, values and gradients."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rlhf_gym.agents.lm_models import response_states
from rlhf_gym.agents.packed_forward import packed_trunk
from rlhf_gym.core.models import add_lora
from rlhf_gym.core.tokens import position_ids

PROMPT_WIDTH = 4
SMALL = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4}
ROTARY = {**SMALL, "intermediate_size": 24, "max_position_embeddings": 32}


def gpt2() -> nn.Module:
    config = GPT2Config(vocab_size=30, n_embd=16, n_layer=3, n_head=4, n_positions=32)
    config.bos_token_id = config.eos_token_id = 1
    return GPT2LMHeadModel(config)


def llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**ROTARY, num_key_value_heads=2))


def qwen2() -> nn.Module:
    return Qwen2ForCausalLM(Qwen2Config(**ROTARY, num_key_value_heads=4))


def neox() -> nn.Module:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**ROTARY))


MODELS = {"gpt2": gpt2, "llama": llama, "qwen2": qwen2, "neox": neox}


def build(name: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name]().eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def batch(*lengths: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids; (prompt tokens, response tokens) for every row."""
    prompts, responses = torch.tensor(lengths).T.unsqueeze(-1)
    columns = torch.arange(PROMPT_WIDTH + 5)
    mask = (columns >= PROMPT_WIDTH - prompts) & (columns < PROMPT_WIDTH + responses)
    ids = torch.randint(2, 30, mask.shape, generator=torch.Generator().manual_seed(1))
    return ids * mask, mask


def expected_states(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Hidden states one column before every response token, by the model's own padded forward."""
    hidden = model.base_model(
        input_ids=ids, attention_mask=mask.long(), position_ids=position_ids(mask)
    ).last_hidden_state
    rows, times = mask[:, PROMPT_WIDTH:].nonzero(as_tuple=True)
    states: torch.Tensor = hidden[rows, PROMPT_WIDTH + times - 1]
    return states


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "lengths", [[(4, 5), (1, 2), (3, 1), (2, 4)], [(4, 5)] * 3, [(1, 1)]], ids=str
)
def test_states_and_gradients_equal_the_models_own(name: str, lengths: Any) -> None:
    model = build(name)
    ids, mask = batch(*lengths)
    assert (packed_trunk(model.base_model) is None) == (name == "neox")
    gradients = []
    for states in (
        response_states(model.base_model, ids, mask, PROMPT_WIDTH),
        expected_states(model, ids, mask),
    ):
        weights = torch.linspace(-1, 1, states.numel()).view_as(states)
        parameters = list(model.base_model.parameters())
        gradients.append(torch.autograd.grad((weights * states).sum(), parameters))
    torch.testing.assert_close(
        response_states(model.base_model, ids, mask, PROMPT_WIDTH),
        expected_states(model, ids, mask),
        atol=2e-5,
        rtol=1e-4,
    )
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_adapters_take_part(name: str) -> None:
    model = build(name)
    ids, mask = batch((4, 5), (2, 3))
    plain = response_states(model.base_model, ids, mask, PROMPT_WIDTH).detach()
    adapted = add_lora(model, 2)
    base = adapted.get_base_model()
    torch.testing.assert_close(
        response_states(base.base_model, ids, mask, PROMPT_WIDTH), plain, atol=1e-5, rtol=1e-4
    )
    for parameter_name, parameter in adapted.named_parameters():
        if "lora_B" in parameter_name:
            parameter.data.fill_(0.1)
    moved = response_states(base.base_model, ids, mask, PROMPT_WIDTH)
    assert (moved - plain).abs().max() > 1e-3
    torch.testing.assert_close(moved, expected_states(base, ids, mask), atol=2e-5, rtol=1e-4)


def test_more_padding_changes_nothing() -> None:
    model = build("gpt2")
    ids, mask = batch((4, 5), (2, 3))
    states = response_states(model.base_model, ids, mask, PROMPT_WIDTH)
    wide_ids, wide_mask = (nn.functional.pad(x, (3, 2)) for x in (ids, mask))
    wide = response_states(model.base_model, wide_ids, wide_mask, PROMPT_WIDTH + 3)
    assert torch.equal(states, wide)
