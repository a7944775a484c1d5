"""`rlhf-gym list`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gymnasium as gym
from rich.console import Console
from rich.table import Table

from rlhf_gym.agents.registry import AGENTS, CONTROL_AGENTS
from rlhf_gym.core.command import Command
from rlhf_gym.core.registry import Entry
from rlhf_gym.rewards.registry import CONTROL_REWARDS, REWARDS
from rlhf_gym.rewards.schemes import CONTROL_PRESETS, PRESETS, Preset

Entries = Mapping[str, Entry] | Mapping[str, Preset]


@dataclass(frozen=True)
class ListConfig:
    """Show agents, environments, rewards and reward schemes."""


def show(config: ListConfig) -> None:
    """Print the tables; nothing heavy is imported."""
    del config
    console = Console()
    environments = Table(title="environments", title_justify="left", show_header=False, box=None)
    for env_id, spec in sorted(gym.registry.items()):
        if env_id.startswith("rlhf_gym/"):
            threshold = spec.reward_threshold
            solved = "" if threshold is None else f"solved at a return of {threshold}"
            environments.add_row(f"[bold]{env_id}[/bold]", solved)
    console.print(environments)
    tables: Mapping[str, Entries] = {
        "agents for writing": AGENTS,
        "agents for acting": CONTROL_AGENTS,
        "rewards for writing": REWARDS,
        "rewards for acting": CONTROL_REWARDS,
        "reward schemes for writing": PRESETS,
        "reward schemes for acting": CONTROL_PRESETS,
    }
    for title, entries in tables.items():
        console.print()
        console.print(_table(title, entries))


def _table(title: str, entries: Entries) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for name, entry in entries.items():
        table.add_row(f"[bold]{name}[/bold]", entry.summary)
    return table


COMMAND = Command(ListConfig, show)
