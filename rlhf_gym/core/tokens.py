"""The token MDP's arithmetic: which tokens are legal, and how an observation is read by a model.

Policy, reference and exact optimum all pass through `legal_logits`, so temperature and masks are
the same for all of them: at the start of training KL is exactly 0 and every ratio is exactly 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlhf_gym.core.errors import InvalidArgument, TokenizerMismatch

Observation = Mapping[str, Any]
"""`input_ids` and `attention_mask`, NumPy or torch, shape (width,) or (batch, width)."""


@dataclass(frozen=True)
class TokenRules:
    """Which tokens may be emitted, which end a response, and at what temperature.

    Attributes:
        vocab_size: number of actions; a model may have more logits (padded rows), never fewer.
        pad_id: fills rows; never legal, never a stop token.
        stop_ids: the first of these ends the response (chat models have several).
        temperature: divides the logits in rollout, reference and update alike.
        banned_ids: tokens that are never legal, besides PAD.
    """

    vocab_size: int
    pad_id: int
    stop_ids: tuple[int, ...]
    temperature: float = 1.0
    banned_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InvalidArgument(
                "temperature", self.temperature, "it divides the logits", "Give a number above 0"
            )
        if self.pad_id in self.stop_ids:
            raise TokenizerMismatch(
                "pad_id",
                self.pad_id,
                "PAD is also a stop token, so a model could never learn to stop",
                "Give the tokenizer a PAD token of its own, for example "
                "tokenizer.add_special_tokens({'pad_token': '<pad>'})",
            )
        for name in ("pad_id", "stop_ids", "banned_ids"):
            value = getattr(self, name)
            ids = (value,) if isinstance(value, int) else value
            if any(not 0 <= i < self.vocab_size for i in ids):
                raise TokenizerMismatch(
                    name,
                    value,
                    f"outside the vocabulary of {self.vocab_size} tokens",
                    "Use the tokenizer that the model was trained with",
                )
        if set(range(self.vocab_size)) <= {self.pad_id, *self.banned_ids}:
            raise InvalidArgument(
                "banned_ids", self.banned_ids, "no legal token is left", "Ban fewer tokens"
            )

    @property
    def illegal_ids(self) -> tuple[int, ...]:
        """PAD and the banned tokens, in ascending order."""
        return tuple(sorted({self.pad_id, *self.banned_ids}))


def legal_logits(logits: Tensor, rules: TokenRules, mask: Tensor | None = None) -> Tensor:
    """Logits of the distribution that is really sampled from.

    Args:
        logits: a model's raw logits, shape (..., at least vocab).
        rules: temperature and the tokens that are never legal.
        mask: True where an action is allowed, broadcastable to (..., vocab); None allows all.

    Returns:
        Shape (..., vocab): divided by the temperature, minus infinity at illegal tokens. A new
        tensor; `logits` is left as it is.
    """
    if logits.shape[-1] < rules.vocab_size:
        raise TokenizerMismatch(
            "logits",
            tuple(logits.shape),
            f"the model scores fewer tokens than the vocabulary of {rules.vocab_size}",
            "Use the tokenizer that the model was trained with",
        )
    legal = logits[..., : rules.vocab_size] / rules.temperature
    for i in rules.illegal_ids:
        legal[..., i] = -torch.inf
    if mask is not None:
        legal = legal.masked_fill(~mask, -torch.inf)
    return legal


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions that do not move with padding: 0 at the first real token, shape as the mask."""
    return (attention_mask.long().cumsum(-1) - 1).clamp_min(0)


def lm_inputs(observation: Observation, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Turn an observation into a causal LM's keyword arguments.

    GPT-2 does not derive positions from the mask, so they are added here.

    Args:
        observation: `input_ids` and `attention_mask`, shape (width,) or (batch, width).
        device: where the tensors go.

    Returns:
        `input_ids`, `attention_mask`, `position_ids`, int64, each of shape (batch, width).
    """
    ids = torch.as_tensor(np.atleast_2d(observation["input_ids"]), dtype=torch.long, device=device)
    mask = torch.as_tensor(
        np.atleast_2d(observation["attention_mask"]), dtype=torch.long, device=device
    )
    return {"input_ids": ids, "attention_mask": mask, "position_ids": position_ids(mask)}


def last_token_index(attention_mask: Tensor) -> Tensor:
    """Column of each row's last real token, shape (batch,).

    Args:
        attention_mask: non-zero at real tokens, shape (batch, width); each row has at least one.
    """
    width = attention_mask.shape[-1]
    return width - 1 - attention_mask.bool().flip(-1).int().argmax(-1)


def next_token_logits(model: nn.Module, observation: Observation) -> Tensor:
    """Raw logits of the token that follows each observation, shape (batch, at least vocab).

    The last slot of an observation is usually padding: the slot of the last mask bit is read.
    """
    inputs = lm_inputs(observation, next(model.parameters()).device)
    last = last_token_index(inputs["attention_mask"])
    width = int(last.max()) + 1
    logits: Tensor = model(**{key: value[:, :width] for key, value in inputs.items()}).logits
    return logits[torch.arange(len(last), device=last.device), last]


def gather_log_probs(logits: Tensor, actions: Tensor) -> Tensor:
    """Log-probability of each action.

    Args:
        logits: legal logits, shape (..., vocab).
        actions: token ids, shape (...).

    Returns:
        Shape (...), nats.
    """
    chosen = logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the distribution behind legal logits, nats, shape (...); illegal tokens add 0."""
    log_probs = logits.log_softmax(-1)
    return -(log_probs.exp() * log_probs.masked_fill(log_probs == -torch.inf, 0.0)).sum(-1)
