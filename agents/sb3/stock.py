"""Stock algorithms by name, each with the policy and the settings that suit text.

Nothing is changed in an algorithm: this is a table of what one would write by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from transformers import PreTrainedModel

from rlhf_gym.agents.sb3.ars import lm_ars_kwargs
from rlhf_gym.agents.sb3.features import LMFeatures
from rlhf_gym.agents.sb3.mask_buffer import PackedMaskBuffer
from rlhf_gym.agents.sb3.policy_kwargs import lm_policy_kwargs
from rlhf_gym.agents.sb3.q_policies import lm_q_kwargs

Settings = dict[str, Any]

CREDIT: Settings = {"gamma": 1.0, "gae_lambda": 0.95}
"""A response earns at its end: a discount would pay its first tokens less for the same."""


@dataclass(frozen=True)
class StockAgent:
    """A stock algorithm, ready for text.

    Attributes:
        algorithm: the class, `"module:Class"`.
        policy: the policy's class, `"module:Class"`.
        settings: what the algorithm is given for an environment besides its policy, by the
            caller's own choices.
        features: where the policy keeps its language model, an attribute path from the policy; None
            for policies that are more than a language model.
        is_greedy: whether it acts by its best token and has no distribution.
        log_interval: rollouts (of value-based agents: episodes) between two log entries.
    """

    algorithm: str
    policy: str
    settings: Callable[..., Settings]
    features: str | None = "features_extractor"
    is_greedy: bool = False
    log_interval: int = 1

    def make(
        self,
        env: VecEnv,
        *,
        policy_choices: Mapping[str, Any] | None = None,
        learning_rate: float | None = None,
        **settings: Any,
    ) -> BaseAlgorithm:
        """The algorithm on an environment.

        Args:
            env: from `make_sb3_env`.
            policy_choices: arguments of the policy, see `lm_policy_kwargs`.
            learning_rate: at the start; it falls linearly to 0. By default the agent's own.
            **settings: arguments of the algorithm, before the agent's own; for value-based agents
                and ARS also those of `lm_q_kwargs` and `lm_ars_kwargs`.
        """
        chosen = self.settings(env, **settings)
        chosen["policy_kwargs"] = {**chosen["policy_kwargs"], **(policy_choices or {})}
        rate = chosen["learning_rate"] if learning_rate is None else learning_rate
        chosen["learning_rate"] = LinearSchedule(rate, 0.0, 1.0)
        return cast(BaseAlgorithm, _load(self.algorithm)(_load(self.policy), env, **chosen))

    def language_model(self, agent: BaseAlgorithm) -> PreTrainedModel | None:
        """The language model that the policy is; None if the policy is more than that."""
        if self.features is None:
            return None
        found: Any = agent.policy
        for name in self.features.split("."):
            found = getattr(found, name)
        assert isinstance(found, LMFeatures)
        return found.lm.model


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _budget(env: VecEnv) -> int:
    """Tokens of a response: a rollout of as many steps holds about one response per row."""
    return int(env.get_attr("max_response_tokens")[0])


def _ppo(env: VecEnv, **choices: Any) -> Settings:
    tokens = _budget(env) * env.num_envs
    return {
        **CREDIT,
        "learning_rate": 3e-4,
        "n_steps": _budget(env),
        "batch_size": max(2, tokens // 4),
        "n_epochs": 4,
        "ent_coef": 0.0,
        "vf_coef": 0.1,
        "max_grad_norm": 1.0,
        "policy_kwargs": lm_policy_kwargs(env),
        **choices,
    }


def _maskable_ppo(env: VecEnv, **choices: Any) -> Settings:
    return {**_ppo(env), "rollout_buffer_class": PackedMaskBuffer, **choices}


def _a2c(env: VecEnv, **choices: Any) -> Settings:
    return {
        **CREDIT,
        "learning_rate": 3e-4,
        "n_steps": _budget(env),
        "ent_coef": 0.0,
        # One step per rollout and nothing that bounds it: scaled to deviation 1, advantages that
        # are nearly nothing would move the policy as far as those that tell much.
        "normalize_advantage": False,
        "vf_coef": 0.5,
        "policy_kwargs": lm_policy_kwargs(env),
        **choices,
    }


def _trpo(env: VecEnv, **choices: Any) -> Settings:
    tokens = _budget(env) * env.num_envs
    return {
        **CREDIT,
        "learning_rate": 1e-3,  # of the value net alone; the policy moves by `target_kl`
        "n_steps": _budget(env),
        "batch_size": max(2, tokens // 2),
        "n_critic_updates": 4,
        "target_kl": 0.02,
        "policy_kwargs": lm_policy_kwargs(env),
        **choices,
    }


_POLICIES = "rlhf_gym.agents.sb3"
PPO = StockAgent("stable_baselines3:PPO", f"{_POLICIES}:LMActorCriticPolicy", _ppo)
A2C = StockAgent("stable_baselines3:A2C", f"{_POLICIES}:LMActorCriticPolicy", _a2c)
TRPO = StockAgent("sb3_contrib:TRPO", f"{_POLICIES}:LMActorCriticPolicy", _trpo)
MASKABLE_PPO = StockAgent(
    "sb3_contrib:MaskablePPO", f"{_POLICIES}:LMMaskableActorCriticPolicy", _maskable_ppo
)
RECURRENT_PPO = StockAgent(
    "sb3_contrib:RecurrentPPO", f"{_POLICIES}:LMRecurrentActorCriticPolicy", _ppo, features=None
)


def _q_learning(env: VecEnv, **choices: Any) -> Settings:
    # A gradient step sees as many transitions as eight steps of all rows bring.
    ours = {"learning_rate": 1e-3, "batch_size": max(32, 8 * env.num_envs)}
    return lm_q_kwargs(env, **{**ours, **choices})


DQN = StockAgent(
    "stable_baselines3:DQN",
    f"{_POLICIES}.q_policies:LMQPolicy",
    _q_learning,
    features=None,
    is_greedy=True,
    log_interval=16,
)
QRDQN = StockAgent(
    "sb3_contrib:QRDQN",
    f"{_POLICIES}.q_policies:LMQuantilePolicy",
    _q_learning,
    features=None,
    is_greedy=True,
    log_interval=16,
)
ARS = StockAgent(
    "sb3_contrib:ARS",
    f"{_POLICIES}.ars:LMARSPolicy",
    lm_ars_kwargs,
    features=None,
    is_greedy=True,
)
