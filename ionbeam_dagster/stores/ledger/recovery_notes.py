"""When the ledger was made again, and of what.

Belongs here: the note of it. Does not belong here: the recovery (pipeline/recovery.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from ionbeam_dagster.stores.ledger.keys import micros, moment
from ionbeam_dagster.stores.ledger.on_redis import CALL, OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


class RecoveryNotes(Protocol):
    """Remembers when the ledger was made again."""

    def recovered(self) -> tuple[datetime, str] | None:
        """When this ledger was last made again from the other stores, and what was found; None: it never was."""
        ...

    def note_recovery(self, told: str) -> None:
        """Remember that the ledger was made again."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteRecoveryNotes(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS recoveries (at INTEGER, told TEXT);
"""

    def recovered(self) -> tuple[datetime, str] | None:
        with self._file.reading() as db:
            row = db.execute("SELECT at, told FROM recoveries ORDER BY at DESC LIMIT 1").fetchone()
        return (moment(row[0]), row[1]) if row else None

    def note_recovery(self, told: str) -> None:
        with self._file.writing() as db:
            db.execute("INSERT INTO recoveries VALUES (?, ?)", (micros(datetime.now(UTC)), told))


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:recovered                             when that was last put here from the other stores


class RedisRecoveryNotes(OnRedis):
    def recovered(self) -> tuple[datetime, str] | None:
        at, told = self._server.run(CALL, "HMGET", "ionbeam:recovered", "at", "told")
        return (moment(int(at)), told) if at else None

    def note_recovery(self, told: str) -> None:
        self._server.run(CALL, "HSET", "ionbeam:recovered", "at", micros(datetime.now(UTC)), "told", told)
