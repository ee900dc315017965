"""Dagster's own SQLite databases, with connections that are kept: an event costs a fifth of what it does otherwise.

Dagster opens a database anew for each event, lets whoever closes it last copy its log into it, and makes each run's
database table by table. Here a process keeps what it has open, and a run's database begins as a copy of an empty one.
The files are Dagster's, and other processes read and write them at the same time as before. Belongs here: that alone,
on Dagster's classes, which have no public name (internals.py has the others). Does not belong here: what is written.

What is committed survives the end of any process. When the machine itself ends, the last seconds of Dagster's history
may be lost (`synchronous = NORMAL`); nothing is decided by them, and `ionbeam history rebuild` tells what is there.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import dagster as dg
from dagster._core.instance import InstanceRef
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool, QueuePool

_WAITED = 30.0
"""Seconds for which a connection waits for others that write."""
_MOST_OPEN = 4
"""Databases of events that are open at once: the index, that of what has no run, and the latest runs'."""


def instance_of(home: str) -> dg.DagsterInstance:
    """Dagster as the settings in its folder `home` have it; where it keeps its storage in SQLite, with connections that
    are kept until it is disposed of."""
    ref = InstanceRef.from_dir(home)
    storage = ref.storage_data
    if storage is not None and storage.class_name == DagsterSqliteStorage.__name__:
        kept = ConfigurableClassData(__name__, KeptStorage.__name__, storage.config_yaml)
        ref = ref._replace(storage_data=kept)
    return dg.DagsterInstance.from_ref(ref)


class KeptStorage(DagsterSqliteStorage):
    """Dagster's storage in SQLite; its runs and events, of which there are many, over connections that are kept."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._run_storage = KeptRuns(self._run_storage._conn_string)
        self._event_log_storage = KeptEvents(self._event_log_storage._base_dir)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: dict[str, str]) -> KeptStorage:  # type: ignore[override]
        return cls.from_local(inst_data=inst_data, **config_value)


class KeptRuns(SqliteRunStorage):
    """Runs, over as many connections as are used at once."""

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(conn_string, inst_data)
        self._path = conn_string.removeprefix("sqlite:///")
        self._engine = create_engine(conn_string, poolclass=QueuePool, creator=lambda: _opened(self._path))
        self._number: int | None = None
        self._looking = Lock()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._looking:
            if (number := _number_of(self._path)) != self._number:
                self._engine.dispose()
                self._number = number
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def dispose(self) -> None:
        self._engine.dispose()
        super().dispose()


class KeptEvents(SqliteEventLogStorage):
    """Events, over one connection a database; one thread at a time is at any of them, as with Dagster's own."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._open: dict[str, tuple[int | None, Connection]] = {}
        self._tables: set[str] = set()
        self._shard = ""
        self._engine: Engine = create_engine(  # one for all databases, so that each statement is compiled once
            "sqlite://", poolclass=NullPool, creator=lambda: _opened(self.path_for_shard(self._shard))
        )
        super().__init__(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            connection = self._connection_to(shard)
            try:
                with connection.begin():
                    yield connection
            except BaseException:  # whatever it was, the next one begins anew
                self._close(shard)
                raise

    def _connection_to(self, shard: str) -> Connection:
        path = self.path_for_shard(shard)
        if (known := self._open.get(shard)) is not None:
            if known[0] == _number_of(path):
                return known[1]
            self._close(shard)  # somebody removed it, and perhaps made it again
        while len(self._open) >= _MOST_OPEN:
            self._close(next(one for one in self._open if one != INDEX_SHARD_NAME))
        self._shard = shard
        if shard not in self._initialized_dbs:
            if not _copied(path):
                self._initdb(self._engine)
            self._initialized_dbs.add(shard)
        connection = self._engine.connect()
        self._open[shard] = _number_of(path), connection
        return connection

    def has_table(self, table_name: str) -> bool:
        """Asked before each check is stored; what is there is never dropped."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def _close(self, shard: str) -> None:
        _, connection = self._open.pop(shard)
        with suppress(Exception):  # its file may be gone, or its disk
            connection.close()

    def dispose(self) -> None:
        with self._db_lock:
            for shard in list(self._open):
                self._close(shard)
        super().dispose()


def _opened(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_WAITED, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _number_of(path: str) -> int | None:
    """By which a file is told from another one of its name."""
    try:
        return Path(path).stat().st_ino
    except FileNotFoundError:
        return None


def _copied(path: str) -> bool:
    """Make an empty database of events, unless there is one: whether it was made."""
    if Path(path).exists():
        return False
    draft = Path(f"{path}.{os.getpid()}")
    draft.write_bytes(_empty())
    try:
        Path(path).hardlink_to(draft)  # whole at once, for others open it
    except OSError:  # another process was quicker, or the file system has no links: Dagster's own way is left
        return False
    finally:
        draft.unlink()
    return True


@cache
def _empty() -> bytes:
    """A database of events without any, as this Dagster makes it."""
    with TemporaryDirectory() as folder:
        made = SqliteEventLogStorage(folder)
        with made.run_connection("empty"):
            pass
        return Path(made.path_for_shard("empty")).read_bytes()
