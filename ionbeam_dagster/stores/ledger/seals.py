"""Seals in the ledger.

Belongs here: the windows that a person closed for good. Does not belong here: those that their policy closed
(domain/decisions.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.due import MAKE_DUE
from ionbeam_dagster.stores.ledger.keys import ends_of, micros, moment, place_of
from ionbeam_dagster.stores.ledger.on_redis import CALL, OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


class Seals(Protocol):
    """Remembers which windows a person closed for good."""

    def seal(self, dataset: str, windows: Sequence[Window], at: datetime) -> None:
        """Remember that a person closed windows for good at `at`; one that is sealed already keeps its time."""
        ...

    def unseal(self, dataset: str, windows: Sequence[Window]) -> None:
        """Open windows again, and make them due: what arrived meanwhile may be built. Unsealed ones are left alone."""
        ...

    def sealed(self, dataset: str, window: Window) -> datetime | None:
        """When a person sealed the window, if one did."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteSeals(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS sealed (
    dataset TEXT, start INTEGER, end INTEGER, at INTEGER, PRIMARY KEY (dataset, start, end)
) WITHOUT ROWID;
"""

    def seal(self, dataset: str, windows: Sequence[Window], at: datetime) -> None:
        with self._file.writing() as db:
            db.executemany(
                "INSERT OR IGNORE INTO sealed VALUES (?, ?, ?, ?)",
                [(dataset, *ends_of(window), micros(at)) for window in windows],
            )

    def unseal(self, dataset: str, windows: Sequence[Window]) -> None:
        with self._file.writing() as db:
            for window in windows:
                place = (dataset, *ends_of(window))
                gone = db.execute("DELETE FROM sealed WHERE dataset = ? AND start = ? AND end = ?", place)
                if gone.rowcount:
                    db.execute("INSERT OR REPLACE INTO due (dataset, start, end) VALUES (?, ?, ?)", place)

    def sealed(self, dataset: str, window: Window) -> datetime | None:
        with self._file.reading() as db:
            row = db.execute(
                "SELECT at FROM sealed WHERE dataset = ? AND start = ? AND end = ?", (dataset, *ends_of(window))
            ).fetchone()
        return moment(row[0]) if row else None


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:sealed:<dataset>                      when a person sealed a window

_SEAL = """
for i = 3, #ARGV do redis.call('HSETNX', 'ionbeam:sealed:' .. ARGV[1], ARGV[i], ARGV[2]) end
"""

_UNSEAL = (
    MAKE_DUE
    + """
for i = 2, #ARGV do
    if redis.call('HDEL', 'ionbeam:sealed:' .. ARGV[1], ARGV[i]) == 1 then make_due(ARGV[1], ARGV[i]) end
end
"""
)


class RedisSeals(OnRedis):
    def seal(self, dataset: str, windows: Sequence[Window], at: datetime) -> None:
        self._server.run(_SEAL, dataset, micros(at), *(place_of(window) for window in windows))

    def unseal(self, dataset: str, windows: Sequence[Window]) -> None:
        self._server.run(_UNSEAL, dataset, *(place_of(window) for window in windows))

    def sealed(self, dataset: str, window: Window) -> datetime | None:
        at = self._server.run(CALL, "HGET", f"ionbeam:sealed:{dataset}", place_of(window))
        return moment(int(at)) if at else None
