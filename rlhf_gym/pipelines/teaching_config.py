"""How an agent is taught where the task is to act (`control`). Light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from rlhf_gym.agents.preference_config import PreferenceConfig
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.pipelines.control_settings import SETTINGS, TaskSettings, settings_for

NO_KWARGS: Mapping[str, Any] = MappingProxyType({})

ImitationMethod = Literal["cloning", "adversarial", "features"]


@dataclass(frozen=True)
class TeachingConfig:
    """How an agent for control is taught."""

    labels: int = 700
    """Comparisons in all, with --reward preferences."""
    teacher: str = "oracle"
    """Who compares: oracle, mistake, stochastic, skip, myopic or equal, on the gold reward."""
    demonstrations: Path | None = None
    """File of an expert's episodes, with --reward demonstrations."""
    method: ImitationMethod = "adversarial"
    """How they teach: cloning, adversarial or features."""
    preferences: PreferenceConfig = field(default_factory=PreferenceConfig)
    """Settings of learning from comparisons; --labels sets preferences.schedule.total."""
    task_settings: bool = True
    """Where settings were found for a task (`control_settings`), use them: for the agent as far as
    agent_kwargs says nothing else, and in place of preferences.schedule, .learner, .rounds,
    .explore, .detours and .detour_length where these are as they are by default."""
    evaluation_episodes: int = 100
    """Episodes, of the deterministic policy, in which the trained agent is judged."""

    def __post_init__(self) -> None:
        for name in ("labels", "evaluation_episodes"):
            if getattr(self, name) < 1:
                raise InvalidArgument(name, getattr(self, name), "not a count", "Give 1 or more")

    def for_task(self, env_id: str, env_kwargs: Mapping[str, Any] = NO_KWARGS) -> PreferenceConfig:
        """The settings of learning from comparisons, the task's own and `labels` in them."""
        given, plain = self.preferences, PreferenceConfig()
        own: dict[str, Any] = {}
        task = self._found(env_id, env_kwargs)
        if task is not None:
            found = task.preferences()
            own = {
                name: getattr(found, name)
                for name in SETTINGS
                if getattr(given, name) == getattr(plain, name)
            }
        config = replace(given, **own)
        return replace(config, schedule=replace(config.schedule, total=self.labels))

    def for_agent(
        self, env_id: str, agent: str, env_kwargs: Mapping[str, Any] = NO_KWARGS
    ) -> dict[str, Any]:
        """The task's own settings of an agent, the same whatever pays it; none without any."""
        task = self._found(env_id, env_kwargs)
        return {} if task is None else dict(task.agents.get(agent, {}))

    def _found(self, env_id: str, env_kwargs: Mapping[str, Any]) -> TaskSettings | None:
        return settings_for(env_id, env_kwargs) if self.task_settings else None
