"""Each mistake: an error that names the field, the value and the remedy, before work is lost."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rlhf_gym.core.errors import (
    InvalidAction,
    InvalidArgument,
    InvalidCheckpoint,
    InvalidPrompt,
    TokenizerMismatch,
)
from rlhf_gym.rewards.kl import KLPenalty

D = 7


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"num_envs": 0}, InvalidArgument, "num_envs=0"),
        ({"num_envs": 2.5}, InvalidArgument, r"num_envs=2\.5"),
        ({"max_response_tokens": 0}, InvalidArgument, "max_response_tokens=0"),
        ({"max_prompt_tokens": 0}, InvalidArgument, "max_prompt_tokens=0"),
        ({"max_prompt_tokens": 1}, InvalidPrompt, r"prompts\[0\]='a b': 2 tokens.*raise"),
        ({"reward_timing": "later"}, InvalidArgument, "'end' or 'step'"),
        ({"length_limit": "stop"}, InvalidArgument, "'terminate' or 'truncate'"),
        ({"ends": "later"}, InvalidArgument, "'apart' or 'together'"),
        ({"observation": "text"}, InvalidArgument, "'dict' or 'ids'"),
        ({"prompt_order": "random"}, InvalidArgument, "'shuffle' or 'sequential'"),
        ({"autoreset_mode": "never"}, InvalidArgument, "NextStep, SameStep, Disabled"),
        ({"render_mode": "human"}, InvalidArgument, "'ansi'"),
        ({"temperature": 0.0}, InvalidArgument, r"temperature=0\.0"),
        ({"stop_token_ids": [12]}, TokenizerMismatch, "stop_ids=.*vocabulary of 12"),
        ({"stop_token_ids": [0]}, TokenizerMismatch, "PAD is also a stop token"),
        ({"banned_token_ids": range(12)}, InvalidArgument, "no legal token"),
        ({"min_response_tokens": 5}, InvalidArgument, "min_response_tokens=5.*4"),
        ({"min_response_tokens": -1}, InvalidArgument, "min_response_tokens=-1"),
        (
            {"min_response_tokens": 1, "banned_token_ids": [1, *range(3, 12)]},
            InvalidArgument,
            "no response could begin",
        ),
        ({"top_k": 0}, InvalidArgument, "top_k=0"),
        ({"top_p": 0.0}, InvalidArgument, r"top_p=0\.0"),
        ({"top_p": 1.5}, InvalidArgument, r"top_p=1\.5"),
        ({"top_k": 3}, InvalidArgument, "reference=None: top_k"),
        ({"reference": "/no/such/folder"}, InvalidCheckpoint, "no such folder"),
        ({"reward": 3}, InvalidArgument, "reward=3"),
        ({"gold": "best"}, InvalidArgument, "'best'"),
    ],
    ids=str,
)
def test_arguments(make_env, settings, error, words):
    with pytest.raises(error, match=words):
        make_env(**settings)


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        ([D, 12], r"actions\[1\]=12: outside the vocabulary of 12"),
        ([-1, D], r"actions\[0\]=-1: outside"),
        ([-(2**63), D], "outside"),
        ([D], r"shape \(1,\), not 2 token ids"),
        ([[D, D]], r"shape \(1, 2\)"),
        ([1.0, 2.0], "float64"),
        ([True, False], "bool"),
        (["a", "b"], "not 2 token ids"),
        (np.array([2**63, 0], dtype=np.uint64), "outside"),
    ],
    ids=str,
)
def test_actions(make_env, actions, words):
    env = make_env()
    env.reset()
    before, _ = env.reset()
    with pytest.raises(InvalidAction, match=words):
        env.step(actions)
    after, *_ = env.step([D, D])
    assert after["attention_mask"].sum() == before["attention_mask"].sum() + 2


@pytest.mark.parametrize(
    "actions", [[D, D], (D, D), np.array([D, D], dtype=np.int32), torch.tensor([D, D])], ids=str
)
def test_actions_of_any_integer_kind(make_env, actions):
    env = make_env()
    env.reset()
    observation, *_ = env.step(actions)
    assert observation["input_ids"][:, 2].tolist() == [D, D]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reset_mask": [True, False]}, "not a NumPy array of bools"),
        ({"reset_mask": np.array([1, 0])}, "dtype bool"),
        ({"reset_mask": np.array([True])}, r"shape \(2,\)"),
        ({"reset_mask": np.array([False, False])}, "no row is to be reset"),
        ({"prompt_index": [0]}, "not 2 integers"),
        ({"prompt_index": [0.5, 1.0]}, "not 2 integers"),
        ({"prompt_index": [0, 2]}, "there are 2 prompts"),
        ({"prompt_index": [0, -1]}, "there are 2 prompts"),
    ],
    ids=str,
)
def test_reset_options(make_env, options, words):
    env = make_env()
    env.reset()
    with pytest.raises(InvalidArgument, match=words):
        env.reset(options=options)


class TestTokenizer:
    def test_without_pad(self, make_env, tokenizer):
        tokenizer.pad_token = None
        with pytest.raises(TokenizerMismatch, match=r"pad_token=None.*add_special_tokens"):
            make_env()

    def test_pad_equal_to_eos(self, make_env, tokenizer):
        tokenizer.pad_token = tokenizer.eos_token
        with pytest.raises(TokenizerMismatch, match="never learn to stop"):
            make_env()

    def test_without_eos(self, make_env, tokenizer):
        tokenizer.eos_token = None
        with pytest.raises(TokenizerMismatch, match=r"eos_token=None.*stop_token_ids"):
            make_env()
        make_env(stop_token_ids=())

    def test_larger_than_the_model(self, make_env, tokenizer, reference):
        tokenizer.add_tokens(["new"])
        for settings in ({"reference": reference}, {"reward": -KLPenalty(reference, 0.1)}):
            with pytest.raises(TokenizerMismatch, match=r"tokenizer=13.*12.*resize"):
                make_env(**settings)

    def test_smaller_than_the_model(self, make_env):
        """Padded embeddings: the model's surplus logits are never legal."""
        config = GPT2Config(vocab_size=16, n_positions=16, n_layer=1, n_head=1, n_embd=8)
        reference = GPT2LMHeadModel(config)
        env = make_env(-KLPenalty(reference, 0.1), top_k=4, reward_timing="step")
        env.reset()
        assert env.action_masks().shape == (2, 12)
        actions = env.action_masks().argmax(-1)
        env.channel.write(actions, np.array([-1.0, -1.0]))
        _, rewards, *_ = env.step(actions)
        assert np.isfinite(rewards).all()
        assert env.action_space.nvec.tolist() == [12, 12]


def test_prompt_longer_than_the_model(make_env, reference):
    long = " ".join("a" * 29)
    make_env(reference=reference, prompts=["b", long[:-2]])
    with pytest.raises(InvalidPrompt, match=r"prompts\[1\].*29 tokens.*response of 4.*32"):
        make_env(reference=reference, prompts=["b", long])
