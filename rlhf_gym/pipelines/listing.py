"""`rlhf-gym list`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gymnasium as gym
from rich.console import Console
from rich.table import Table

from rlhf_gym.agents.registry import AGENTS
from rlhf_gym.core.command import Command
from rlhf_gym.core.registry import Entry
from rlhf_gym.rewards.registry import REWARDS
from rlhf_gym.rewards.schemes import PRESETS, Preset


@dataclass(frozen=True)
class ListConfig:
    """Show agents, environments, rewards and reward schemes."""


def show(config: ListConfig) -> None:
    """Print four tables; nothing heavy is imported."""
    del config
    console = Console()
    environments = Table(title="environments", title_justify="left", show_header=False, box=None)
    for env_id, spec in sorted(gym.registry.items()):
        if env_id.startswith("rlhf_gym/"):
            threshold = spec.reward_threshold
            solved = "" if threshold is None else f"solved at a return of {threshold}"
            environments.add_row(f"[bold]{env_id}[/bold]", solved)
    console.print(environments)
    for registry in (AGENTS, REWARDS):
        console.print()
        console.print(_table(f"{registry.kind}s", registry))
    console.print()
    console.print(_table("reward schemes", PRESETS))


def _table(title: str, entries: Mapping[str, Entry] | Mapping[str, Preset]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for name, entry in entries.items():
        table.add_row(f"[bold]{name}[/bold]", entry.summary)
    return table


COMMAND = Command(ListConfig, show)
