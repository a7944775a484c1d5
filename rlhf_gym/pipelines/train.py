"""`rlhf-gym train`: an agent, an environment, a run folder; tasks of acting are in `control`.

Agents of ours write checkpoints and resume from them exactly. Stock ones train from the beginning:
Stable-Baselines3 saves no environment.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import tyro
from gymnasium.vector import VectorEnv

from rlhf_gym.agents.config import TextAlgorithmConfig
from rlhf_gym.agents.ppo_config import PPOConfig
from rlhf_gym.agents.rebel_config import REBELConfig
from rlhf_gym.agents.registry import AGENTS
from rlhf_gym.agents.rloo_config import RLOOConfig
from rlhf_gym.core.command import Command
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.seeds import check_seed
from rlhf_gym.core.supervised.common import CHECKPOINTS, check_writable, write_json
from rlhf_gym.pipelines.environment import EnvironmentConfig, is_control, make_environment
from rlhf_gym.pipelines.named_values import parse_settings
from rlhf_gym.pipelines.run_folder import CONFIG_FILE, refuse_other_run
from rlhf_gym.pipelines.teaching_config import TeachingConfig

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import Logger

    from rlhf_gym.agents.lm_algorithm import LMAlgorithm
    from rlhf_gym.agents.sb3.stock import StockAgent
    from rlhf_gym.pipelines.control import ControlResult

POLICY_PREFIX = "policy."


@dataclass(frozen=True)
class TrainConfig:
    """Train an agent against a reward."""

    environment: Annotated[EnvironmentConfig, tyro.conf.arg(name="")] = field(
        default_factory=EnvironmentConfig
    )
    agent: str = "ppo"
    """Which algorithm; `rlhf-gym list` shows them."""
    total_timesteps: int = 250_000
    """Response tokens to sample; steps, where the task is to act."""
    agent_kwargs: tuple[str, ...] = ()
    """Settings of the agent by name, `learning_rate=1e-3 n_steps=16`: arguments of a stock
    algorithm, `policy.` before those of its policy, or fields of an agent of ours."""
    output: str = "runs/train/ppo/seed-0"
    """The run folder: configuration, TensorBoard events, checkpoints, policy, summary."""
    policy: str | None = None
    """What the policy begins as: a directory or hub name of a language model; by default the
    reference. KL is to the reference all the same. For agents of ours."""
    seed: int = 0
    """Of sampling, minibatches and prompts."""
    lora: int = 0
    """Rank of LoRA adapters; 0 trains all weights. The reference is the adapter switched off."""
    freeze: str | None = None
    """Freeze the embeddings and so many blocks (a number), or parameters by regular expression."""
    value_model: str | None = None
    """trunk: a head on the policy; separate: a network of its own; or a reward model's folder. By
    default a trunk, where the agent has values."""
    checkpoint_every: int = 10
    """Updates between checkpoints; 0 writes none. Stock agents write none."""
    resume: bool = True
    """Go on from the newest checkpoint in the output folder, if there is one, with the settings it
    was made with; --no-resume deletes it."""
    progress: bool = True
    """Show a progress bar."""
    verbose: int = 0
    """1 prints the log of every update."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """Settings of PPO."""
    rloo: RLOOConfig = field(default_factory=RLOOConfig)
    """Settings of RLOO."""
    rebel: REBELConfig = field(default_factory=REBELConfig)
    """Settings of REBEL."""
    teaching: Annotated[TeachingConfig, tyro.conf.arg(name="")] = field(
        default_factory=TeachingConfig
    )
    """How an agent is taught where the task is to act."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.total_timesteps < 1:
            raise InvalidArgument(
                "total_timesteps", self.total_timesteps, "nothing to learn from", "Give 1 or more"
            )
        if self.checkpoint_every < 0:
            raise InvalidArgument(
                "checkpoint_every", self.checkpoint_every, "no interval", "Give 0 or more"
            )
        parse_settings(self.agent_kwargs)


@dataclass(frozen=True)
class TrainResult:
    """What a training run ended with."""

    output: Path
    """The run folder."""
    policy: Path | None
    """A Hugging Face directory with the trained policy, where that is a language model."""
    timesteps: int
    """Response tokens sampled in all."""
    updates: int
    """Updates made in all."""


@dataclass(frozen=True)
class Attached:
    """What a caller hangs onto a training run besides its configuration."""

    env: VectorEnv[Any, Any, Any] | None = None
    """In place of the one that the configuration describes."""
    callbacks: Sequence[BaseCallback] = ()
    """Besides those that every run has."""
    logger: Logger | None = None
    """In place of SB3's own folder of events below the run's."""

    def attach(self, agent: BaseAlgorithm) -> None:
        """Let the agent write to the logger."""
        if self.logger is not None:
            agent.set_logger(self.logger)


def train(config: TrainConfig, attached: Attached | None = None) -> TrainResult:
    """Train, keep checkpoints, save the policy.

    Args:
        config: what, on what, and where to.
        attached: an environment, callbacks and a logger of the caller's.

    Raises:
        InvalidArgument: no such agent or environment.
        FolderNotWritable: before any work is done.
        InvalidCheckpoint: the folder holds an unfinished run of other settings.
    """
    from rlhf_gym.agents.checkpoint import newest_checkpoint
    from rlhf_gym.agents.lm_algorithm import LMAlgorithm

    folder = Path(config.output)
    check_writable(folder)
    agent = AGENTS.load(config.agent)
    is_ours = isinstance(agent, type) and issubclass(agent, LMAlgorithm)
    attached = attached or Attached()
    if is_ours and config.resume and newest_checkpoint(folder / CHECKPOINTS) is not None:
        refuse_other_run(folder, config)
    # Ours collect whole batches, which are scored in one pass if they end together.
    env = attached.env or make_environment(config.environment, ends="together" if is_ours else None)
    if env.unwrapped.reward is None:  # type: ignore[attr-defined]
        raise InvalidArgument(
            "reward", None, "there is nothing to learn from", "Add --reward DIRECTORY or function"
        )
    if is_ours and not config.resume:
        # They may be of more steps than the new ones, and would be gone on from in their place.
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    write_json(folder / CONFIG_FILE, asdict(config))
    result = (_train_ours if is_ours else _train_stock)(agent, config, env, attached)
    write_json(folder / "summary.json", asdict(result))
    return result


def _train_ours(
    kind: type[LMAlgorithm],
    config: TrainConfig,
    env: VectorEnv[Any, Any, Any],
    attached: Attached,
) -> TrainResult:
    from rlhf_gym.agents.alarm import OveroptimisationAlarm
    from rlhf_gym.agents.checkpoint import CheckpointCallback, newest_checkpoint

    folder = Path(config.output)
    checkpoints = folder / CHECKPOINTS
    newest = newest_checkpoint(checkpoints) if config.resume else None
    if newest is None:
        agent = kind(
            "LMPolicy",
            env,
            cast(TextAlgorithmConfig, getattr(config, config.agent)),
            policy_kwargs=_policy_kwargs(config),
            tensorboard_log=str(folder),
            seed=config.seed,
            verbose=config.verbose,
            **{"device": config.environment.device, **parse_settings(config.agent_kwargs)},
        )
    else:
        agent = kind.resume(
            newest, env, tensorboard_log=str(folder), device=config.environment.device
        )
    attached.attach(agent)
    callbacks: list[BaseCallback] = [OveroptimisationAlarm(), *attached.callbacks]
    if config.checkpoint_every:
        callbacks.append(CheckpointCallback(checkpoints, every=config.checkpoint_every))
    agent.learn(
        config.total_timesteps - (agent.num_timesteps if newest else 0),
        callback=callbacks,
        reset_num_timesteps=newest is None,
        progress_bar=config.progress,
    )
    policy = agent.policy.save_pretrained(folder / "policy", agent.stepper.tokenizer)
    return TrainResult(folder, policy, agent.num_timesteps, agent._n_updates)


def _train_stock(
    stock: StockAgent,
    config: TrainConfig,
    env: VectorEnv[Any, Any, Any],
    attached: Attached,
) -> TrainResult:
    from rlhf_gym.agents.alarm import OveroptimisationAlarm
    from rlhf_gym.agents.callbacks import GammaCallback, TextMetricsCallback
    from rlhf_gym.core.models import save_model
    from rlhf_gym.envs.sb3 import make_sb3_env

    folder = Path(config.output)
    for name in ("policy", "lora", "freeze", "value_model"):
        if getattr(config, name):
            raise InvalidArgument(
                name,
                getattr(config, name),
                f"{config.agent} is a stock agent",
                "Leave it out, or choose an agent of ours: ppo, rloo or rebel",
            )
    settings = {"device": config.environment.device, **parse_settings(config.agent_kwargs)}
    choices = {
        name.removeprefix(POLICY_PREFIX): settings.pop(name)
        for name in list(settings)
        if name.startswith(POLICY_PREFIX)
    }
    try:
        agent = stock.make(
            make_sb3_env(env, gamma=settings.get("gamma", 1.0)),
            policy_choices=choices,
            tensorboard_log=str(folder),
            seed=config.seed,
            verbose=config.verbose,
            **settings,
        )
    except TypeError as error:
        raise InvalidArgument(
            "agent_kwargs", config.agent_kwargs, str(error), f"See {stock.algorithm}"
        ) from error
    attached.attach(agent)
    agent.learn(
        config.total_timesteps,
        callback=[
            GammaCallback(),
            TextMetricsCallback(update_kl=True),
            OveroptimisationAlarm(),
            *attached.callbacks,
        ],
        log_interval=stock.log_interval,
        tb_log_name=config.agent,
        progress_bar=config.progress,
    )
    agent.save(folder / "agent")
    model = stock.language_model(agent)
    policy = None
    if model is not None:
        policy = save_model(model, env.unwrapped.tokenizer, folder / "policy")  # type: ignore[attr-defined]
    return TrainResult(folder, policy, agent.num_timesteps, agent._n_updates)


def _policy_kwargs(config: TrainConfig) -> dict[str, Any]:
    kwargs: dict[str, Any] = {}
    if config.policy is not None:
        kwargs["model"] = config.policy
    if config.value_model is not None:
        kwargs["value_model"] = config.value_model
    if config.lora:
        kwargs["lora_rank"] = config.lora
    if config.freeze is not None:
        kwargs["freeze"] = int(config.freeze) if config.freeze.isdigit() else config.freeze
    return kwargs


def train_either(config: TrainConfig) -> TrainResult | ControlResult:
    """`train` where the task is to write, `train_control` where it is to act."""
    if config.environment.model is None and is_control(config.environment.env):
        from rlhf_gym.pipelines.control import train_control

        return train_control(config)
    return train(config)


COMMAND = Command(TrainConfig, train_either)
