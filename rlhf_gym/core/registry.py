"""Names for things that live elsewhere, imported only when asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from rlhf_gym.core.errors import InvalidArgument


@dataclass(frozen=True)
class Entry:
    """One line of a registry.

    Attributes:
        target: where the object is, `"module:attribute"`.
        summary: one line for `rlhf-gym list` and `--help`.
    """

    target: str
    summary: str

    def load(self) -> Any:
        """Import the module and return the object."""
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


class Registry(Mapping[str, Entry]):
    """Entries by name; looking one up imports nothing.

    Args:
        kind: what the entries are, for messages: "agent", "command".
        entries: name -> (target, summary).
    """

    def __init__(self, kind: str, entries: Mapping[str, tuple[str, str]]) -> None:
        self.kind = kind
        self._entries = {name: Entry(*entry) for name, entry in entries.items()}

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, name: str) -> Any:
        """The object behind a name.

        Raises:
            InvalidArgument: no such name; the message lists the names and the nearest one.
        """
        if name not in self._entries:
            near = get_close_matches(name, self._entries, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise InvalidArgument(
                self.kind, name, f"no such {self.kind}", f"{hint}Choose one of {', '.join(self)}"
            )
        return self._entries[name].load()


def load_object(path: str, field: str) -> Any:
    """Import what the user named as `module:attribute`, from the working folder too.

    Args:
        path: for example `"my_rewards:politeness"`.
        field: the flag it was given to, for messages.

    Raises:
        InvalidArgument: not of that form, no such module or no such attribute.
    """
    module, colon, attribute = path.partition(":")
    if not (module and colon and attribute):
        raise InvalidArgument(
            field, path, "not of the form module:attribute", "Write for example my_rewards:score"
        )
    # `python -m` looks there by itself, the installed `rlhf-gym` only where it is installed.
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.append(here)
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidArgument(
            field, path, str(error), "Check the spelling, and that the module can be imported"
        ) from error
