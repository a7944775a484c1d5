"""The `rlhf-gym` command: one subcommand a stage, each a dataclass that tyro turns into flags.

Only the module of the chosen subcommand is imported, and that imports torch and what else the work
needs when it runs: `rlhf-gym train --help` and a mistyped flag are answered at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from rlhf_gym.core.command import Command
from rlhf_gym.core.errors import RLHFGymError
from rlhf_gym.core.registry import Registry

COMMANDS = Registry(
    "command",
    {
        "demo": ("rlhf_gym.pipelines.demo:COMMAND", "the whole of RLHF on the embedded task"),
        "pretrain": ("rlhf_gym.pipelines.stages:PRETRAIN", "train a language model on a corpus"),
        "sft": ("rlhf_gym.pipelines.stages:SFT", "fine-tune on demonstrations or instructions"),
        "collect": ("rlhf_gym.pipelines.collect:COMMAND", "sample completions and label them"),
        "feedback": ("rlhf_gym.pipelines.feedback:COMMAND", "labels into a store and out of it"),
        "label": ("rlhf_gym.pipelines.labelling.command:COMMAND", "a page for people to label on"),
        "reward-model": ("rlhf_gym.pipelines.stages:REWARD_MODEL", "learn a reward from feedback"),
        "rlhf": ("rlhf_gym.pipelines.rlhf:COMMAND", "sample, ask, learn, improve, and again"),
        "train": ("rlhf_gym.pipelines.train:COMMAND", "train an agent against a reward"),
        "evaluate": ("rlhf_gym.pipelines.evaluate:COMMAND", "judge a policy beside its reference"),
        "compare": (
            "rlhf_gym.pipelines.experiments.compare:COMMAND",
            "train with several reward schemes and seeds",
        ),
        "report": (
            "rlhf_gym.pipelines.experiments.report:COMMAND",
            "which schemes differ, with tables and pictures",
        ),
        "study": ("rlhf_gym.pipelines.studies:COMMAND", "reproduce a published figure"),
        "bench": ("rlhf_gym.pipelines.bench:COMMAND", "measure speed as ratios in one run"),
        "build-assets": (
            "rlhf_gym.pipelines.build_assets:COMMAND",
            "make the embedded models anew",
        ),
        "list": ("rlhf_gym.pipelines.listing:COMMAND", "show agents, environments and rewards"),
    },
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; mistakes end with their message and status 2, Ctrl-C with 130."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help"):
        _print_help()
        return
    if argv[0] == "--version":
        from rlhf_gym import __version__

        sys.stdout.write(f"rlhf-gym {__version__}\n")
        return
    try:
        _run(argv[0], argv[1:])
    except RLHFGymError as error:
        _print_error(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; what was saved stays saved\n")
        sys.exit(130)


def _run(name: str, argv: list[str]) -> None:
    command: Command = COMMANDS.load(name)
    import tyro

    result = command.run(tyro.cli(command.config, prog=f"rlhf-gym {name}", args=argv))
    if is_dataclass(result):
        _print_result(name, result)


def _print_result(name: str, result: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from rlhf_gym.core.calibration import Estimate

    table = Table(title=f"rlhf-gym {name}", show_header=False)
    for field in fields(result):
        value = getattr(result, field.name)
        if isinstance(value, Estimate):
            value = str(value)
        if isinstance(value, tuple):
            value = " to ".join(f"{part:.4g}" for part in value)
        if isinstance(value, float):
            value = f"{value:.4g}"
        if isinstance(value, (int, str)) or hasattr(value, "__fspath__"):
            table.add_row(field.name.replace("_", " "), str(value))
    Console().print(table)


def _print_help() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print("[bold]rlhf-gym[/bold]: RLHF as an ordinary reinforcement-learning problem\n")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, entry in COMMANDS.items():
        table.add_row(f"[bold]{name}[/bold]", entry.summary)
    console.print(table)
    console.print("\nEach has its own help: [bold]rlhf-gym train --help[/bold]")


def _print_error(error: RLHFGymError) -> None:
    from rich.console import Console
    from rich.markup import escape

    kind = type(error).__name__
    Console(stderr=True).print(f"[bold red]{kind}[/bold red] {escape(str(error))}", soft_wrap=True)
