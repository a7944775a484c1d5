"""Who works on what: a lock that the operating system lets go when its holder dies, however."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Claim a piece of work while the block runs.

    The lock is on the open file, so it is gone with the process that held it, also after a kill -9
    or a power cut. The file itself stays: removing it would let two processes lock two files of one
    name. Its content, the holder's process id, is for people to read.

    Args:
        path: a file in a folder that exists, one for each piece of work.

    Yields:
        Whether the work is ours; False if some other process has it.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            _lock(file)
        except OSError:
            yield False
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield True
        finally:
            file.truncate(0)


def holder(path: Path) -> int | None:
    """The process that holds a claim, as far as one can see from this machine; for display only."""
    try:
        pid = int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return pid if _is_alive(pid) else None


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # there signal 0 would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
