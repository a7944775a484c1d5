"""Language models as the policies of stock value-based algorithms: DQN and QR-DQN.

```python
env = make_sb3_env("rlhf_gym/Exact-v0", num_envs=16, kl_mode="soft")
DQN(LMQPolicy, env, **lm_q_kwargs(env)).learn(50_000)
```

What KL means here: these policies are argmax, so they have no log pi to write down, and a penalty
in the sampled form stays 0 (`info["kl_known"]` is False, one warning says so). The soft form,
reward + coef * log pi_ref, is exact for them: the KL of a policy that is certain of its token is
-log pi_ref of that token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from gymnasium import spaces
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.dqn.policies import DQNPolicy

from rlhf_gym.agents.sb3.features import LMFeatures
from rlhf_gym.agents.sb3.policy_kwargs import lm_policy_kwargs
from rlhf_gym.agents.sb3.q_networks import (
    Epsilon,
    LMQNetwork,
    LMQuantileNetwork,
    TokenValues,
    check_masks,
)
from rlhf_gym.agents.sb3.replay_buffer import TextReplayBuffer
from rlhf_gym.agents.sb3.starting_model import StartingModel
from rlhf_gym.agents.sb3.text_actor import check_spaces, without_text
from rlhf_gym.core.decoding import Backend
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs.text.masking import ActionMasks

MOST_TRANSITIONS = 1_000_000
"""SB3's default; short texts would fit in by the billion."""

SUPPORT = 0.02
"""Tokens below a fiftieth of the most probable one's probability are out of the question."""

if TYPE_CHECKING:
    # One of SB3's value-based policies stands behind it in every class that uses it.
    _Policy = BasePolicy
else:
    _Policy = object


class TextValues(_Policy):
    """Puts a language model where SB3's value-based policies have networks of their own.

    Args:
        observation_space: of a text environment, a Dict of ids and mask.
        action_space: the vocabulary.
        lr_schedule: SB3's learning rate.
        model: what to start from: a directory, a hub name, or `StartingModel`.
        rules: which tokens are legal, and the temperature.
        prompt_width: column at which responses begin.
        q_scale: reward per nat, see `TokenValues`.
        epsilon: how many tokens exploration draws uniformly; none by default.
        masks: the environment's action masks, if it has any.
        support: which tokens are out of the question, see `TokenValues`; none by default.
        freeze_lm: learn what is added to the language model's values, and leave itself alone.
        backend: how tokens are decoded, see `rlhf_gym.core.decoding.make_decoder`.
        **sb3: further arguments of SB3's policy, such as `optimizer_kwargs` or `n_quantiles`.

    Raises:
        InvalidArgument: spaces of something else than a text environment, a scale that is not
            above 0, masks of the reference, a support that moves.
        TokenizerMismatch: another vocabulary.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        model: StartingModel | str | None = None,
        rules: TokenRules | None = None,
        prompt_width: int = 0,
        q_scale: float = 1.0,
        epsilon: Epsilon | None = None,
        masks: ActionMasks | None = None,
        support: float = 0.0,
        freeze_lm: bool = False,
        backend: Backend = "auto",
        **sb3: Any,
    ) -> None:
        if model is None or rules is None:
            raise without_text(type(self), "**lm_q_kwargs(env)")
        check_spaces(observation_space, action_space, rules, prompt_width)
        if support and not freeze_lm:
            raise InvalidArgument(
                "support",
                support,
                "a language model that is trained on values forgets what is probable, and with it "
                "tokens that were written go out of the question",
                "Give freeze_lm=True too, or leave support out",
            )
        # SB3 has seeded torch with the algorithm's seed a moment ago; there is no other way to it.
        seed = torch.initial_seed()
        self._values = TokenValues(q_scale, epsilon or Epsilon(), masks, support, seed)
        self._lm = {
            "model": model,
            "rules": rules,
            "prompt_width": prompt_width,
            "backend": backend,
        }
        self._masks = masks
        self._freeze_lm = freeze_lm
        self._sb3 = sb3
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            features_extractor_class=LMFeatures,
            features_extractor_kwargs=self._lm,
            **sb3,
        )

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """A language model of its own for the network or its target."""
        return super().make_features_extractor().requires_grad_(not self._freeze_lm)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        """What `policy.save` stores to make the policy again before its weights are loaded."""
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            **self._lm,
            "q_scale": self._values.scale,
            "epsilon": self._values.epsilon,
            "masks": self._masks,
            "support": self._values.support,
            "freeze_lm": self._freeze_lm,
            **self._sb3,
        }


class LMQPolicy(TextValues, DQNPolicy):
    """For DQN; arguments as `TextValues`."""

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        # In training mode it keeps no cache, whose check for changed weights SB3 goes around: it
        # moves the target through `.data`, which counts no versions. There is no dropout.
        self.q_net_target.set_training_mode(True)

    def make_q_net(self) -> LMQNetwork:
        """The network, or the target network, with a language model of its own."""
        arguments = self._update_features_extractor(self.net_args)
        return LMQNetwork(values=self._values, **arguments).to(self.device)


class LMQuantilePolicy(TextValues, QRDQNPolicy):
    """For QR-DQN; arguments as `TextValues`."""

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        self.quantile_net_target.set_training_mode(True)  # as in LMQPolicy

    def make_quantile_net(self) -> LMQuantileNetwork:
        """The network, or the target network, with a language model of its own."""
        arguments = self._update_features_extractor(self.net_args)
        return LMQuantileNetwork(values=self._values, **arguments).to(self.device)


def lm_q_kwargs(
    env: VecEnv | gym.Env[Any, Any],
    *,
    buffer_bytes: int = 2**28,
    n_steps: int | None = None,
    q_scale: float | None = None,
    gamma: float = 1.0,
    policy_kwargs: dict[str, Any] | None = None,
    **choices: Any,
) -> dict[str, Any]:
    """Arguments of DQN or QR-DQN for language models.

    Exploration is the policy's own: SB3's epsilon and its random first steps draw from the whole
    vocabulary, PAD and illegal tokens included, so both are off. The policy is trained after every
    step of the environments, and the target follows it slowly.

    A greedy policy writes whatever its values are most wrong about. So a token is worth what the
    whole response earned, and not what the value of a neighbour was believed to be; the language
    model is frozen, and says which tokens are in question at all.

    Args:
        env: what the algorithm will train on.
        buffer_bytes: most memory of the replay buffer; a million transitions of 1,000 tokens take
            SB3's own 18 GB.
        n_steps: transitions whose rewards are summed, see `TextReplayBuffer`; by default the whole
            response's.
        q_scale: reward per nat; by default the environment's KL coefficient, or 1 without one.
        gamma: discount.
        policy_kwargs: further arguments of the policy, see `TextValues` and `lm_policy_kwargs`;
            `support=0, freeze_lm=False` trains the language model itself.
        **choices: other values of the algorithm's arguments.

    Raises:
        InvalidArgument: no text environment, no model to start from, masks of the reference, or a
            budget too small for anything.
    """
    choices_of_policy = {"freeze_lm": True, "support": SUPPORT, **(policy_kwargs or {})}
    policy = with_masks(lm_policy_kwargs(env, **choices_of_policy), env)
    if q_scale is None:
        q_scale = _attribute(env, "kl_coef") or 1.0
    rules: TokenRules = policy["rules"]
    if not isinstance(env.observation_space, spaces.Dict):
        raise InvalidArgument(
            "env",
            env.observation_space,
            "the replay buffer keeps ids and mask",
            'Make the environment with observation="dict"',
        )
    if n_steps is None:
        n_steps = int(_attribute(env, "max_response_tokens"))
    room = TextReplayBuffer.transitions_in(buffer_bytes, env.observation_space, rules)
    return {
        "policy_kwargs": policy | {"q_scale": float(q_scale)},
        "replay_buffer_class": TextReplayBuffer,
        "replay_buffer_kwargs": {"rules": rules, "n_steps": n_steps, "gamma": gamma},
        "buffer_size": min(room, MOST_TRANSITIONS),
        "exploration_initial_eps": 0.0,
        "exploration_final_eps": 0.0,
        "learning_starts": 0,
        "gamma": gamma,
        "train_freq": 1,
        "tau": 0.005,
        # Once per step of all rows.
        "target_update_interval": env.num_envs if isinstance(env, VecEnv) else 1,
        **choices,
    }


def with_masks(policy_kwargs: dict[str, Any], env: VecEnv | gym.Env[Any, Any]) -> dict[str, Any]:
    """`lm_policy_kwargs` for policies that write nothing to the channel and compute masks anew.

    SB3 gives value-based policies observations alone, and of those it replays not even a state of
    the environment, so masks are computed from the ids.

    Raises:
        InvalidArgument: masks of the reference, which ids do not tell.
    """
    changed = {key: value for key, value in policy_kwargs.items() if key != "channel"}
    if not changed.pop("uses_action_masks"):
        return changed
    masks: ActionMasks = _attribute(env, "masks")
    check_masks(masks)
    return changed | {"masks": masks}


def _attribute(env: VecEnv | gym.Env[Any, Any], name: str) -> Any:
    return env.get_attr(name)[0] if isinstance(env, VecEnv) else env.get_wrapper_attr(name)
