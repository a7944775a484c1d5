"""Language models that write what raters judge: in a directory, or behind an endpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from rlhf_gym.core.ai_models import Endpoint
from rlhf_gym.core.sampler import complete
from rlhf_gym.core.supervised.language_model import load_for_training
from rlhf_gym.core.tokenizers import encode_beginnings, end_token_ids
from rlhf_gym.core.tokens import TokenRules

KEY_VARIABLE = "OPENAI_API_KEY"
"""The environment variable that holds an endpoint's key, if it wants one."""


class DirectoryWriter:
    """A Hugging Face model on this machine.

    Args:
        source: directory or hub name.
        max_tokens: longest answer.
        temperature: of the sampling.

    Raises:
        InvalidCheckpoint: it cannot be loaded.
    """

    def __init__(self, source: str, *, max_tokens: int = 64, temperature: float = 1.0) -> None:
        self.model, self.tokenizer = load_for_training(source)
        self.max_tokens = max_tokens
        pad, ends = int(self.tokenizer.pad_token_id), end_token_ids(self.tokenizer, self.model)
        self.rules = TokenRules(len(self.tokenizer), pad, ends, temperature)
        self.provenance: Mapping[str, Any] = {
            "model": source,
            "max_tokens": max_tokens,
            "temperature": temperature,
        }

    def write(self, prompt: str, count: int, seed: int) -> list[str]:
        """Answers to a prompt, sampled.

        Raises:
            InvalidPrompt: empty, or longer than the model takes.
        """
        (ids,) = encode_beginnings(self.tokenizer, [prompt])
        inputs = torch.tensor([ids] * count, device=self.model.device)
        answers = complete(
            self.model,
            inputs,
            torch.ones_like(inputs),
            self.rules,
            self.max_tokens,
            torch.Generator(self.model.device).manual_seed(seed),
        )
        lengths = answers.mask.sum(-1) - answers.stopped.long()
        responses = zip(answers.response_ids.tolist(), lengths.tolist(), strict=True)
        return [
            str(self.tokenizer.decode(row[:length], skip_special_tokens=True))
            for row, length in responses
        ]


class EndpointWriter:
    """A server with OpenAI's `chat/completions`, such as `transformers serve`, vLLM or llama.cpp.

    The key, if one is wanted, is read from the environment variable OPENAI_API_KEY and goes nowhere
    but into the request.

    Args:
        url: up to and with the version, such as http://127.0.0.1:8000/v1.
        model: the model's name there.
        max_tokens: longest answer.
        temperature: of the sampling.

    Raises:
        InvalidArgument: no address of a server, or a key that would travel unprotected.
    """

    def __init__(
        self, url: str, model: str, *, max_tokens: int = 64, temperature: float = 1.0
    ) -> None:
        self._endpoint = Endpoint(
            url,
            model,
            key=os.environ.get(KEY_VARIABLE),
            # The feed tries again, and tells raters why they wait.
            retries=0,
            max_tokens=max_tokens,
            temperature=temperature,
        )
        self.provenance: Mapping[str, Any] = {
            "endpoint": url,
            "model": model,
            "max_tokens": max_tokens,
            "temperature": temperature,
        }

    def write(self, prompt: str, count: int, seed: int) -> list[str]:
        """Answers to a prompt, sampled; `seed` is of no use, as few servers know one.

        Raises:
            ModelUnavailable: no server, an error of its own, or an answer of another form.
        """
        replies = self._endpoint.reply([prompt] * count)
        # Half a character cannot be stored, and some servers cut at a byte.
        return [reply.encode(errors="replace").decode() for reply in replies if reply]
