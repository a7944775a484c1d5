"""`rlhf-gym train --reward demonstrations`: an agent is taught by what an expert did.

rlhf-gym train --env rlhf_gym/Pizza-v0 --agent sb3.ppo --reward demonstrations \\
    --demonstrations expert.npz --method adversarial
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnasium.vector import VectorEnv

from rlhf_gym.agents.imitation import Apprenticeship, Demonstrations, behaviour_cloning
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.supervised.common import write_json
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.pipelines.teaching_config import ImitationMethod as ImitationMethod

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from rlhf_gym.agents.sb3.control import ControlAgent
    from rlhf_gym.pipelines.train import TrainConfig

REWARD = "reward.safetensors"


def by_demonstrations(
    config: TrainConfig, kind: ControlAgent, env: VectorEnv[Any, Any, Any], settings: dict[str, Any]
) -> tuple[BaseAlgorithm, int]:
    """Clone the expert, or let the agent act for a reward that is learned from it.

    The folder gets `imitation.json` with what learning came to, and the learned reward.

    Args:
        config: of the command.
        kind: the agent.
        env: the task.
        settings: arguments of the agent.

    Returns:
        The agent, and 0: nothing was compared.

    Raises:
        InvalidArgument: no file of demonstrations.
        InvalidData: one that is damaged or of another task.
    """
    given = config.teaching.demonstrations
    if given is None:
        raise InvalidArgument(
            "demonstrations",
            given,
            "there is no expert to learn from",
            "Add --demonstrations FILE, see docs/demonstrations.md",
        )
    shown = Demonstrations.load(given)
    folder, method = Path(config.output), config.teaching.method
    if method == "cloning":
        agent = kind.make(GymnasiumVecEnv(env), **settings)
        report = behaviour_cloning(agent, shown, seed=config.seed)
        write_json(folder / "imitation.json", report._asdict())
        return agent, 0
    if method == "adversarial":
        learning = Apprenticeship.adversarial(env, shown, seed=config.seed)
    else:
        learning = Apprenticeship.features(env, shown)
    agent = kind.make(learning.env, **settings)
    metrics = learning.learn(
        agent, config.total_timesteps, progress_bar=config.progress, tb_log_name=config.agent
    )
    learning.source.reward.save(folder / REWARD)
    write_json(folder / "imitation.json", metrics)
    return agent, 0
