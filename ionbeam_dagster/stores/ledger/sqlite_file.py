"""The SQLite file of a ledger, shared by many processes (WAL): connections and transactions.

Belongs here: how the file is opened, used and found to be another one. Does not belong here: what is in it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from ionbeam_dagster.stores.ledger.errors import LedgerError, of_a_newer_version
from ionbeam_dagster.stores.ledger.feed_numbers import feed_begins
from ionbeam_dagster.stores.ledger.lost import Past
from ionbeam_dagster.stores.locks import locked, writers
from ionbeam_dagster.stores.publish import DAMAGED

_LOG = logging.getLogger(__name__)
_TO_WRITE = "BEGIN IMMEDIATE"
_KEPT = ".kept"
_TAKEN = "its -shm was taken from beside it"
_LEAVE = "leave -wal and -shm alone while a process of the platform runs"
_SETTLED = 1
"""Of the file's user_version: what was known of the past is in it. A higher one is the form of a later version."""
_ANEW = "move it away, and it is made again from the stores"
_FEED_BEGINS = (
    "INSERT INTO sqlite_sequence SELECT 'feed', ?1 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'feed')"
)

_INDICES: dict[tuple[int, int], int] = {}
"""The number of the -shm that the connections have, by process and file: SQLite has one of a file in a process."""

Column = tuple[str, str, str]
"""A table, a column that files of earlier versions lack, and its type."""

Prepare = Callable[[sqlite3.Connection], None]
"""Makes the tables of a file that was opened."""


class SqliteFile:
    """The file `path`, safe across threads and processes.

    Connections are kept: closing the last one makes SQLite empty its log, which takes longer than a transaction. A
    commit waits until the disk has it. Transactions raise LedgerError when the file cannot be used.
    """

    def __init__(self, path: Path, prepare: Prepare, past: Past) -> None:
        self.path = path
        self._prepare = prepare
        self._past = past
        self._idle: dict[tuple[int, int], list[sqlite3.Connection]] = {}  # of a process and a file; forks inherit none

    def __del__(self) -> None:
        for (process, _), connections in self._idle.items():
            for connection in connections if process == os.getpid() else []:
                connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._transaction("BEGIN") as db:
            yield db

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction. What only spares a repetition need not be `durable`: it survives its process, and may be
        lost in a power cut, without that anybody waits for the disk."""
        with self._transaction(_TO_WRITE, durable) as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str, durable: bool = True) -> Iterator[sqlite3.Connection]:
        db: sqlite3.Connection | None = None
        try:
            idle = self._kept()
            db = idle.pop() if idle else self._open_with_index()
            if not durable:
                db.execute("PRAGMA synchronous=NORMAL")
            db.execute(begin)
            yield db
            db.execute("COMMIT")
            if not durable:
                db.execute("PRAGMA synchronous=FULL")
            if self._lost_its_index() and begin == _TO_WRITE:
                raise LedgerError(f"{self.path}: {_TAKEN} while it was written; {_LEAVE}, and do it again")
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}; {_what_to_do(error)}") from error
        else:
            idle.append(db)
            db = None
        finally:
            if db is not None:  # with whatever it had begun
                self._close([db])

    def _kept(self) -> list[sqlite3.Connection]:
        """The idle connections of this process to the file that is there now, which has what is known of the past."""
        file = self._number()
        self._past.settle(file, self._begin, self._finish, self._begin)
        idle = self._idle.setdefault((os.getpid(), file), [])
        if idle and self._lost_its_index():
            _LOG.warning("%s: %s; what others wrote since is read anew; %s", self.path, _TAKEN, _LEAVE)
            self._close(idle)
            idle.clear()
        return idle

    # -- the index of the log, which SQLite finds by its name ------------------------------------------------------

    def _lost_its_index(self) -> bool:
        """Whether the -shm that the connections of this process have was taken away: others make a new one, and neither
        sees what the other writes, or writes over it."""
        with suppress(FileNotFoundError):
            known = _INDICES.get((os.getpid(), self.path.stat().st_ino))
            return known is not None and known != self._number_of_index()
        return False

    def _number_of_index(self) -> int:
        try:
            return Path(f"{self.path}-shm").stat().st_ino
        except FileNotFoundError:
            return 0

    def _open_with_index(self) -> sqlite3.Connection:
        """One with the index that is there: where others of this process are at work, SQLite gives it theirs."""
        db = self._open()
        key = os.getpid(), self.path.stat().st_ino
        if self._lost_its_index() and _is_used(_INDICES[key]):
            self._close([db])
            raise LedgerError(f"{self.path}: {_TAKEN}; {_LEAVE}, and do it again")
        _INDICES[key] = self._number_of_index()
        return db

    def _close(self, connections: list[sqlite3.Connection]) -> None:
        """Close connections. By the last one SQLite empties the log as far as these know it, and removes it: where
        their index was taken away, others may have written more, and it is put back, to be read from its beginning."""
        if not self._lost_its_index():
            for db in connections:
                db.close()
            return
        log, kept = Path(f"{self.path}-wal"), Path(f"{self.path}{_KEPT}-wal")
        with locked(self.path.with_suffix(".locks") / "opening"):
            kept.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                os.link(log, kept)
            for db in connections:
                db.close()
            if kept.exists() and not log.exists():
                kept.rename(log)
            kept.unlink(missing_ok=True)

    def _number(self) -> int:
        """By which the file that is there now, which is made where there is none, is told from another one."""
        try:
            try:
                return self.path.stat().st_ino
            except FileNotFoundError:
                self._past.was_lost()  # a new one may have the number of the one before
                self._open().close()
                return self.path.stat().st_ino
        except OSError as error:
            raise self._of_the_folder(error) from error

    def _begin(self) -> bool:
        with self._opened() as db:
            form = db.execute("PRAGMA user_version").fetchone()[0]
            if form > _SETTLED:
                raise of_a_newer_version(str(self.path), form, _SETTLED)
            is_new = bool(form < _SETTLED)
            if is_new:
                db.execute(_FEED_BEGINS, (feed_begins(),))
            return is_new

    def _finish(self) -> None:
        with self._opened() as db:
            db.execute(f"PRAGMA user_version = {_SETTLED}")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        db = self._open()
        try:
            yield db
        finally:
            db.close()

    def _open(self) -> sqlite3.Connection:
        """One process at a time, so that none meets a new file beside the log of the one before, or an old file beside
        the log of a new one: SQLite finds the log by its name."""
        try:
            with locked(self.path.with_suffix(".locks") / "opening"):
                try:
                    self.path.stat()
                except FileNotFoundError:  # and nothing else: the log of a file that is there must stay beside it
                    self._put_log_aside()
                return self._connected()
        except OSError as error:
            raise self._of_the_folder(error) from error

    def _put_log_aside(self) -> None:
        """What a file that is gone left: its last transactions, for whoever moved it away."""
        for end in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{end}").rename(f"{self.path}{DAMAGED}{end}")

    def _connected(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _of_the_folder(self, error: OSError) -> LedgerError:
        return LedgerError(
            f"{self.path}: its folder cannot be used ({error}); correct state_path, or give this user permission"
        )


class OnSqlite:
    """A subject of a ledger in a SQLite file.

    `TABLES` makes its tables, `ADDED` are columns that files of earlier versions lack, `INDICES` need these.
    """

    TABLES: ClassVar[str] = ""
    ADDED: ClassVar[tuple[Column, ...]] = ()
    INDICES: ClassVar[str] = ""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file


def check_free(path: Path, seconds: float) -> None:
    """Raises LedgerError where another process has kept everybody from writing the file for so long; it is named."""
    db = sqlite3.connect(path, timeout=seconds, isolation_level=None)
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute("ROLLBACK")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return  # whoever uses it will tell
        who = ", ".join(writers(path, Path(f"{path}-wal"), Path(f"{path}-shm"))) or "another process"
        raise LedgerError(
            f"{path}: {who} has kept it locked for {seconds:.0f} s; end that process, or wait until it has done"
        ) from error
    finally:
        db.close()


def _is_used(index: int) -> bool:
    """Whether a connection of this process has a -shm that was taken away."""
    try:
        with Path("/proc/self/maps").open() as maps:
            return any(line.endswith("-shm (deleted)\n") and line.split()[4] == str(index) for line in maps)
    except OSError:  # not Linux
        return False


def _what_to_do(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return "the disk is full: make room"
    if primary == sqlite3.SQLITE_CANTOPEN:
        return "make room for another file on its disk, or give this user permission to write it and its folder"
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return "give this user permission to write it and its folder"
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "another process holds it for too long; find and end that process"
    if code == sqlite3.SQLITE_IOERR_WRITE:
        return "make room on its disk, or see with `dmesg` whether the disk fails"
    if primary == sqlite3.SQLITE_IOERR:
        return (
            "its -wal or -shm was taken from beside it, or the disk fails (see `dmesg`): stop all processes of the "
            f"platform and start them again, and where that does not help, {_ANEW}"
        )
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or _is_no_text(error, code):
        return f"it is damaged: {_ANEW}"
    return "nothing was changed; try again"


def _is_no_text(error: sqlite3.Error, code: int | None) -> bool:
    """Whether what SQLite took for a text is none, as in a page that was overwritten: Python finds that out."""
    return code is None and isinstance(error, sqlite3.OperationalError) and "UTF-8" in str(error)
