"""Credit by attention: a score goes to the tokens that the reward model looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf_gym.core.decoding.base import evaluation_mode
from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import last_token_index, position_ids
from rlhf_gym.rewards.base import RewardFunction, RewardTerm
from rlhf_gym.rewards.model import RewardModel
from rlhf_gym.rewards.spread import Spread

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class AttentionSpread(Spread):
    """A score shared out as the reward model's last token attends to the response.

        reward_t = (mix * attention_t + (1 - mix) * [t is last]) * score

    `attention` is that of the last real token in one layer, the mean over its heads, over response
    tokens only and renormalised to sum to 1. The sum per response is the score, so with gamma = 1
    the optimum stays where it is.

    Args:
        reward_model: its attention is read; a causal model that shares the policy's tokenizer.
        reward: what is shared out; the reward model's own score by default.
        mix: share of the score that is spread, from 0 (all at the last token) to 1.
        layer: which layer's attention, -1 for the last.
        name: tag of the term.

    Raises:
        InvalidArgument: a mix outside 0 to 1, or no such layer.
        TokenizerMismatch: when scoring, if the model reads text.

    Source: Chan et al. (2024), "Dense Reward for Free in Reinforcement Learning from Human
    Feedback".
    """

    prefix = "attention"

    def __init__(
        self,
        reward_model: RewardModel,
        reward: RewardTerm | RewardFunction | None = None,
        *,
        mix: float = 1.0,
        layer: int = -1,
        name: str | None = None,
    ) -> None:
        super().__init__(reward_model if reward is None else reward, name)
        if not 0 <= mix <= 1:
            raise InvalidArgument("mix", mix, "not a share", "Give 0 to 1")
        layers = reward_model.model.config.get_text_config().num_hidden_layers
        if not -layers <= layer < layers:
            raise InvalidArgument(
                "layer", layer, f"the reward model has {layers} layers", "Give -1 for the last"
            )
        self.reward_model = reward_model
        self.mix = mix
        self.layer = layer

    def shares(self, episodes: Episodes) -> Tensor:
        """Each token's share of the score, shape (batch, time)."""
        ids, mask = self.reward_model.shared_ids(episodes)
        size = self.reward_model.batch_size
        batches = zip(torch.split(ids, size), torch.split(mask, size), strict=True)
        model = self.reward_model.model
        weights = torch.cat([last_token_attention(model, i, m, self.layer) for i, m in batches])
        # Padding gets none; the last token sees itself, so there is always something to divide by.
        paid = weights[:, episodes.prompt_width :]
        attention = paid / paid.sum(-1, keepdim=True)
        last = episodes.at_last_token(torch.ones(len(episodes)))
        return self.mix * attention + (1 - self.mix) * last


@torch.no_grad()
def last_token_attention(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, layer: int = -1
) -> Tensor:
    """How much each row's last real token attends to each token, the mean over heads.

    Args:
        model: a causal sequence classifier.
        input_ids: int64, padded on either side, shape (batch, width).
        attention_mask: non-zero at real tokens, shape (batch, width).
        layer: which layer's.

    Returns:
        Float32 on the CPU, shape (batch, width), each row summing to 1.
    """
    device = model.device
    mask = attention_mask.long().to(device)
    with evaluation_mode(model), _eager_attention(model):
        output = model.base_model(
            input_ids=input_ids.to(device),
            attention_mask=mask,
            position_ids=position_ids(mask),
            output_attentions=True,
            use_cache=False,
        )
    attention: Tensor = output.attentions[layer].float().mean(1)  # (batch, queries, keys)
    rows = torch.arange(len(mask), device=device)
    return attention[rows, last_token_index(mask)].cpu()


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Fused attention never forms the weights; only the eager one can tell them."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
