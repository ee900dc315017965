"""How far each target is, what it refused, and what is wrong with it: in SQLite beside the log.

Belongs here: everything the sending process remembers, committed in one piece with what it wrote into files. Does not
belong here: when something is done (sender.py).
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ionbeam_client.influx.errors import LogError
from ionbeam_client.influx.log import Position, free_name

_logger = logging.getLogger("ionbeam_client.influx")
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS targets (
    name TEXT PRIMARY KEY, segment INTEGER, offset INTEGER, delivered INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0, error TEXT, failing_since REAL, last_success REAL
);
CREATE TABLE IF NOT EXISTS refusals (
    target TEXT, segment INTEGER, offset INTEGER, reason TEXT, PRIMARY KEY (target, segment, offset)
);
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, inode INTEGER, length INTEGER);
"""
_LEFT: list[sqlite3.Connection] = []
"""Of the parent, which a child must neither use nor close; and of a file that is not at its place any more: to close it
would remove the journal of the one that is there now."""

_IN_SQLITE = threading.RLock()
"""Held by whoever is in SQLite, and by a fork: SQLite has locks of its own, which a child would find taken for ever."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_IN_SQLITE.acquire, after_in_parent=_IN_SQLITE.release, after_in_child=_IN_SQLITE.release
    )


class DamagedError(LogError):
    """The file of cursors was damaged; what was to be done with it can be tried again."""


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time, so that none puts aside what another has just begun anew."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


class TargetState(NamedTuple):
    """What is known of one target; times in s since 1970."""

    name: str
    position: Position | None = None
    delivered: int = 0
    refused: int = 0
    error: str | None = None
    failing_since: float | None = None
    last_success: float | None = None


class Refusal(NamedTuple):
    """A row that a target refused: the line of the log, where it ends there, and why."""

    line: bytes
    position: Position
    reason: str


class State:
    """The memory of a log's targets. Every change is durable when its method returns; closed, it can be read still.

    A file that turns out to be damaged is put aside, one that somebody removed or replaced is left, and the memory
    begins anew: `begun_anew` counts how often. Whoever remembers a position has to look at it again then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = _IN_SQLITE
        self.begun_anew = 0
        self._connection: sqlite3.Connection | None = None
        with self._lock:
            self._connection = self._connect()
        self._process = os.getpid()
        self._closed = False

    def _connect(self, damage: sqlite3.Error | None = None) -> sqlite3.Connection:
        """Raises LogError where it cannot be kept; a damaged file is put aside, and told."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self._path.with_name(f"{self._path.name}.lock")):
            try:
                if damage is None or self._is_another():
                    return self._open()
            except sqlite3.Error as error:
                if not _is_damage(error):
                    raise LogError(f"{self._path}: how far each server is cannot be noted: {error}") from error
                damage = error
            _logger.error(
                "%s was damaged (%s), and is kept as %s; what is in the log's segments is sent again from their "
                "beginning, which changes nothing on a server",
                self._path,
                damage,
                self._put_aside().name,
            )
            self.begun_anew += 1
            return self._open()

    def _put_aside(self) -> Path:
        aside = self._path.with_name(f"{self._path.name}.damaged")
        if aside.exists():
            aside = free_name(aside, 1)
        for end in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                self._path.with_name(f"{self._path.name}{end}").rename(aside.with_name(f"{aside.name}{end}"))
        return aside

    def _open(self) -> sqlite3.Connection:
        connection = self._new()
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 32")  # its own 1,000 pages are more than a full disk has
            connection.executescript(_SCHEMA)
            if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                damage = sqlite3.DatabaseError(" ".join(str(found).split()))
                damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damage
        except BaseException:
            connection.close()
            raise
        self._inode = self._path.stat().st_ino
        return connection

    def _new(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60, isolation_level=None, check_same_thread=False)

    def _is_another(self) -> bool:
        """Whether the file at its place is not the one that is open here, or there is none."""
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def _own(self) -> sqlite3.Connection:
        before = self._connection
        if self._process != os.getpid():
            self._process = os.getpid()
            self._connection = None
        elif before is not None and self._is_another():
            _logger.warning("%s was removed or replaced by somebody else; it begins anew", self._path)
            self.begun_anew += 1
            self._connection = None
        if self._connection is None:
            _LEFT.extend([before] if before else [])
            self._connection = self._connect()
        return self._connection

    @contextmanager
    def _in_sqlite(self) -> Iterator[sqlite3.Connection]:
        """The connection, in one thread at a time.

        Raises:
            DamagedError: the file is damaged; nothing was done, and the memory has begun anew.
        """
        with self._lock:
            connection = self._own()
            try:
                yield connection
            except sqlite3.Error as error:
                if not _is_damage(error):
                    raise
                self._connection = None
                connection.close()
                self._connection = self._connect(error)
                raise DamagedError(f"{self._path}: was damaged ({error}), and has begun anew") from error

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """Everything in the block, or nothing."""
        with self._in_sqlite() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite has ended it itself where the disk is full
                    connection.execute("ROLLBACK")
                raise

    def _read(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        if self._closed:  # somebody looks at how it ended, or how far another process is
            return self._looked(query, values)
        with suppress(DamagedError), self._in_sqlite() as connection:
            return connection.execute(query, values).fetchall()
        with self._in_sqlite() as connection:
            return connection.execute(query, values).fetchall()

    def _looked(self, query: str, values: tuple[object, ...]) -> list[tuple[object, ...]]:
        try:
            with self._lock, closing(sqlite3.connect(f"{self._path.as_uri()}?mode=ro", timeout=60, uri=True)) as look:
                return look.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LogError(f"{self._path}: how it stands cannot be read any more: {error}") from None

    def target(self, name: str) -> TargetState:
        found = self._read(
            "SELECT segment, offset, delivered, refused, error, failing_since, last_success FROM targets "
            "WHERE name = ?",
            (name,),
        )
        if not found:
            return TargetState(name)
        segment, offset, *rest = found[0]
        position = None if segment is None else Position(segment, offset)  # type: ignore[arg-type]
        return TargetState(name, position, *rest)  # type: ignore[arg-type]

    def advance(
        self,
        connection: sqlite3.Connection,
        target: str,
        position: Position,
        delivered: int,
        refusals: list[Refusal],
        now: float,
    ) -> None:
        """Move a target on, inside of change()."""
        connection.execute("INSERT OR IGNORE INTO targets (name) VALUES (?)", (target,))
        connection.execute(
            "UPDATE targets SET segment = ?, offset = ?, delivered = delivered + ?, refused = refused + ?, "
            "error = NULL, failing_since = NULL, last_success = ? WHERE name = ?",
            (position.segment, position.offset, delivered, len(refusals), now, target),
        )
        connection.executemany(
            "INSERT OR REPLACE INTO refusals VALUES (?, ?, ?, ?)",
            [(target, refusal.position.segment, refusal.position.offset, refusal.reason) for refusal in refusals],
        )

    def failing(self, target: str, error: str, now: float) -> None:
        with self.change() as connection:
            connection.execute("INSERT OR IGNORE INTO targets (name) VALUES (?)", (target,))
            connection.execute(
                "UPDATE targets SET error = ?, failing_since = coalesce(failing_since, ?) WHERE name = ?",
                (error, now, target),
            )

    def refusals(self, target: str, after: Position, until: Position) -> list[str]:
        """The reasons for rows that end after the one position and not after the other."""
        found = self._read(
            "SELECT reason FROM refusals WHERE target = ? AND (segment, offset) > (?, ?) "
            "AND (segment, offset) <= (?, ?) ORDER BY segment, offset",
            (target, *after, *until),
        )
        return [str(row[0]) for row in found]

    def forget(self, target: str) -> None:
        """A target that is finished with."""
        with self.change() as connection:
            connection.execute("DELETE FROM targets WHERE name = ?", (target,))

    def forget_before(self, segment: int) -> None:
        with self.change() as connection:
            connection.execute("DELETE FROM refusals WHERE segment < ?", (segment,))

    def file(self, path: Path) -> tuple[int, int] | None:
        """The inode of a file that is written beside the cursors, and how long it was when they were last moved."""
        found = self._read("SELECT inode, length FROM files WHERE path = ?", (str(path),))
        return found[0] if found else None  # type: ignore[return-value]

    def wrote(self, connection: sqlite3.Connection, path: Path, inode: int, length: int) -> None:
        """Remember a file's length, inside of change()."""
        connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (str(path), inode, length))

    def close(self) -> None:
        self._closed = True
        if self._process == os.getpid() and self._connection is not None:
            with self._lock:
                self._connection.close()
