"""A language model as the policy of sb3-contrib's Augmented Random Search.

```python
env = make_sb3_env("rlhf_gym/Exact-v0", num_envs=16, kl_mode="soft")
ARS(LMARSPolicy, env, **lm_ars_kwargs(env)).learn(50_000)
```

Random search tries directions in the space of all parameters, so there must be few of them. Here
they are a small map on the language model's last hidden state, which is 0 at the start and leaves
the model as it is. What KL means is as in `q_policies`: the policy is argmax, the soft form exact.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from sb3_contrib.ars.policies import ARSPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from rlhf_gym.agents.sb3.features import LMFeatures
from rlhf_gym.agents.sb3.policy_kwargs import lm_policy_kwargs
from rlhf_gym.agents.sb3.q_networks import allowed_tokens, check_masks
from rlhf_gym.agents.sb3.q_policies import with_masks
from rlhf_gym.agents.sb3.starting_model import StartingModel
from rlhf_gym.agents.sb3.text_actor import check_spaces, without_text
from rlhf_gym.core.decoding import Backend
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs.text.masking import ActionMasks


class Steering(nn.Module):
    """A small change of a hidden state.

        hidden + size * sqrt(hidden size / rank) * U (W [V hidden; 1])

    U and V are fixed orthonormal directions drawn from a generator, W is learned and 0 at the
    start. Two learned factors would not do: random search moves W and -W alike, and of a product
    both signs give the same.

    Args:
        hidden_size: numbers of a hidden state.
        rank: directions.
        size: length of the change, relative to a hidden state's, when W has entries around 1.
        seed: of the directions.
    """

    def __init__(self, hidden_size: int, rank: int, size: float, seed: int) -> None:
        super().__init__()
        rank = min(rank, hidden_size)
        generator = torch.Generator().manual_seed(seed)
        draws = torch.randn(2, hidden_size, rank, generator=generator)
        into, out_of = torch.linalg.qr(draws).Q
        self.register_buffer("into", into)
        self.register_buffer("out_of", out_of * size * (hidden_size / rank) ** 0.5)
        self.learned = nn.Linear(rank, rank)
        for parameter in self.learned.parameters():
            nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape (batch, hidden), both ways."""
        assert isinstance(self.into, Tensor)
        assert isinstance(self.out_of, Tensor)
        changed: Tensor = hidden + self.learned(hidden @ self.into) @ self.out_of.T
        return changed


class LMARSPolicy(ARSPolicy):
    """Emits the greedy legal token of a language model whose last hidden state is steered.

    The language model is frozen; `parameters()` are those of the steering alone.

    Args:
        observation_space: of a text environment, a Dict of ids and mask.
        action_space: the vocabulary.
        model: what to start from: a directory, a hub name, or `StartingModel`.
        rules: which tokens are legal.
        prompt_width: column at which responses begin.
        rank: directions of the steering; rank * (rank + 1) parameters are learned.
        size: how far they move the hidden state, see `Steering`.
        masks: the environment's action masks, if it has any; not those of the reference.
        backend: how tokens are decoded, see `rlhf_gym.core.decoding.make_decoder`.

    Raises:
        InvalidArgument: spaces of something else than a text environment, masks of the reference.
        TokenizerMismatch: another vocabulary.
    """

    features_extractor: LMFeatures

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        model: StartingModel | str | None = None,
        rules: TokenRules | None = None,
        prompt_width: int = 0,
        rank: int = 8,
        size: float = 1.0,
        masks: ActionMasks | None = None,
        backend: Backend = "auto",
    ) -> None:
        if model is None or rules is None:
            raise without_text(type(self), "**lm_ars_kwargs(env)")
        check_spaces(observation_space, action_space, rules, prompt_width)
        check_masks(masks)
        lm = {"model": model, "rules": rules, "prompt_width": prompt_width, "backend": backend}
        # Past SB3's constructor, which builds a network of its own on a flattened observation.
        super(ARSPolicy, self).__init__(
            observation_space,
            action_space,
            features_extractor_class=LMFeatures,
            features_extractor_kwargs=lm,
        )
        self._arguments = {**lm, "rank": rank, "size": size, "masks": masks}
        self._masks = masks
        trunk = self.make_features_extractor()
        assert isinstance(trunk, LMFeatures)
        self.features_extractor = trunk.requires_grad_(False)
        self.steering = Steering(trunk.features_dim, rank, size, seed=0)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """What is learned; ARS moves all that this gives."""
        return self.steering.parameters(recurse)

    def forward(self, obs: PyTorchObs) -> Tensor:
        """The greedy token of each row, shape (batch,)."""
        assert isinstance(obs, dict)
        lm = self.features_extractor.lm
        hidden = self.steering(self.extract_features(obs, self.features_extractor))
        return lm.legal_logits(hidden, allowed_tokens(self._masks, lm.prompt_width, obs)).argmax(-1)

    def __deepcopy__(self, memo: dict[int, Any]) -> LMARSPolicy:
        # ARS copies its policy in every iteration; the language model never changes.
        memo[id(self.features_extractor)] = self.features_extractor
        shared = self.__class__.__new__(self.__class__)
        memo[id(self)] = shared
        for name, value in vars(self).items():
            vars(shared)[name] = copy.deepcopy(value, memo)
        return shared

    def _get_constructor_parameters(self) -> dict[str, Any]:
        spaces_ = {"observation_space": self.observation_space, "action_space": self.action_space}
        return spaces_ | self._arguments


def lm_ars_kwargs(
    env: VecEnv | gym.Env[Any, Any], *, policy_kwargs: dict[str, Any] | None = None, **choices: Any
) -> dict[str, Any]:
    """Arguments of ARS for language models.

    Args:
        env: what the algorithm will train on.
        policy_kwargs: further arguments of `LMARSPolicy`.
        **choices: other values of the algorithm's arguments.

    Raises:
        InvalidArgument: no text environment, no model to start from, masks of the reference.
    """
    policy = with_masks(lm_policy_kwargs(env, **(policy_kwargs or {})), env)
    for name in ("optimizer_class", "optimizer_kwargs"):  # there are no gradients
        del policy[name]
    episodes = env.num_envs if isinstance(env, VecEnv) else 1
    return {
        "policy_kwargs": policy,
        "n_eval_episodes": episodes,
        "delta_std": 0.3,
        "learning_rate": 0.3,
        **choices,
    }
