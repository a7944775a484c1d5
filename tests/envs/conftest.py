"""A vocabulary of twelve words and references so small that their numbers are known by hand."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from rlhf_gym.envs.text.vector import TextGenerationVectorEnv

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "a", "b", "c", "d", "e", "f", "g", "h"]


def new_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )


def new_reference(context: int = 32) -> GPT2LMHeadModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=len(WORDS), n_positions=context, n_layer=2, n_head=2, n_embd=16,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        model = GPT2LMHeadModel(config).eval()
        for parameter in model.parameters():
            parameter.data.mul_(5)  # away from the uniform distribution
        return model


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return new_tokenizer()


@pytest.fixture(scope="session")
def reference() -> GPT2LMHeadModel:
    return new_reference()


@pytest.fixture(scope="session")
def uniform_reference() -> GPT2LMHeadModel:
    """Every logit is 0: each of the 11 tokens that are not PAD has probability 1/11."""
    model = new_reference()
    model.transformer.wte.weight.data.zero_()
    return model


def count_words(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(len(response.split())) for response in responses]


@pytest.fixture
def word_count() -> Callable[[list[str], list[str]], list[float]]:
    """A reward: words of the response, special tokens not counted."""
    return count_words


@pytest.fixture
def make_env(tokenizer: PreTrainedTokenizerFast) -> Callable[..., TextGenerationVectorEnv]:
    """A vector environment of two rows and at most four tokens on two prompts, in order."""

    def make(reward: object = count_words, **overrides: object) -> TextGenerationVectorEnv:
        settings = {
            "prompts": ["a b", "c"],
            "num_envs": 2,
            "max_response_tokens": 4,
            "prompt_order": "sequential",
        } | overrides
        return TextGenerationVectorEnv(tokenizer=tokenizer, reward=reward, **settings)

    return make


@pytest.fixture
def play() -> Callable[..., list[tuple]]:
    """Step through given columns of tokens, writing given log-probabilities first."""

    def run(
        env: TextGenerationVectorEnv,
        columns: Sequence[Sequence[int]],
        log_probs: Sequence[Sequence[float]] | None = None,
    ) -> list[tuple]:
        steps = []
        for at, tokens in enumerate(columns):
            if log_probs is not None:
                env.unwrapped.channel.write(np.array(tokens), np.array(log_probs[at]))
            steps.append(env.step(np.array(tokens)))
        return steps

    return run
