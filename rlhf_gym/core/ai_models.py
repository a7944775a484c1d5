"""Language models that reply: of a directory, or behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from rlhf_gym.core.errors import InvalidArgument, RLHFGymError

PAUSE = 0.5
"""Seconds before the second try."""
LONGEST_PAUSE = 60.0
LONGEST_REPLY = 1 << 20
"""Bytes of a reply; what is longer is no answer to our question."""
_MAY_PASS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class ModelUnavailable(RLHFGymError, RuntimeError):
    """The model behind an endpoint gave no reply, or none that can be understood."""


class Writer(Protocol):
    """Replies to requests.

    Attributes:
        name: which model it is.
    """

    name: str

    def reply(self, requests: Sequence[str]) -> list[str]:
        """One reply to each request, in order."""


class LocalModel:
    """A model on this machine; its most probable reply.

    Requests go through its chat template, if it has one. One that does not fit into its context has
    an empty reply.

    Args:
        directory: directory or hub name of a causal language model.
        max_tokens: of a reply.

    Raises:
        InvalidCheckpoint: no language model there.
    """

    def __init__(self, directory: str, *, max_tokens: int = 16) -> None:
        from rlhf_gym.core.models import context_length, load_causal_lm, load_tokenizer

        self.name = Path(directory).name
        self._max_tokens = max_tokens
        self._model = load_causal_lm(directory)
        self._tokenizer = load_tokenizer(directory)
        self._context = context_length(self._model.config)

    def reply(self, requests: Sequence[str]) -> list[str]:
        """One reply to each request, in order."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: str) -> str:
        import torch

        tokenizer: Any = self._tokenizer
        text = request
        if tokenizer.chat_template is not None:
            turns = [{"role": "user", "content": request}]
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        ids = ids.to(self._model.device)
        width = ids["input_ids"].shape[1]
        if self._context is not None and width + self._max_tokens > self._context:
            return ""
        with torch.no_grad():
            written = self._model.generate(  # type: ignore[operator]
                **ids,
                max_new_tokens=self._max_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        return str(tokenizer.decode(written[0, width:], skip_special_tokens=True))


class Endpoint:
    """A model behind an OpenAI-compatible endpoint (`/chat/completions`).

    Args:
        url: beginning of the address, such as "http://127.0.0.1:8000/v1".
        name: what the endpoint calls the model.
        key: sent as a bearer token, over https or to this machine alone.
        timeout: seconds to wait for a reply.
        retries: tries after a failure that may pass (no connection, no time, 429, 5xx).
        parallel: requests at a time.
        max_tokens: of a reply.
        temperature: 0 for the most probable reply, higher to sample one.

    Raises:
        InvalidArgument: no http address, or a key that would travel unprotected.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        parallel: int = 4,
        max_tokens: int = 16,
        temperature: float = 0.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgument(
                "endpoint", url, "no http address", "Give http://127.0.0.1:8000/v1, for example"
            )
        if key and parts.scheme == "http" and not _is_this_machine(parts.hostname):
            raise InvalidArgument(
                "endpoint", url, "the key would travel unprotected", "Give an https address"
            )
        self.name = name
        self._url = url.rstrip("/") + "/chat/completions"
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout = timeout
        self._retries = retries
        self._parallel = parallel
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._opener = urllib.request.build_opener(_NoRedirect)

    def reply(self, requests: Sequence[str]) -> list[str]:
        """One reply to each request, in order.

        Raises:
            ModelUnavailable: no reply after all tries, a refusal, or a reply of another form.
        """
        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(self._reply, requests))

    def _reply(self, request: str) -> str:
        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": request}],
            "max_tokens": self._max_tokens,
            "temperature": self._temperature,
            "stream": False,
        }
        answer = self._post(json.dumps(body).encode())
        try:
            content = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise ModelUnavailable(
                f"{self._url}: a reply without choices[0].message.content: {answer[:200]!r}. "
                "Is it an OpenAI-compatible endpoint?"
            ) from error
        return content if isinstance(content, str) else ""

    def _post(self, body: bytes) -> bytes:
        problem = ""
        for attempt in range(self._retries + 1):
            pause = min(PAUSE * 2**attempt, LONGEST_PAUSE)
            try:
                request = urllib.request.Request(self._url, body, self._headers)
                with self._opener.open(request, timeout=self._timeout) as response:
                    return bytes(response.read(LONGEST_REPLY))
            except urllib.error.HTTPError as error:
                with error:
                    said = error.read(500).decode(errors="replace")
                problem = f"status {error.code}: {said}"
                if error.code not in _MAY_PASS:
                    break
                pause = _asked_pause(error.headers, pause)
            except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
                problem = str(error) or type(error).__name__
            if attempt < self._retries:
                # Many clients that come back in step would meet the same jam.
                time.sleep(pause * random.uniform(0.5, 1.0))
        raise ModelUnavailable(
            f"{self._url}: {problem}. Run the same command again when it is back"
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected request would carry the key to somewhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the redirection is an error."""


def _asked_pause(headers: Message, default: float) -> float:
    """Seconds that the server asks for, if it does so plainly and not too long."""
    asked = headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE) if asked.isdecimal() else default


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
