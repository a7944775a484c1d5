"""Action values that start as the language model's log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from sb3_contrib.qrdqn.policies import QuantileNetwork
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.dqn.policies import QNetwork
from torch import Tensor, nn

from rlhf_gym.agents.sb3.cached_lm import CachedLM, read_observation
from rlhf_gym.agents.sb3.features import LMFeatures
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.sampling import sample_tokens
from rlhf_gym.envs.text.masking import ActionMasks, Written

ILLEGAL = -1e8
"""Value of an illegal token: no maximum takes it, and unlike minus infinity it makes no NaN."""

RANK = 8
"""Numbers by which tokens may differ in the shape of their return's distribution."""


@dataclass(frozen=True)
class Epsilon:
    """The share of tokens that exploration draws uniformly from the legal ones.

    It falls linearly. Worth something where a vocabulary is so small that chance finds what the
    language model would not try; in one of 50,000 tokens chance finds nothing.

    Attributes:
        initial: at the first token.
        final: from then on.
        tokens: how many are drawn until then.
    """

    initial: float = 0.0
    final: float = 0.0
    tokens: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.initial <= 1 and 0 <= self.final <= 1 and self.tokens >= 1):
            raise InvalidArgument(
                "epsilon", self, "shares lie between 0 and 1, tokens above 0", "Give such"
            )

    def after(self, drawn: int) -> float:
        """The share when so many tokens have been drawn."""
        done = min(drawn / self.tokens, 1.0)
        return self.initial + done * (self.final - self.initial)


class TokenValues:
    """What a language model says about action values, and how to explore by them.

        Q(s, a) = scale * log pi(a | s) + residual(s, a),  residual = 0 at the start

    The greedy token is then the model's own, and softmax(Q / scale) the model's own distribution:
    it is what exploration draws from, but for `epsilon`. With `scale` the KL coefficient and
    rewards in the soft form (score + coef * log pi_ref) the first term is the reward that a token
    earns at once.

    Args:
        scale: reward per nat, above 0.
        epsilon: how many tokens exploration draws uniformly instead.
        masks: the environment's action masks; None if all is allowed.
        support: tokens less probable than this share of the most probable one are out of the
            question. Of what was hardly ever tried, values know nothing, and an argmax over a
            vocabulary finds whatever they are wrong about.
        seed: of the exploration.

    Raises:
        InvalidArgument: a scale that is not above 0, a support that is no share, or masks of the
            reference.

    Source of `support`: Fujimoto et al. (2019), "Benchmarking Batch Deep Reinforcement Learning
    Algorithms", equation 9.
    """

    def __init__(
        self,
        scale: float,
        epsilon: Epsilon,
        masks: ActionMasks | None,
        support: float,
        seed: int,
    ) -> None:
        if not 0 < scale < math.inf:
            raise InvalidArgument(
                "q_scale", scale, "it multiplies log-probabilities", "Give a number above 0"
            )
        if not 0 <= support < 1:
            raise InvalidArgument(
                "support", support, "a share of the most probable token", "Give 0 or more, below 1"
            )
        self.scale = scale
        self.epsilon = epsilon
        self.support = support
        self._drawn = 0
        check_masks(masks)
        self._masks = masks
        self._generator = torch.Generator().manual_seed(seed)

    def prior(self, lm: CachedLM, hidden: Tensor, observation: Mapping[str, Tensor]) -> Tensor:
        """scale * log pi, minus infinity at tokens out of the question, shape (batch, vocab).

        Args:
            lm: the language model.
            hidden: its states, shape (batch, hidden).
            observation: `input_ids` and `attention_mask`, shape (batch, width).
        """
        legal = lm.legal_logits(hidden, allowed_tokens(self._masks, lm.prompt_width, observation))
        log_probs = legal.float().log_softmax(-1)
        if self.support:
            least = log_probs.amax(-1, keepdim=True) + math.log(self.support)
            log_probs = log_probs.masked_fill(log_probs < least, -torch.inf)
        return self.scale * log_probs

    def explore(self, values: Tensor) -> Tensor:
        """Draw tokens from softmax(values / scale), shape (batch, vocab) to (batch,)."""
        logits = (values / self.scale).masked_fill(values <= ILLEGAL / 2, -torch.inf).cpu()
        chance = torch.rand(len(values), 1, generator=self._generator)
        is_random = chance < self.epsilon.after(self._drawn)
        self._drawn += len(values)
        # Equal logits at all legal tokens.
        logits = logits.masked_fill(is_random & (logits > -torch.inf), 0.0)
        return sample_tokens(logits, self._generator)[0].to(values.device)


def check_masks(masks: ActionMasks | None) -> None:
    """Refuse masks that `allowed_tokens` cannot compute.

    Raises:
        InvalidArgument: top-k or top-p of the reference.
    """
    if masks is not None and masks.needs_reference:
        raise InvalidArgument(
            "env",
            {"top_k": masks.top_k, "top_p": masks.top_p},
            "an observation does not tell what the reference's top-k and top-p are",
            "Use MaskablePPO or an agent of ours, or leave top_k and top_p out",
        )


def allowed_tokens(
    masks: ActionMasks | None, prompt_width: int, observation: Mapping[str, Tensor]
) -> Tensor | None:
    """What an environment's masks allow behind each observation, computed from the ids.

    Args:
        masks: the environment's; None if all is allowed.
        prompt_width: column at which responses begin.
        observation: `input_ids` and `attention_mask`, shape (batch, width).

    Returns:
        Shape (batch, vocab), or None.
    """
    if masks is None:
        return None
    ids, mask = read_observation(observation)
    lengths = mask[:, prompt_width:].sum(-1)
    columns = (ids.cpu().numpy(), mask.cpu().numpy(), prompt_width, lengths.cpu().numpy())
    return torch.from_numpy(masks.by_text(Written(*columns))).to(ids.device)


class LMQNetwork(QNetwork):
    """DQN's network: the trunk is the features extractor, the residual linear in what it says.

    Args:
        values: how values start and explore.
        **sb3: arguments of SB3's network; its features extractor is an `LMFeatures`.
    """

    features_extractor: LMFeatures

    def __init__(self, *, values: TokenValues, **sb3: Any) -> None:
        super().__init__(**(sb3 | {"net_arch": []}))
        self._values = values
        self.q_net = nn.Sequential(_Levels(self.features_dim, int(self.action_space.n)))

    def forward(self, obs: PyTorchObs) -> Tensor:
        """Value of every token, shape (batch, vocab)."""
        assert isinstance(obs, dict)
        hidden = self.extract_features(obs, self.features_extractor)
        prior = self._values.prior(self.features_extractor.lm, hidden, obs)
        return _finite(prior, prior + self.q_net(hidden))

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> Tensor:
        values = self(observation)
        return values.argmax(-1) if deterministic else self._values.explore(values)


class LMQuantileNetwork(QuantileNetwork):
    """QR-DQN's network: values as in `LMQNetwork`, and around them quantiles that start as one.

    SB3 has a weight for every token and quantile, 30 GB of them for GPT-2. Here quantile i of token
    a lies off the token's value by u_i(s) + w_i(s) . e_a, e_a being `RANK` numbers per token.

    Args:
        values: how values start and explore.
        **sb3: arguments of SB3's network; its features extractor is an `LMFeatures`.
    """

    features_extractor: LMFeatures

    def __init__(self, *, values: TokenValues, **sb3: Any) -> None:
        with torch.device("meta"):  # SB3's weights, which are never made
            super().__init__(**(sb3 | {"net_arch": []}))
        self._values = values
        self.quantile_net = nn.Sequential(
            _Quantiles(self.features_dim, self.n_quantiles, int(self.action_space.n))
        )

    def forward(self, obs: PyTorchObs) -> Tensor:
        """Quantiles of every token's return, shape (batch, quantiles, vocab)."""
        assert isinstance(obs, dict)
        hidden = self.extract_features(obs, self.features_extractor)
        prior = self._values.prior(self.features_extractor.lm, hidden, obs).unsqueeze(1)
        return _finite(prior, prior + self.quantile_net(hidden))

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> Tensor:
        values = self(observation).mean(1)
        return values.argmax(-1) if deterministic else self._values.explore(values)


class _Levels(nn.Module):
    """What is added to the language model's values, v(s) + a(s, token); 0 at the start.

    What all tokens have in common is in every token's reach already, but then each would learn it
    from its own tries alone, and one that was never tried would keep the value it began with.

    Args:
        hidden_size: numbers it reads.
        vocab_size: tokens.

    Source: Wang et al. (2016), "Dueling Network Architectures", equation 7.
    """

    def __init__(self, hidden_size: int, vocab_size: int) -> None:
        super().__init__()
        self.state = nn.Linear(hidden_size, 1)
        self.token = nn.Linear(hidden_size, vocab_size)
        _set_to_zero(self)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape (batch, hidden) to (batch, vocab)."""
        moved: Tensor = self.state(hidden) + self.token(hidden)
        return moved


class _Quantiles(nn.Module):
    """What is added to the language model's values; 0 at the start.

    Args:
        hidden_size: numbers it reads.
        quantiles: per token.
        vocab_size: tokens.
    """

    def __init__(self, hidden_size: int, quantiles: int, vocab_size: int) -> None:
        super().__init__()
        self._shape = (quantiles, RANK)
        self.mean = nn.Linear(hidden_size, vocab_size)
        self.offset = nn.Linear(hidden_size, quantiles)
        self.spread = nn.Linear(hidden_size, quantiles * RANK)
        _set_to_zero(self)
        # The other factor of a product must not be 0 too: nothing would ever be learned.
        self.tokens = nn.Parameter(torch.empty(RANK, vocab_size))
        generator = torch.Generator().manual_seed(0)
        nn.init.normal_(self.tokens, std=RANK**-0.5, generator=generator)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape (batch, hidden) to (batch, quantiles, vocab)."""
        spread = self.spread(hidden).unflatten(-1, self._shape) @ self.tokens
        moved: Tensor = self.mean(hidden).unsqueeze(1) + self.offset(hidden).unsqueeze(-1) + spread
        return moved


def _finite(prior: Tensor, values: Tensor) -> Tensor:
    """Values with `ILLEGAL` where the prior is minus infinity; no gradient goes there."""
    return values.masked_fill(prior == -torch.inf, ILLEGAL)


def _set_to_zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
