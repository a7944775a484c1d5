"""Any causal language model can be the reference: GPT-2, Llama and GPT-NeoX shapes."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from rlhf_gym.core.tokens import legal_logits, next_token_logits
from rlhf_gym.rewards.kl import KLPenalty


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=12, n_positions=16, n_layer=2, n_head=2, n_embd=16)
    )


def llama():
    config = LlamaConfig(
        vocab_size=12, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def gpt_neox():
    config = GPTNeoXConfig(
        vocab_size=12, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=16,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return GPTNeoXForCausalLM(config)


@pytest.fixture(params=[gpt2, llama, gpt_neox], ids=lambda build: build.__name__)
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return request.param().eval()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_policy_equal_to_the_reference_has_no_kl_in_either_timing(make_env, model, mode):
    """Left padding, resets in the middle and the reference's cache move no log-probability."""
    for timing in ("end", "step"):
        env = make_env(
            -KLPenalty(model, 1.0),
            prompts=["a b c", "d", "e f"],
            num_envs=3,
            temperature=0.7,
            reward_timing=timing,
            autoreset_mode=mode,
        )
        observation, _ = env.reset(seed=0)
        rng = torch.Generator().manual_seed(0)
        for _ in range(9):
            with torch.no_grad():
                logits = legal_logits(next_token_logits(model, observation), env.rules)
            actions = logits.softmax(-1).multinomial(1, generator=rng).squeeze(-1)
            chosen = logits.log_softmax(-1).gather(-1, actions[:, None]).squeeze(-1)
            env.channel.write(actions, chosen)
            observation, rewards, _, _, info = env.step(actions)
            np.testing.assert_allclose(rewards, 0, atol=1e-5)
            if "kl" in info:
                np.testing.assert_array_equal(info["kl_known"], info["_kl_known"])
                np.testing.assert_allclose(info["kl"], 0, atol=1e-5)
            if mode is AutoresetMode.DISABLED and not env.live.any():
                observation, _ = env.reset()
        assert env.episodes_seen >= 6
