"""SB3's features extractors for text: what the policy and value nets read of an observation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import TensorDict
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_gym.agents.lm_models import build_language_model
from rlhf_gym.agents.sb3.cached_lm import CachedLM, read_observation
from rlhf_gym.agents.sb3.starting_model import StartingModel
from rlhf_gym.core.decoding import Backend
from rlhf_gym.core.model_changes import add_lora
from rlhf_gym.core.tokens import TokenRules, last_token_index


class LMFeatures(BaseFeaturesExtractor):
    """The language model's hidden state at the last token.

    Args:
        observation_space: of a text environment.
        model: what to start from: a directory, a hub name, or `StartingModel`.
        rules: which tokens are legal, and the temperature.
        prompt_width: column at which responses begin.
        backend: how tokens are decoded, see `rlhf_gym.core.decoding.make_decoder`.
        lora_rank: above 0, the language model is frozen and adapters of this rank are trained.

    Attributes:
        lm: the language model.
    """

    def __init__(
        self,
        observation_space: spaces.Space[object],
        model: StartingModel | str,
        rules: TokenRules,
        prompt_width: int,
        backend: Backend = "auto",
        lora_rank: int = 0,
    ) -> None:
        language_model = build_language_model(
            model.take() if isinstance(model, StartingModel) else model
        )
        if lora_rank:
            adapted = add_lora(language_model, lora_rank, seed=torch.initial_seed())
            language_model = cast(PreTrainedModel, adapted)
        lm = CachedLM(language_model, rules, prompt_width, backend=backend)
        super().__init__(observation_space, features_dim=lm.hidden_size)
        self.lm = lm
        self._twice_differentiable = False

    def forward(self, observations: TensorDict) -> Tensor:
        """Shape (batch, hidden); see `CachedLM.hidden`."""
        return self.lm.hidden(observations, twice_differentiable=self._twice_differentiable)

    @contextmanager
    def twice_differentiable(self) -> Iterator[None]:
        """Compute with kernels whose gradients can be differentiated again."""
        self._twice_differentiable = True
        try:
            yield
        finally:
            self._twice_differentiable = False


class LastToken(BaseFeaturesExtractor):
    """An embedding, learned from nothing, of the last token alone.

    Args:
        observation_space: of a text environment.
        vocab_size: tokens of the vocabulary.
        size: numbers per token.
    """

    def __init__(
        self, observation_space: spaces.Space[object], vocab_size: int, size: int = 64
    ) -> None:
        super().__init__(observation_space, features_dim=size)
        self.embedding = nn.Embedding(vocab_size, size)

    def forward(self, observations: TensorDict) -> Tensor:
        """Shape (batch, size)."""
        ids, mask = read_observation(observations)
        last = last_token_index(mask)
        embedded: Tensor = self.embedding(ids.gather(1, last[:, None]).squeeze(1))
        return embedded
