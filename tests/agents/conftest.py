"""A language model of a few thousand parameters, and environments to train it in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from rlhf_gym.envs.text import TextGenerationVectorEnv

WORDS = ["<pad>", "<eos>", "<unk>", "a", "b", "c", "d", "e", "good", "bad", "film", "plot"]
PROMPTS = ["a film", "b plot film", "the", "c d e a", "plot", "film film", "e e e", "d"]


def word_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def tiny_gpt2(seed: int = 0, **config: Any) -> GPT2LMHeadModel:
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 24} | config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(WORDS), pad_token_id=0, bos_token_id=1, eos_token_id=1, **shape
            )
        )
        # Larger than GPT-2's own start, so that tokens differ in probability.
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def count_good(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(response.split().count("good")) for response in responses]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer()


@pytest.fixture
def make_model() -> Callable[..., GPT2LMHeadModel]:
    """Returns a function that builds the tiny model from a seed and changes to its shape."""
    return tiny_gpt2


@pytest.fixture
def make_env(tokenizer: PreTrainedTokenizerFast) -> Callable[..., TextGenerationVectorEnv]:
    """Returns a function that builds an environment on the tiny model."""

    def make(**kwargs: Any) -> TextGenerationVectorEnv:
        settings: dict[str, Any] = {
            "prompts": PROMPTS,
            "reward": count_good,
            "num_envs": 8,
            "max_response_tokens": 6,
            "reference": tiny_gpt2(),
        }
        settings |= kwargs
        return TextGenerationVectorEnv(tokenizer=tokenizer, **settings)

    return make
