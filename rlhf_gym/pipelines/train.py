"""`rlhf-gym train`: an agent, an environment, a run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from rlhf_gym.agents.ppo import PPOConfig
from rlhf_gym.agents.registry import AGENTS
from rlhf_gym.core.command import Command
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.supervised.common import check_writable, write_json
from rlhf_gym.pipelines.environment import EnvironmentConfig, make_environment


@dataclass(frozen=True)
class TrainConfig:
    """Train an agent against a reward."""

    environment: Annotated[EnvironmentConfig, tyro.conf.arg(name="")] = field(
        default_factory=EnvironmentConfig
    )
    agent: str = "ppo"
    """Which algorithm; `rlhf-gym list` shows them."""
    total_timesteps: int = 200_000
    """Response tokens to sample."""
    output: str = "runs/train/ppo/seed-0"
    """The run folder: configuration, TensorBoard events, checkpoints, policy, summary."""
    seed: int = 0
    """Of sampling, minibatches and prompts."""
    lora: int = 0
    """Rank of LoRA adapters; 0 trains all weights. The reference is the adapter switched off."""
    freeze: str | None = None
    """Freeze the embeddings and so many blocks (a number), or parameters by regular expression."""
    value_model: str = "trunk"
    """trunk: a head on the policy; separate: a network of its own; or a reward model's folder."""
    checkpoint_every: int = 10
    """Updates between checkpoints; 0 writes none."""
    resume: bool = True
    """Go on from the newest checkpoint in the output folder, if there is one."""
    progress: bool = True
    """Show a progress bar."""
    verbose: int = 0
    """1 prints the log of every update."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """Settings of PPO."""

    def __post_init__(self) -> None:
        if self.total_timesteps < 1:
            raise InvalidArgument(
                "total_timesteps", self.total_timesteps, "nothing to learn from", "Give 1 or more"
            )
        if self.checkpoint_every < 0:
            raise InvalidArgument(
                "checkpoint_every", self.checkpoint_every, "no interval", "Give 0 or more"
            )


@dataclass(frozen=True)
class TrainResult:
    """What a training run ended with."""

    output: Path
    """The run folder."""
    policy: Path
    """A Hugging Face directory with the trained policy."""
    timesteps: int
    """Response tokens sampled in all."""
    updates: int
    """Updates made in all."""


def train(config: TrainConfig) -> TrainResult:
    """Train, keep checkpoints, save the policy.

    Args:
        config: what, on what, and where to.

    Raises:
        InvalidArgument: no such agent or environment.
        FolderNotWritable: before any work is done.
    """
    from rlhf_gym.agents.checkpoint import CheckpointCallback, newest_checkpoint

    folder = Path(config.output)
    check_writable(folder)
    agent_class = AGENTS.load(config.agent)
    env = make_environment(config.environment)
    if env.unwrapped.reward is None:  # type: ignore[attr-defined]
        raise InvalidArgument(
            "reward", None, "there is nothing to learn from", "Add --reward DIRECTORY or function"
        )
    write_json(folder / "config.json", asdict(config))
    checkpoints = folder / "checkpoints"
    newest = newest_checkpoint(checkpoints) if config.resume else None
    if newest is None:
        agent = agent_class(
            "LMPolicy",
            env,
            config.ppo,
            policy_kwargs=_policy_kwargs(config),
            tensorboard_log=str(folder),
            seed=config.seed,
            verbose=config.verbose,
        )
    else:
        agent = agent_class.resume(newest, env, tensorboard_log=str(folder))
    callbacks = []
    if config.checkpoint_every:
        callbacks.append(CheckpointCallback(checkpoints, every=config.checkpoint_every))
    agent.learn(
        config.total_timesteps - (agent.num_timesteps if newest else 0),
        callback=callbacks,
        reset_num_timesteps=newest is None,
        progress_bar=config.progress,
    )
    policy = agent.policy.save_pretrained(folder / "policy", env.unwrapped.tokenizer)  # type: ignore[attr-defined]
    result = TrainResult(folder, Path(policy), agent.num_timesteps, agent._n_updates)
    write_json(folder / "summary.json", asdict(result))
    return result


def _policy_kwargs(config: TrainConfig) -> dict[str, Any]:
    kwargs: dict[str, Any] = {"value_model": config.value_model}
    if config.lora:
        kwargs["lora_rank"] = config.lora
    if config.freeze is not None:
        kwargs["freeze"] = int(config.freeze) if config.freeze.isdigit() else config.freeze
    return kwargs


COMMAND = Command(TrainConfig, train)
