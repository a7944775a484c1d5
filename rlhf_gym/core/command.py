"""What the command line knows of a stage: its flags and what to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        config: frozen dataclass whose fields, with the string under each, are the flags.
        run: does the work; a dataclass that it returns is printed as a table.
    """

    config: type
    run: Callable[[Any], Any]
