"""The one-number head of a reward model: how it starts, where it is read, how it is normalised.

A reward model is a Hugging Face sequence classifier with one output. A causal one (GPT-2, Llama,
...) has a linear `score` on the trunk, read at the last real token; an encoder (BERT, ...) has a
head of its own and is asked through its own forward pass. Normalisation needs no extra parameters:
the gain is folded into the head's weight, and the mean is `config.reward_mean`, because a causal
model's head has no bias.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
from rlhf_gym.core.model_changes import disable_dropout
from rlhf_gym.core.tokens import last_token_index, position_ids

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_CAUSAL_HEAD = "score"
"""What transformers calls the linear head of every decoder-only sequence classifier."""


def reward_head(model: PreTrainedModel) -> nn.Linear:
    """The linear layer that turns hidden states into scores.

    Args:
        model: a sequence classifier with one output.

    Raises:
        InvalidCheckpoint: the model has no such layer, or has several classes.
    """
    return _named_head(model)[1]


def causal_head(model: PreTrainedModel) -> nn.Linear:
    """The same of a model that also has a score for every prefix.

    Args:
        model: a causal sequence classifier with one output.

    Raises:
        InvalidArgument: an encoder, which has one score for the whole text and none for a prefix.
    """
    name, head = _named_head(model)
    if name != _CAUSAL_HEAD:
        raise InvalidArgument(
            "model",
            type(model).__name__,
            "an encoder has no scores for prefixes",
            "Use a reward model made from a causal language model",
        )
    return head


def reward_model_from_lm(lm: PreTrainedModel, generator: torch.Generator) -> PreTrainedModel:
    """A sequence classifier on a copy of a language model's trunk, with a fresh head.

    Args:
        lm: a causal language model; left as it is.
        generator: draws the head, on the CPU.

    Returns:
        A model without dropout, on the device of `lm`.

    Raises:
        InvalidCheckpoint: transformers has no classifier of this kind of model.
    """
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(lm.config)
    config.num_labels = 1
    config.reward_mean = 0.0
    try:
        # The weights drawn here are all replaced; the global generator must not notice them.
        with torch.random.fork_rng(devices=[]):
            model: PreTrainedModel = AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
                config
            )
    except ValueError as error:
        raise InvalidCheckpoint(
            "model",
            type(lm).__name__,
            "there is no sequence classifier of this kind of model",
            "Give another language model",
        ) from error
    model.base_model.load_state_dict(lm.base_model.state_dict())
    disable_dropout(model)
    init_reward_head(model, generator)
    nn.Module.to(model, device=lm.device, dtype=lm.dtype)
    return model


def init_reward_head(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Draw the head's weight from N(0, 1 / (hidden + 1)) and set a bias, if it has one, to 0.

    Args:
        model: a sequence classifier with one output; changed in place.
        generator: source of the draw, on the CPU.

    Source: Stiennon et al. 2020, appendix C; "The N+ Implementation Details of RLHF with PPO"
    (arXiv 2403.17031), detail 11.
    """
    head = reward_head(model)
    std = 1.0 / math.sqrt(head.in_features + 1)
    with torch.no_grad():
        # Drawn on the CPU in float32, so that the same seed gives the same head on every device.
        draw = torch.randn(head.weight.shape, generator=generator)
        head.weight.copy_(std * draw)
        if head.bias is not None:
            head.bias.zero_()


def reward_mean(config: PretrainedConfig) -> float:
    """The mean that is subtracted from the head's output; 0 for a model never normalised."""
    return float(getattr(config, "reward_mean", 0.0))


def fold_normalisation(model: PreTrainedModel, mean: float, std: float) -> None:
    """Shift and scale a reward model, so that scores with this mean and deviation get 0 and 1.

    Folding twice composes: the second call's mean and deviation are those of the scores as they
    came out after the first.

    Args:
        model: a sequence classifier with one output; its head and config are changed in place.
        mean: mean of its scores on the samples that define the scale.
        std: their standard deviation, above 0.

    Raises:
        InvalidArgument: a mean that is not finite, or a deviation that is not finite and above 0.

    Source: Ziegler et al. 2019, section 2.1: rewards normalised to mean 0, variance 1 on the
    pretrained model's own samples.
    """
    if not math.isfinite(mean):
        raise InvalidArgument("mean", mean, "not a finite number", "Check the scores for NaN")
    if not (math.isfinite(std) and std > 0):
        raise InvalidArgument(
            "std",
            std,
            "scores are divided by it",
            "Normalise on responses whose scores differ; if none do, the model learned nothing",
        )
    head = reward_head(model)
    with torch.no_grad():
        head.weight.div_(std)
        if head.bias is not None:
            head.bias.div_(std)
    # (w h - m - mean) / std  =  (w / std) h - (m + mean) / std
    model.config.reward_mean = (reward_mean(model.config) + mean) / std


def score_ids(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Score each sequence as a whole, read at its last real token; gradients flow.

    Args:
        model: a sequence classifier with one output.
        input_ids: prompt and response, int64, padded on either side, shape (batch, width).
        attention_mask: non-zero at real tokens, at least one a row, shape (batch, width).

    Returns:
        Normalised scores, float32, shape (batch,).
    """
    name, head = _named_head(model)
    ids, mask, _ = _trim(input_ids, attention_mask)
    scores: Tensor
    if name == _CAUSAL_HEAD:
        rows = torch.arange(len(ids), device=ids.device)
        scores = head(_trunk(model, ids, mask)[rows, last_token_index(mask)])[:, 0]
    else:
        scores = model(input_ids=ids, attention_mask=mask).logits[:, 0]
    return scores.float() - reward_mean(model.config)


def per_token_scores(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Score every prefix of each sequence: the head on every position; gradients flow.

    Args:
        model: a causal sequence classifier with one output.
        input_ids: int64, padded on either side, shape (batch, width).
        attention_mask: non-zero at real tokens, shape (batch, width).

    Returns:
        Normalised scores, float32, shape (batch, width), 0 off the mask. The entry of a row's last
        real token is that row's `score_ids`.

    Raises:
        InvalidArgument: an encoder, which has one score for the whole text and none for a prefix.
    """
    head = causal_head(model)
    ids, mask, columns = _trim(input_ids, attention_mask)
    scores = head(_trunk(model, ids, mask))[..., 0].float() - reward_mean(model.config)
    before = columns.start
    after = input_ids.shape[1] - columns.stop
    return nn.functional.pad(scores.masked_fill(~mask.bool(), 0.0), (before, after))


def _named_head(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    """The last linear layer with one output that is not part of the trunk, by name."""
    trunk = model.base_model_prefix + "."
    heads = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == 1 and not name.startswith(trunk)
    ]
    if not heads:
        raise InvalidCheckpoint(
            "reward_model",
            type(model).__name__,
            "no linear head with one output",
            "Give a sequence classifier with num_labels=1, as `rlhf-gym reward-model` writes it",
        )
    return heads[-1]


def _trunk(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Hidden states of the trunk, shape (batch, width, hidden)."""
    # Without the positions, GPT-2 would count left padding as text.
    output = model.base_model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids(attention_mask),
        use_cache=False,
    )
    hidden: Tensor = output.last_hidden_state
    return hidden


def _trim(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, slice]:
    """Leave out the columns at either end that are padding in every row."""
    used = attention_mask.bool().any(0).nonzero()[:, 0]
    columns = slice(int(used[0]), int(used[-1]) + 1)
    return input_ids[:, columns], attention_mask[:, columns].long(), columns
