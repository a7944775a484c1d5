"""The language model as SB3's policies see it: an observation in, a hidden state out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from rlhf_gym.agents.cached_prediction import CachedPrediction
from rlhf_gym.agents.lm_models import packed_states
from rlhf_gym.agents.packed_forward import packed_trunk
from rlhf_gym.agents.sb3.shared_prefixes import SharedPrefixes
from rlhf_gym.core.decoding import Backend
from rlhf_gym.core.decoding.parts import logit_transform, take_apart
from rlhf_gym.core.errors import InvalidArgument, TokenizerMismatch
from rlhf_gym.core.sampler import Sampler
from rlhf_gym.core.tokens import TokenRules, legal_logits


class CachedLM(nn.Module):
    """A causal language model that reads observations of the token MDP.

    While a policy acts, rows are served from a cache of keys and values; while it is trained, each
    text is read once, however many of its prefixes are in the minibatch. SB3 says which of the two
    it is: it calls `set_training_mode` before both.

    Args:
        model: the language model; trained in place.
        rules: which tokens are legal, and the temperature.
        prompt_width: column at which responses begin.
        backend: how tokens are decoded, see `rlhf_gym.core.decoding.make_decoder`.

    Raises:
        TokenizerMismatch: the model scores fewer tokens than the rules know.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rules: TokenRules,
        prompt_width: int,
        *,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        parts = take_apart(model)
        config = parts.model.config.get_text_config()
        if config.vocab_size < rules.vocab_size:
            raise TokenizerMismatch(
                "model",
                config.vocab_size,
                f"it scores fewer tokens than the environment's vocabulary of {rules.vocab_size}",
                "Use the tokenizer that the model was trained with",
            )
        self.model = model
        self.rules = rules
        self.prompt_width = prompt_width
        self.backend: Backend = backend
        self.hidden_size: int = config.hidden_size
        # What the families with a packed pass do behind their head: nothing.
        plain = packed_trunk(parts.trunk) is not None
        self._transform = (lambda logits: logits) if plain else logit_transform(parts)
        self._cache = CachedPrediction(self._make_sampler)
        self.train(False)

    def hidden(
        self, observation: Mapping[str, Tensor], *, twice_differentiable: bool = False
    ) -> Tensor:
        """What the next token is predicted from: the trunk's output at each row's last token.

        Args:
            observation: `input_ids` and `attention_mask`, any numeric type, shape (batch, width). A
                row without any token, such as RecurrentPPO's padding, gives some finite numbers.
            twice_differentiable: use kernels whose gradients can be differentiated again; TRPO
                does.

        Returns:
            Shape (batch, hidden), with gradients unless they are switched off.
        """
        ids, mask = read_observation(observation)
        if not torch.is_grad_enabled() and not self.training:
            return self._cache.sampler_at(self.model, ids, mask).hidden
        # An update is about to move the weights, so what is cached will never be asked for again.
        # It may also put new tensors where old ones were (TRPO does): addresses prove nothing then.
        self._cache.forget()
        shared = SharedPrefixes.of(ids, mask)
        kernels = sdpa_kernel(SDPBackend.MATH) if twice_differentiable else nullcontext()
        with kernels:
            states = packed_states(take_apart(self.model).trunk, shared.rows)
        return states[shared.state_of]

    def logits(self, hidden: Tensor) -> Tensor:
        """The model's raw logits, shape (..., hidden) to (..., at least vocab)."""
        logits: Tensor = self._transform(take_apart(self.model).head(hidden))
        return logits

    def legal_logits(self, hidden: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """Logits of the distribution that is sampled from, minus infinity at illegal tokens.

        Args:
            hidden: shape (..., hidden).
            action_masks: True where an action is allowed, shape (..., vocab); None allows all.

        Returns:
            Shape (..., vocab).
        """
        return legal_logits(self.logits(hidden), self.rules, action_masks)

    def forget(self) -> None:
        """Give the memory of the caches back."""
        self._cache.forget()

    def _make_sampler(self) -> Sampler:
        # SB3's distributions draw; the generator is never used.
        return Sampler(self.model, self.rules, generator=torch.Generator(), backend=self.backend)


def read_observation(observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Ids, int64, and mask, bool, of a batch of observations; SB3 may have made floats of them.

    A row without any token is given one: models cannot read nothing.

    Raises:
        InvalidArgument: it is no mapping with `input_ids` and `attention_mask`, or a wrapper made
            other numbers of them.
    """
    if not isinstance(observation, Mapping) or not {"input_ids", "attention_mask"} <= {
        *observation
    }:
        raise InvalidArgument(
            "observation",
            sorted(observation) if isinstance(observation, Mapping) else type(observation).__name__,
            "a policy reads input_ids and attention_mask",
            'Make the environment with observation="dict", and keep wrappers from changing it',
        )
    for key in ("input_ids", "attention_mask"):
        values = observation[key]
        if values.is_floating_point() and (values.long() != values).any():
            raise InvalidArgument(
                f"observation[{key!r}]",
                values[values.long() != values][0].item(),
                "ids of tokens became other numbers, which no model can read",
                "Keep wrappers from changing it: VecNormalize(env, norm_obs=False)",
            )
    ids = observation["input_ids"].long()
    mask = observation["attention_mask"].bool()
    is_empty = ~mask.any(-1)
    if is_empty.any():
        mask = mask.clone()
        mask[is_empty, 0] = True
    return ids, mask
