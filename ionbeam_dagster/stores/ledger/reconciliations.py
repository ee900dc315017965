"""The comparison of all files with the ledger: when it was last done, and how far the slow look at contents came.

Belongs here: those two notes, in SQLite and in Redis. Does not belong here: the comparison
(pipeline/reconciliation.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from ionbeam_dagster.stores.ledger.keys import micros, moment
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


class Reconciliations(Protocol):
    """Remembers when files were compared with the ledger."""

    def note(self, at: datetime) -> None:
        """Remember when all files were last compared with the ledger."""
        ...

    def last(self) -> datetime | None:
        """When all files were last compared with the ledger; None: they never were."""
        ...

    def reach(self, place: str) -> None:
        """Remember the file up to which contents were looked at; empty: the last one of all."""
        ...

    def reached(self) -> str:
        """The file up to which contents were looked at, empty at first."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteReconciliations(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS reconciled (only INTEGER PRIMARY KEY CHECK (only = 1), at INTEGER);
CREATE TABLE IF NOT EXISTS looked_at (only INTEGER PRIMARY KEY CHECK (only = 1), place TEXT);
"""

    def note(self, at: datetime) -> None:
        with self._file.writing() as db:
            db.execute("INSERT OR REPLACE INTO reconciled VALUES (1, ?)", (micros(at),))

    def last(self) -> datetime | None:
        with self._file.reading() as db:
            row = db.execute("SELECT at FROM reconciled").fetchone()
        return moment(row[0]) if row else None

    def reach(self, place: str) -> None:
        with self._file.writing() as db:
            db.execute("INSERT OR REPLACE INTO looked_at VALUES (1, ?)", (place,))

    def reached(self) -> str:
        with self._file.reading() as db:
            row = db.execute("SELECT place FROM looked_at").fetchone()
        return row[0] if row else ""


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:reconciled      when all files were last compared with the ledger
# ionbeam:looked_at       the file up to which contents were looked at

_SET = "redis.call('SET', 'ionbeam:' .. ARGV[1], ARGV[2])"
_GET = "return redis.call('GET', 'ionbeam:' .. ARGV[1])"


class RedisReconciliations(OnRedis):
    def note(self, at: datetime) -> None:
        self._server.run(_SET, "reconciled", micros(at))

    def last(self) -> datetime | None:
        at = self._server.run(_GET, "reconciled")
        return moment(int(at)) if at else None

    def reach(self, place: str) -> None:
        self._server.run(_SET, "looked_at", place)

    def reached(self) -> str:
        return self._server.run(_GET, "looked_at") or ""
