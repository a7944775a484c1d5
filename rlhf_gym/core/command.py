"""What the command line knows of a stage: its flags and what to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        config: frozen dataclass whose fields, with the string under each, are the flags; a union of
            such makes subcommands.
        run: does the work; a dataclass that it returns is printed as a table.
    """

    config: Any
    run: Callable[[Any], Any]
