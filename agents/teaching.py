"""What every loop needs that teaches an agent while it acts: the environment, a check, a log."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor

from rlhf_gym.agents.sb3.relabelling import check_relabelling
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences.reward_net import RewardEnsemble
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.taught import TaughtVecEnv


def unmonitored(env: VecEnv | VectorEnv[Any, Any, Any]) -> VecEnv:
    """An environment as SB3 takes it, without the `VecMonitor` that would see the old reward."""
    venv = env if isinstance(env, VecEnv) else GymnasiumVecEnv(env)
    return venv.venv if isinstance(venv, VecMonitor) else venv


def check_taught(agent: BaseAlgorithm, taught: TaughtVecEnv, ensemble: RewardEnsemble) -> None:
    """Refuse an agent whom the learned reward would not reach, before it learns.

    Args:
        agent: on `taught`, or on wrappers of it.
        taught: what pays.
        ensemble: the learned reward.

    Raises:
        InvalidArgument: an agent on another environment, or a replay buffer that cannot be
            relabelled.
    """
    env: VecEnv | None = agent.get_env()
    while isinstance(env, VecEnvWrapper) and env is not taught:
        env = env.venv
    if env is not taught:
        raise InvalidArgument(
            "agent", agent, "it acts in another environment", "Make it with learning.env"
        )
    if isinstance(agent, OffPolicyAlgorithm):
        check_relabelling(agent, ensemble)


class ReturnsCallback(BaseCallback):
    """Logs the means of finished episodes: `reward/gold`, `reward/automated` and so on.

    Args:
        taught: the environment that counts them; they are taken out of it.
    """

    def __init__(self, taught: TaughtVecEnv) -> None:
        super().__init__()
        self.taught = taught

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        while self.taught.episodes:
            for name, value in self.taught.episodes.popleft()._asdict().items():
                tag = "rollout/episode_length" if name == "length" else f"reward/{name}"
                self.logger.record_mean(tag, value)
