"""Stock algorithms for control tasks by name, each with the policy that suits the environment.

Nothing is changed in an algorithm, but that PPO's entropy bonus may fall (`entropy`): this is a
table of what one would write by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from gymnasium.spaces import Box, Dict, Discrete
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv

from rlhf_gym.agents.registry import CONTROL_AGENTS as CONTROL_AGENTS  # where it is looked for
from rlhf_gym.agents.sb3.relabelling import PreferenceReplayBuffer
from rlhf_gym.core.errors import InvalidArgument

Settings = dict[str, Any]

ROLLOUT = 2048
"""Transitions of an on-policy rollout, of all environments together."""


@dataclass(frozen=True)
class ControlAgent:
    """A stock algorithm, ready for control.

    Attributes:
        algorithm: the class, `"module:Class"`.
        settings: what the algorithm is given for an environment, besides its policy.
        policy: its policy; None for the one that suits the observations.
        actions: "discrete", "continuous" or "any".
        is_masked: whether `predict` takes action masks.
    """

    algorithm: str
    settings: Callable[[VecEnv], Settings]
    policy: str | None = None
    actions: str = "any"
    is_masked: bool = False

    def load_class(self) -> type[BaseAlgorithm]:
        """The algorithm's class."""
        module, _, name = self.algorithm.partition(":")
        return cast(type[BaseAlgorithm], getattr(import_module(module), name))

    def make(self, env: VecEnv, **settings: Any) -> BaseAlgorithm:
        """The algorithm on an environment.

        Args:
            env: for control.
            **settings: arguments of the algorithm, before the agent's own.

        Raises:
            InvalidArgument: actions that the algorithm cannot take, or arguments it has not.
        """
        kinds = {"discrete": Discrete, "continuous": Box}
        if self.actions in kinds and not isinstance(env.action_space, kinds[self.actions]):
            raise InvalidArgument(
                "agent",
                self.algorithm,
                f"it takes {self.actions} actions, the task has {env.action_space}",
                "Choose another agent; tasks with both kinds take continuous=True or False",
            )
        policy = self.policy or _policy_for(env)
        kind: Any = self.load_class()
        try:
            agent = kind(policy, env, device="cpu", **{**self.settings(env), **settings})
        except TypeError as error:
            raise InvalidArgument(
                "agent_kwargs", settings, str(error), f"See {self.algorithm}"
            ) from error
        return cast(BaseAlgorithm, agent)


def _policy_for(env: VecEnv) -> str:
    if isinstance(env.observation_space, Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if is_image_space(env.observation_space) else "MlpPolicy"


def _on_policy(env: VecEnv) -> Settings:
    steps = max(16, ROLLOUT // env.num_envs)
    return {"n_steps": steps, "batch_size": max(64, steps * env.num_envs // 8)}


def _ppo(env: VecEnv) -> Settings:
    # Taste is learned while the agent acts: it must not have stopped trying things by then.
    return {**_on_policy(env), "n_epochs": 8, "ent_coef": 0.01}


def _a2c(env: VecEnv) -> Settings:
    return {"n_steps": 16, "ent_coef": 0.01, "normalize_advantage": True}


def _off_policy(env: VecEnv) -> Settings:
    # One gradient step for each transition, whatever the number of environments.
    return {
        "buffer_size": 100_000,
        "learning_starts": 1000,
        "train_freq": 1,
        "gradient_steps": -1,
        "replay_buffer_class": PreferenceReplayBuffer,
    }


def _ars(_: VecEnv) -> Settings:
    return {"n_delta": 8, "n_top": 4}


PPO = ControlAgent("rlhf_gym.agents.sb3.entropy:ScheduledPPO", _ppo)
A2C = ControlAgent("stable_baselines3:A2C", _a2c)
DQN = ControlAgent("stable_baselines3:DQN", _off_policy, actions="discrete")
SAC = ControlAgent("stable_baselines3:SAC", _off_policy, actions="continuous")
TD3 = ControlAgent("stable_baselines3:TD3", _off_policy, actions="continuous")
TRPO = ControlAgent("sb3_contrib:TRPO", _on_policy)
TQC = ControlAgent("sb3_contrib:TQC", _off_policy, actions="continuous")
CROSSQ = ControlAgent("sb3_contrib:CrossQ", _off_policy, actions="continuous")
QRDQN = ControlAgent("sb3_contrib:QRDQN", _off_policy, actions="discrete")
ARS = ControlAgent("sb3_contrib:ARS", _ars, policy="LinearPolicy")
MASKABLE_PPO = ControlAgent(
    "rlhf_gym.agents.sb3.entropy:ScheduledMaskablePPO", _ppo, actions="discrete", is_masked=True
)
