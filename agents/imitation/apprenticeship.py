"""Any Stable-Baselines3 agent, on a reward that is learned from demonstrations while it acts.

Act, compare what was done with what the expert did, pay old experience anew, act on: the loop of
`PreferenceLearning` with an expert's steps in the place of answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from rlhf_gym.agents.imitation.demonstrations import Demonstrations
from rlhf_gym.agents.imitation.discriminator import Discriminator, DiscriminatorConfig
from rlhf_gym.agents.imitation.feature_encoding import FeatureEncoding, Steps
from rlhf_gym.agents.imitation.features import FeatureConfig, FeatureMatching
from rlhf_gym.agents.sb3.relabelling import relabel
from rlhf_gym.agents.teaching import ReturnsCallback, check_taught, unmonitored
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.preferences.reward_net import RewardEnsemble
from rlhf_gym.core.preferences.segments import SegmentReplay
from rlhf_gym.envs.taught import TaughtVecEnv
from rlhf_gym.rewards.learned import LearnedReward


class ImitationReward(Protocol):
    """A reward that follows the difference between expert and agent.

    Attributes:
        reward: what is paid.
    """

    @property
    def reward(self) -> RewardEnsemble: ...  # noqa: D102

    def update(self, recent: Steps) -> dict[str, float]:
        """Learn from what the agent has done of late; numbers for the log."""


@dataclass(frozen=True)
class ApprenticeshipConfig:
    """How an agent is taught by demonstrations."""

    every: int = 2048
    """Steps of the agent, of all environments together, between updates of the reward; an on-policy
    agent's rollouts are not cut."""
    memory: int = 4096
    """Of its latest steps it is judged by so many."""
    automated_weight: float = 0.0
    """Weight of the task's own reward beside the learned one, whose deviation is 1 a step."""

    def __post_init__(self) -> None:
        for name in ("every", "memory"):
            if getattr(self, name) < 1:
                raise InvalidArgument(name, getattr(self, name), "not a count", "Give 1 or more")


class Apprenticeship:
    """The loop around an agent.

    ```
    learning = Apprenticeship.adversarial(env, Demonstrations.load("expert.npz"))
    agent = PPO("MlpPolicy", learning.env)
    learning.learn(agent, 200_000)
    ```

    Off-policy agents take `replay_buffer_class=PreferenceReplayBuffer`. The agent may have been
    cloned from the same demonstrations before.

    Args:
        env: the task; a `VecMonitor` around it is replaced by one that sees what is paid.
        source: the reward and how it learns, made for the spaces of `env`.
        config: how.

    Attributes:
        env: for the agent.
        taught: the part of it that pays and remembers.
        source: the reward and how it learns.
        metrics: what the last update came to.
    """

    def __init__(
        self,
        env: VecEnv | VectorEnv[Any, Any, Any],
        source: ImitationReward,
        config: ApprenticeshipConfig | None = None,
    ) -> None:
        self.config = config or ApprenticeshipConfig()
        self.source = source
        self.metrics: dict[str, float] = {}
        venv = unmonitored(env)
        encoding = source.reward.encoding
        self.replay = SegmentReplay(encoding, venv.num_envs, max(self.config.memory, venv.num_envs))
        rule = LearnedReward(source.reward, automated_weight=self.config.automated_weight)
        self.taught = TaughtVecEnv(venv, rule, replay=self.replay)
        self.env = VecMonitor(self.taught)

    @classmethod
    def adversarial(
        cls,
        env: VecEnv | VectorEnv[Any, Any, Any],
        demonstrations: Demonstrations,
        config: ApprenticeshipConfig | None = None,
        discriminator: DiscriminatorConfig | None = None,
        *,
        seed: int = 0,
    ) -> Apprenticeship:
        """With the log-odds of a discriminator (GAIL) as the reward.

        Raises:
            InvalidData: demonstrations of other spaces.
        """
        encoding = _encoding_of(env)
        expert = demonstrations.encoded(encoding)
        return cls(env, Discriminator(encoding, expert, discriminator, seed=seed), config)

    @classmethod
    def features(
        cls,
        env: VecEnv | VectorEnv[Any, Any, Any],
        demonstrations: Demonstrations,
        config: ApprenticeshipConfig | None = None,
        matching: FeatureConfig | None = None,
        *,
        encoding: FeatureEncoding | None = None,
    ) -> Apprenticeship:
        """With a linear reward under which the expert's mean features are met.

        Args:
            env: the task.
            demonstrations: of it.
            config: how.
            matching: how the weights move.
            encoding: names the features; by default every number and its square.

        Raises:
            InvalidData: demonstrations of other spaces.
            InvalidArgument: images.
        """
        named = encoding or FeatureEncoding(_encoding_of(env))
        expert = demonstrations.encoded(named)
        return cls(env, FeatureMatching(named, expert, matching), config)

    def learn(
        self,
        agent: BaseAlgorithm,
        total_timesteps: int,
        *,
        callback: BaseCallback | None = None,
        **kwargs: Any,
    ) -> dict[str, float]:
        """Train the agent, and the reward between its rollouts.

        Args:
            agent: on `env`, or on wrappers of it.
            total_timesteps: of the agent.
            callback: of the user.
            **kwargs: for the agent's own `learn`, such as `progress_bar`.

        Returns:
            What the last update of the reward came to.

        Raises:
            InvalidArgument: an agent on another environment, or a replay buffer that cannot be
                relabelled.
        """
        check_taught(agent, self.taught, self.source.reward)
        following: list[BaseCallback] = [_Following(self)]
        agent.learn(
            total_timesteps,
            callback=following if callback is None else [*following, callback],
            **kwargs,
        )
        return self.metrics

    def update(self, agent: BaseAlgorithm) -> None:
        """Let the reward learn from what the agent has done of late."""
        self.metrics = self.source.update(self.replay.recent(self.config.memory))
        if isinstance(agent, OffPolicyAlgorithm):
            relabel(agent, self.source.reward)


class _Following(ReturnsCallback):
    """Lets the reward learn when enough was done, and logs what came of it."""

    def __init__(self, learning: Apprenticeship) -> None:
        super().__init__(learning.taught)
        self.learning = learning
        self._updated_at = 0

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        if self.model.num_timesteps - self._updated_at >= self.learning.config.every:
            self._updated_at = self.model.num_timesteps
            self.learning.update(self.model)
            for name, value in self.learning.metrics.items():
                self.logger.record(f"imitation/{name}", value)


def _encoding_of(env: VecEnv | VectorEnv[Any, Any, Any]) -> Encoding:
    if isinstance(env, VectorEnv):
        return Encoding(env.single_observation_space, env.single_action_space)
    return Encoding(env.observation_space, env.action_space)
