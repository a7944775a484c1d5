"""One file, opened so that what was committed survives a kill and a power cut."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_gym.core.errors import InvalidStore, StoreUnavailable
from rlhf_gym.core.store.schema import (
    APPLICATION_ID,
    VERSION,
    application_of,
    migrate,
    version_of,
)

Row = sqlite3.Row


class Connection:
    """SQLite with a write-ahead log, one transaction at a time.

    Readers in other processes are never stopped by a writer, writers wait for each other. With
    `synchronous = full` a commit returns when the log is on the disk.

    Args:
        path: the file; made, folders too, if it is not there.
        timeout: seconds to wait for another writer.

    Raises:
        InvalidStore: another program's file, a damaged one, or one from a newer version of ours.
        StoreUnavailable: it cannot be opened, or another process holds it longer than `timeout`.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.path = path
        self._timeout = timeout
        # Threads of one process share the connection, one after the other.
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unavailable(str(error)) from error
        with self._translated():
            # Autocommit: `begin` and `commit` are said where they are meant.
            self._sqlite = sqlite3.connect(
                path, timeout=timeout, isolation_level=None, check_same_thread=False
            )
            try:
                self._open()
            except BaseException:
                self._sqlite.close()
                raise

    def close(self) -> None:
        """Close the file; the log is folded into it if nobody else has it open."""
        with self._lock:
            self._sqlite.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when the block ends, or has not happened."""
        with self._lock, self._translated():
            self._sqlite.execute("begin immediate")
            try:
                yield self._sqlite
                self._sqlite.execute("commit")
            except BaseException:
                # A full disk may have rolled it back already.
                if self._sqlite.in_transaction:
                    self._sqlite.execute("rollback")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A view of the store that does not change while the block runs."""
        with self._lock, self._translated():
            if self._sqlite.in_transaction:
                yield self._sqlite
                return
            self._sqlite.execute("begin")
            try:
                yield self._sqlite
            finally:
                self._sqlite.execute("rollback")

    def _open(self) -> None:
        sqlite = self._sqlite
        sqlite.row_factory = sqlite3.Row
        version, application = version_of(sqlite), application_of(sqlite)
        tables = sqlite.execute("select count(*) from sqlite_master").fetchone()[0]
        if tables and application != APPLICATION_ID:
            raise InvalidStore(
                "store", str(self.path), "a database, but no feedback store", "Give another file"
            )
        if version > VERSION:
            raise InvalidStore(
                "store",
                str(self.path),
                f"its version is {version}, this program knows up to {VERSION}",
                "Update rlhf_gym",
            )
        sqlite.execute("pragma journal_mode = wal")
        sqlite.execute("pragma synchronous = full")
        sqlite.execute("pragma foreign_keys = on")
        if version < VERSION:
            migrate(sqlite)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's complaints as ours, with the file and a remedy."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except sqlite3.OperationalError as error:
            message = str(error)
            if "locked" in message or "busy" in message:
                raise self._unavailable(
                    f"another process has been writing for {self._timeout:g} s",
                    "Nothing was stored; try again",
                ) from error
            if "full" in message:
                raise self._unavailable(
                    "the disk is full", "What was acknowledged is safe; make room and try again"
                ) from error
            raise self._unavailable(message) from error
        except sqlite3.DatabaseError as error:
            raise InvalidStore(
                "store",
                str(self.path),
                f"not a feedback store, or a damaged one ({error})",
                "Restore a copy, or `sqlite3 FILE .recover` what is left",
            ) from error

    def _unavailable(
        self, problem: str, remedy: str = "Check the path and its permissions"
    ) -> StoreUnavailable:
        return StoreUnavailable("store", str(self.path), problem, remedy)
