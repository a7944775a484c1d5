"""A language model as an SB3 policy: samples token by token, is trained sequence by sequence."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from rlhf_gym.agents.cached_prediction import CachedPrediction
from rlhf_gym.agents.functional import log_probs_and_entropy
from rlhf_gym.agents.lm_models import (
    ModelSource,
    build_language_model,
    build_value_model,
    length_parts,
    response_states,
)
from rlhf_gym.agents.packed_forward import packed_trunk
from rlhf_gym.core.channel import LogProbChannel
from rlhf_gym.core.decoding import Backend
from rlhf_gym.core.decoding.parts import logit_transform, take_apart
from rlhf_gym.core.reward_head import reward_mean
from rlhf_gym.core.sampler import Sampler
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs.text.observed_masks import ObservedMasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ValueSource = Literal["trunk", "separate", "none"] | str | PretrainedConfig


class TokenOutputs(NamedTuple):
    """What a policy says about responses that are written; 0 off the mask, shape (batch, time).

    Attributes:
        log_probs: of each response token under the legal logits, nats.
        entropy: of the distribution it was drawn from, nats.
        values: of the state before each token; None without a value model.
    """

    log_probs: Tensor
    entropy: Tensor
    values: Tensor | None


class LMPolicy(BasePolicy):
    """A causal language model and its value head.

    Args:
        observation_space: of a text environment, a Dict of ids and mask.
        action_space: the vocabulary.
        lr_schedule: SB3's place for it; the algorithm owns the optimiser, so it is not used.
        model: the language model: a Hugging Face directory or hub name, a module (trained in
            place), or a configuration alone when weights are loaded afterwards.
        rules: which tokens are legal, and the temperature.
        prompt_width: column at which responses begin.
        value_model: "trunk" is a linear head on the policy's own trunk, starting at 0; "separate" a
            second network that starts as the policy with a head of 0; a directory is a reward model
            to start from; "none" for agents without values.
        lora_rank: above 0, the language model is frozen and adapters of this rank are trained.
        freeze: a number freezes the embeddings and so many blocks, a string the parameters in whose
            name this regular expression is found.
        backend: how tokens are decoded, see `rlhf_gym.core.decoding.make_decoder`.
        channel: where `predict` writes its log-probabilities.
        seed: of the sampling in `predict` and of fresh adapters.

    Attributes:
        masks: which tokens `predict` may choose; the agent takes them from its environment, and a
            policy without an environment knows of none but PAD and banned tokens.
    """

    extra_kwargs: ClassVar[tuple[str, ...]] = ()
    """Further `policy_kwargs` that a subclass understands."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule | None = None,
        *,
        model: ModelSource,
        rules: TokenRules,
        prompt_width: int,
        value_model: ValueSource = "trunk",
        lora_rank: int = 0,
        freeze: int | str | None = None,
        backend: Backend = "auto",
        channel: LogProbChannel | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(observation_space, action_space)
        del lr_schedule
        self.rules = rules
        self.prompt_width = prompt_width
        self.lora_rank = lora_rank
        self.freeze = freeze
        self.backend: Backend = backend
        self.channel = channel
        self.masks: ObservedMasks | None = None
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

        language_model = build_language_model(model)
        self.value_model = build_value_model(value_model, language_model)
        self.model = _prepare(language_model, lora_rank, freeze, seed)
        parts = take_apart(self.model)
        self.model_config: PretrainedConfig = parts.model.config
        # What the families with a packed pass do behind their head: nothing.
        plain = packed_trunk(parts.trunk) is not None
        self._transform = (lambda logits: logits) if plain else logit_transform(parts)
        self.value_head: nn.Linear | None = None
        if value_model == "trunk":
            hidden_size = self.model_config.get_text_config().hidden_size
            # At 0 the first updates follow the rewards alone, and the head does not disturb the
            # trunk it shares.
            self.value_head = nn.Linear(hidden_size, 1)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        self._prediction = CachedPrediction(self.make_sampler)
        self.train(False)

    @property
    def has_values(self) -> bool:
        """False for a policy without a value model."""
        return self.value_head is not None or self.value_model is not None

    def make_sampler(
        self, generator: torch.Generator | None = None, *, with_distribution: bool = False
    ) -> Sampler:
        """A cached decoder of this policy.

        Args:
            generator: source of randomness; the policy's own by default.
            with_distribution: give the full distribution with every draw.
        """
        return Sampler(
            self.model,
            self.rules,
            generator=self.generator if generator is None else generator,
            backend=self.backend,
            with_distribution=with_distribution,
        )

    def trunk_values(self, hidden: Tensor) -> Tensor | None:
        """Values read off the policy's own hidden states; None if they need a pass of their own.

        Args:
            hidden: behind the final norm, shape (..., hidden).

        Returns:
            Shape (...).
        """
        if self.value_head is None:
            return None
        # The head stays in float32, whatever the language model is in.
        values: Tensor = self.value_head(hidden.to(self.value_head.weight.dtype)).squeeze(-1)
        return values

    def evaluate(
        self, input_ids: Tensor, attention_mask: Tensor, action_masks: Tensor | None = None
    ) -> TokenOutputs:
        """Score whole responses in one forward, with gradients.

        The trunk sees every token once, the LM head response tokens alone.

        Args:
            input_ids: prompts padded on the left, responses padded on the right, shape (batch,
                prompt_width + time).
            attention_mask: True at real tokens, shape as `input_ids`.
            action_masks: True where an action was allowed, shape (batch, time, vocab); None allows
                all.
        """
        mask = attention_mask[:, self.prompt_width :].bool()
        where = mask.nonzero(as_tuple=True)
        parts = take_apart(self.model)
        states = response_states(parts.trunk, input_ids, attention_mask, self.prompt_width)
        log_probs, entropy = log_probs_and_entropy(
            self._transform(parts.head(states)),
            input_ids[:, self.prompt_width :][where],
            self.rules,
            None if action_masks is None else action_masks[where],
        )
        values = self.trunk_values(states)
        if self.value_model is not None:
            values = self._separate_values(input_ids, attention_mask)

        def grid(tokens: Tensor) -> Tensor:
            return tokens.new_zeros(mask.shape).index_put(where, tokens)

        return TokenOutputs(
            grid(log_probs), grid(entropy), None if values is None else grid(values.float())
        )

    @torch.no_grad()
    def predict_values(
        self, input_ids: Tensor, attention_mask: Tensor, tokens_per_forward: int
    ) -> Tensor:
        """Values of the separate value model at every response token, 0 off the mask.

        Args:
            input_ids: prompts padded on the left, responses padded on the right, shape (batch,
                prompt_width + time).
            attention_mask: True at real tokens, shape as `input_ids`.
            tokens_per_forward: most tokens in one pass, padding included.

        Returns:
            Shape (batch, time), on the device of `input_ids`.
        """
        mask = attention_mask[:, self.prompt_width :].bool()
        values = torch.zeros(mask.shape, device=input_ids.device)
        for rows in length_parts(attention_mask.sum(-1).cpu(), tokens_per_forward):
            ids, real = input_ids[rows].to(self.device), attention_mask[rows].to(self.device)
            tokens = self._separate_values(ids, real).float().to(values.device)
            where_rows, times = mask[rows].nonzero(as_tuple=True)
            values[rows[where_rows], times] = tokens
        return values

    def _separate_values(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        assert self.value_model is not None
        parts = take_apart(self.value_model)
        states = response_states(parts.trunk, input_ids, attention_mask, self.prompt_width)
        values: Tensor = parts.head(states).squeeze(-1)
        return values - reward_mean(self.value_model.config)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Next tokens for a batch of observations; what was sampled is written to the channel."""
        ids = cast(dict[str, Tensor], observation)["input_ids"].long()
        mask = cast(dict[str, Tensor], observation)["attention_mask"].bool()
        allowed = None if self.masks is None else self.masks.allowed(ids, mask)
        draw = self._prediction.draw(self.model, ids, mask, deterministic, allowed)
        if self.channel is not None:
            self.channel.write(draw.tokens, draw.log_probs, draw.log_distribution)
        return draw.tokens

    def save_pretrained(self, folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> Path:
        """Write a Hugging Face directory: the language model, its tokenizer and the value head."""
        from rlhf_gym.agents.policy_folder import save_policy

        return save_policy(self, tokenizer, Path(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path, **changes: Any) -> LMPolicy:
        """Read what `save_pretrained` wrote; `changes` override constructor arguments.

        Raises:
            InvalidCheckpoint: the folder holds no policy of ours.
        """
        from rlhf_gym.agents.policy_folder import load_policy

        return load_policy(cls, Path(folder), changes)

    def constructor_parameters(self) -> dict[str, Any]:
        """What rebuilds this policy before its weights are loaded: no modules, no paths."""
        value: ValueSource = "trunk" if self.value_head is not None else "none"
        if self.value_model is not None:
            value = copy.deepcopy(self.value_model.config)
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "model": copy.deepcopy(self.model_config),
            "rules": self.rules,
            "prompt_width": self.prompt_width,
            "value_model": value,
            "lora_rank": self.lora_rank,
            "freeze": self.freeze,
            "backend": self.backend,
            "seed": self.seed,
        }

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return self.constructor_parameters()


def _prepare(
    model: PreTrainedModel, lora_rank: int, freeze: int | str | None, seed: int
) -> nn.Module:
    """Put adapters in, or choose what is trained."""
    from rlhf_gym.core.models import add_lora, freeze_layers

    if lora_rank:
        return cast(nn.Module, add_lora(model, lora_rank, seed=seed))
    if freeze is not None:
        freeze_layers(model, freeze)
    return model
