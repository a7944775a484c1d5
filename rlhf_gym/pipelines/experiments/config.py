"""What `rlhf-gym compare` is told, and what of it may not change in an experiment's life."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.seeds import check_seed
from rlhf_gym.core.supervised.common import to_json
from rlhf_gym.pipelines.environment import EnvironmentConfig, is_control
from rlhf_gym.pipelines.named_values import parse_settings
from rlhf_gym.pipelines.teaching_config import TeachingConfig
from rlhf_gym.rewards.schemes import CONTROL_PRESETS, PRESETS, Scheme, parse_schemes


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare reward schemes: train each with several seeds, judge all of them alike."""

    schemes: str
    """Which, separated by commas: names that `rlhf-gym list` shows for the kind of task, or
    expressions with a name, such as short=score-length(0.05) or hurried=gold-time(0.1)."""
    environment: Annotated[EnvironmentConfig, tyro.conf.arg(name="")] = field(
        default_factory=EnvironmentConfig
    )
    agent: str = "ppo"
    """Which algorithm; `rlhf-gym list` shows them."""
    seeds: int = 5
    """Independent repetitions of each scheme."""
    first_seed: int = 0
    """Their seeds are this one and those behind it."""
    budget: int = 50_000
    """Response tokens that each run samples; steps, where the task is to act."""
    agent_kwargs: tuple[str, ...] = ()
    """Settings of the agent by name, as of `rlhf-gym train`: learning_rate=1e-3 n_steps=16."""
    jobs: int = 1
    """Runs at the same time, each in a process of its own."""
    output: str | None = None
    """Folder of the experiment; by default runs/compare- with environment and agent."""
    episodes: int = 512
    """Episodes by which each trained agent is judged, to the same prompts."""
    checkpoint_every: int = 10
    """Updates between checkpoints, for agents of ours; stock ones begin their run anew."""
    teaching: Annotated[TeachingConfig, tyro.conf.arg(name="")] = field(
        default_factory=TeachingConfig
    )
    """How an agent is taught where the task is to act."""

    def __post_init__(self) -> None:
        for name in ("seeds", "budget", "jobs", "episodes", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InvalidArgument(name, getattr(self, name), "not a count", "Give 1 or more")
        check_seed(self.first_seed, "first_seed")
        parse_settings(self.agent_kwargs)
        self.parsed_schemes()

    @property
    def is_control(self) -> bool:
        """Whether the task is one of acting."""
        return self.environment.model is None and is_control(self.environment.env)

    @property
    def folder(self) -> Path:
        """Where the experiment lives."""
        if self.output is not None:
            return Path(self.output)
        task = self.environment.model or self.environment.env
        return Path("runs") / f"compare-{Path(task).name.lower()}-{self.agent}"

    def parsed_schemes(self) -> tuple[Scheme, ...]:
        """The schemes.

        Raises:
            InvalidArgument: what is none, or one that is called as a folder of the experiment's.
        """
        schemes = parse_schemes(self.schemes, CONTROL_PRESETS if self.is_control else PRESETS)
        if any(scheme.name == BOARD for scheme in schemes):
            raise InvalidArgument("schemes", BOARD, "the name is taken", "Choose another one")
        return schemes

    def settings(self) -> dict[str, Any]:
        """All that results depend on but scheme and seed, as JSON holds it."""
        environment = asdict(self.environment)
        settings = {
            "agent": self.agent,
            "budget": self.budget,
            "episodes": self.episodes,
            "agent_kwargs": sorted(self.agent_kwargs),
            **{f"environment.{name}": value for name, value in environment.items()},
        }
        if self.is_control:
            # What suits a task may change from one version to the next: as it is, not its name.
            env_id, kwargs = self.environment.env, self.environment.parsed_env_kwargs()
            found = self.teaching.for_agent(env_id, self.agent, kwargs)
            settings["teaching"] = asdict(self.teaching)
            settings["teaching.for_task"] = asdict(self.teaching.for_task(env_id, kwargs))
            settings["teaching.for_agent"] = {name: repr(value) for name, value in found.items()}
        return dict(to_json(settings))


BOARD = "board"
"""The folder of an experiment that TensorBoard is to be shown."""
