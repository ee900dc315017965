"""SQLite as the client's memory: opened so that what is committed survives the process and the machine.

Belongs here: how such a file is opened, and the lock that lets one process at a time do a job. Does not belong here:
what is kept (outbox.py, inbox.py).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakSet

from ionbeam_client.errors import IonbeamError


class _File:
    """An SQLite file that this process has open, in a folder that is there."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path.resolve()
        if self.path in _inherited:
            raise IonbeamError(
                f"this process was forked while a client had {path.parent} open, so it cannot know who holds the locks "
                "there; fork before a client is opened (multiprocessing: 'spawn' or 'forkserver'), or give this one a "
                "state_path of its own"
            )
        _open.add(self)


class Database(_File):
    """One SQLite file, used from several threads and processes."""

    def __init__(self, path: Path, schema: str) -> None:
        super().__init__(path)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.executescript(schema)
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Everything in the block happens, or nothing. It survives the process, and when `durable` also a power cut.
        Raises IonbeamError where the disk is full.

        What only spares a repetition need not be durable: waiting for the disk would cost more than the repetition.
        """
        with self._lock:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:  # SQLite has ended it itself where the disk is full
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                    raise IonbeamError(f"the disk of {self.path} is full; make room, nothing of it is lost") from error
                raise

    def read(self, query: str, values: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        with self._lock:
            self._connection.close()
        _open.discard(self)


class ProcessLock(_File):
    """A lock between processes; the operating system frees it when its holder dies."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)

    def acquire(self) -> bool:
        """Take the lock if it is free; True when it is ours."""
        if self._connection.in_transaction:
            return True
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                return False
            raise
        return True

    def close(self) -> None:
        self._connection.close()
        _open.discard(self)


_open: WeakSet[_File] = WeakSet()
_inherited: set[Path] = set()
"""What was open when this process was forked: SQLite's notes of it hold locks that are another process's."""


def _forked() -> None:
    _inherited.update(file.path for file in _open)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)
