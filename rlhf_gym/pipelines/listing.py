"""`rlhf-gym list`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from rlhf_gym.agents.registry import AGENTS, CONTROL_AGENTS
from rlhf_gym.core.command import Command
from rlhf_gym.core.registry import Entry
from rlhf_gym.envs.registration import CONTROL_ENVIRONMENTS, TEXT_ENVIRONMENTS
from rlhf_gym.pipelines.studies import STUDIES
from rlhf_gym.rewards.registry import CONTROL_REWARDS, REWARDS
from rlhf_gym.rewards.schemes import CONTROL_PRESETS, PRESETS, Preset

Entries = Mapping[str, Entry] | Mapping[str, Preset]


@dataclass(frozen=True)
class ListConfig:
    """Show environments, agents, rewards, reward schemes and studies."""


def show(config: ListConfig) -> None:
    """Print the tables; nothing heavy is imported."""
    del config
    console = Console()
    tables: Mapping[str, Entries] = {
        "tasks of writing": TEXT_ENVIRONMENTS,
        "tasks of acting": CONTROL_ENVIRONMENTS,
        "agents for writing": AGENTS,
        "agents for acting": CONTROL_AGENTS,
        "rewards for writing": REWARDS,
        "rewards for acting": CONTROL_REWARDS,
        "reward schemes for writing": PRESETS,
        "reward schemes for acting": CONTROL_PRESETS,
        "studies": STUDIES,
    }
    for title, entries in tables.items():
        console.print(_table(title, entries))
        console.print()


def _table(title: str, entries: Entries) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for name, entry in entries.items():
        table.add_row(f"[bold]{name}[/bold]", entry.summary)
    return table


COMMAND = Command(ListConfig, show)
