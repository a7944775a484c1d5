"""`rlhf-gym train` where the task is to act: by comparisons, demonstrations, the judge, a measure.

rlhf-gym train --env rlhf_gym/Pizza-v0 --agent sb3.ppo --reward preferences --labels 700
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.error import Error as GymnasiumError
from gymnasium.vector import VectorEnv

from rlhf_gym.agents.sb3.control import CONTROL_AGENTS, ControlAgent
from rlhf_gym.core.calibration import Estimate, mean_interval
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.supervised.common import check_writable, write_json
from rlhf_gym.envs.sb3 import GymnasiumVecEnv, make_vector
from rlhf_gym.envs.taught import TaughtVecEnv
from rlhf_gym.pipelines.control_learning import SchemeTraining, is_begun
from rlhf_gym.pipelines.environment import is_control as is_control
from rlhf_gym.pipelines.environment import no_such_task, unknown_env_kwargs
from rlhf_gym.pipelines.imitation import by_demonstrations
from rlhf_gym.pipelines.named_values import parse_settings
from rlhf_gym.pipelines.run_folder import ANOTHER_OUTPUT, CONFIG_FILE, refuse_other_run
from rlhf_gym.pipelines.teaching_config import TeachingConfig as TeachingConfig
from rlhf_gym.rewards.control_schemes import control_scheme
from rlhf_gym.rewards.learned import AutomatedReward
from rlhf_gym.rewards.schemes import CONTROL_PRESETS
from rlhf_gym.rewards.step_sums import StepSum

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from rlhf_gym.pipelines.train import Attached, TrainConfig

EVALUATION_SEED = 10_000_000
"""Added to a run's seed, so that no episode of training is met again."""


@dataclass(frozen=True)
class ControlResult:
    """What a training run ended with."""

    output: Path
    """The run folder."""
    timesteps: int
    """Steps taken by the agent in all."""
    labels: int
    """Comparisons asked for."""
    gold_return: Estimate
    """Mean of the judge's return over fresh episodes, and its 95 % interval."""
    automated_return: Estimate
    """The same of the task's own reward."""


def make_control_environment(env_id: str, num_envs: int, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """Environments side by side, as SB3 needs them: native if the task has that.

    Args:
        env_id: a registered id.
        num_envs: how many.
        **kwargs: of the environment.

    Raises:
        InvalidArgument: no such task, or not with these arguments.
    """
    import rlhf_gym  # noqa: F401  registers the tasks

    try:
        return make_vector(env_id, num_envs, **kwargs)
    except TypeError as error:
        raise unknown_env_kwargs(kwargs, error) from error
    except GymnasiumError as error:
        raise no_such_task(env_id, error) from error


def agent_settings(config: TrainConfig) -> dict[str, Any]:
    """Arguments of the agent: the task's own, then those of the command."""
    task = config.environment
    found = config.teaching.for_agent(task.env, config.agent, task.parsed_env_kwargs())
    given = parse_settings(config.agent_kwargs)
    return found | given | {"seed": config.seed, "verbose": config.verbose}


def train_control(config: TrainConfig, attached: Attached | None = None) -> ControlResult:
    """Train, save the agent and the reward, judge the agent in fresh episodes.

    Args:
        config: of `rlhf-gym train`.
        attached: callbacks and a logger of the caller's.

    Raises:
        InvalidArgument: a setting for text, no such agent, reward or teacher.
        FolderNotWritable: before any work is done.
        InvalidCheckpoint: answers about another task, of another teacher or to other settings are
            in the folder.
    """
    from rlhf_gym.pipelines.train import Attached

    scheme = _scheme_of(config)
    kind: ControlAgent = CONTROL_AGENTS.load(config.agent)
    folder = Path(config.output)
    check_writable(folder)
    if scheme is not None and scheme.reads_learned and is_begun(folder):
        refuse_other_run(folder, config, ANOTHER_OUTPUT)
    task = config.environment
    env = make_control_environment(task.env, task.num_envs, **task.parsed_env_kwargs())
    write_json(folder / CONFIG_FILE, asdict(config))
    settings = agent_settings(config) | {"tensorboard_log": str(folder)}
    if scheme is None:
        agent, labels = by_demonstrations(config, kind, env, settings)
    else:
        training = SchemeTraining(config, kind, env, settings, scheme, attached or Attached())
        agent, labels = training.run()
    agent.save(folder / "agent")
    gold, automated = judge(
        agent,
        make_control_environment(task.env, task.num_envs, **task.parsed_env_kwargs()),
        config.teaching.evaluation_episodes,
        seed=config.seed + EVALUATION_SEED,
        masked=kind.is_masked,
    )
    result = ControlResult(
        folder,
        agent.num_timesteps,
        labels,
        mean_interval(gold),
        mean_interval(automated),
    )
    write_json(folder / "summary.json", asdict(result))
    return result


def judge(
    agent: BaseAlgorithm,
    env: VectorEnv[Any, Any, Any],
    episodes: int,
    *,
    seed: int,
    masked: bool = False,
) -> tuple[list[float], list[float]]:
    """Returns of an agent that acts as well as it can.

    Every row plays the same number of episodes: taking those that end first would favour short
    ones.

    Args:
        agent: acts by `predict`, deterministically.
        env: fresh, in SAME_STEP mode.
        episodes: how many at least; rounded up to a multiple of the rows.
        seed: of the episodes.
        masked: the agent needs action masks.

    Returns:
        Gold and automated returns of the episodes.
    """
    venv = TaughtVecEnv(GymnasiumVecEnv(env), AutomatedReward())
    venv.seed(seed)
    rows = venv.num_envs
    wanted = -(-episodes // rows)
    sums, finished = np.zeros((2, rows)), np.zeros(rows, np.int64)
    returns: list[list[float]] = [[], []]
    observations = venv.reset()
    while (finished < wanted).any():
        masks = {"action_masks": np.stack(venv.env_method("action_masks"))} if masked else {}
        predict: Any = agent.predict
        actions, _ = predict(observations, deterministic=True, **masks)
        observations, _, dones, infos = venv.step(actions)
        for place, name in enumerate(("gold_reward", "automated_reward")):
            sums[place] += [info[name] for info in infos]
            returns[place] += sums[place, dones & (finished < wanted)].tolist()
        sums[:, dones] = 0.0
        finished += dones
    venv.close()
    return returns[0], returns[1]


def _scheme_of(config: TrainConfig) -> StepSum | None:
    """What is paid, None for demonstrations; settings of no use for acting are refused."""
    given = config.environment.reward or "automated"
    for name in ("policy", "lora", "freeze", "value_model"):
        if getattr(config, name):
            raise InvalidArgument(
                name, getattr(config, name), "there is no language model", "Leave it out"
            )
    if given == "demonstrations":
        return None
    preset = CONTROL_PRESETS.get(given)
    try:
        return control_scheme(given if preset is None else preset.expression)
    except InvalidArgument as error:
        raise InvalidArgument(
            "reward",
            given,
            f"no scheme for a task of acting ({error})".replace(".)", ")"),
            f"Choose one of {', '.join(CONTROL_PRESETS)}, demonstrations, or a sum of their terms",
        ) from error
