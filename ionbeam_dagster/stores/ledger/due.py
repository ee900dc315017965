"""Windows that are due, in the ledger.

Belongs here: which dataset windows were touched since their latest revision. Does not belong here: whether they can be
built (domain/decisions.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Protocol

from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.keys import ends_of, micros, place_of, window_at, window_from
from ionbeam_dagster.stores.ledger.on_redis import CALL, OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import Column, OnSqlite


class DueWindows(Protocol):
    """Remembers which dataset windows are due."""

    def due(self, dataset: str, now: datetime | None = None) -> list[Window]:
        """Windows that were touched by a claim, or lost one, since their latest revision, in order.

        With `now`, those among them that are not postponed beyond that; the cost does not grow with the others.
        """
        ...

    def postpone(self, dataset: str, window: Window, seen: Sequence[Claim], until: datetime | None) -> None:
        """Leave a window that is due alone until then (None: for ever), or until a claim touches it or is withdrawn.

        Nothing happens when its claims are not those that were `seen`.
        """
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------

_NEVER = 2**62


class SqliteDueWindows(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS due (
    dataset TEXT, start INTEGER, end INTEGER, until INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (dataset, start, end)
) WITHOUT ROWID;
"""
    ADDED: ClassVar[tuple[Column, ...]] = (("due", "until", "INTEGER NOT NULL DEFAULT 0"),)
    INDICES = "CREATE INDEX IF NOT EXISTS due_by_time ON due (dataset, until);"

    def due(self, dataset: str, now: datetime | None = None) -> list[Window]:
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT start, end FROM due WHERE dataset = ? AND until <= ? ORDER BY start",
                (dataset, _NEVER if now is None else micros(now)),
            ).fetchall()
        return [window_from(*row) for row in rows]

    def postpone(self, dataset: str, window: Window, seen: Sequence[Claim], until: datetime | None) -> None:
        place = (dataset, *ends_of(window))
        with self._file.writing() as db:
            if touching(db, place) == {claim.id for claim in seen}:
                db.execute(
                    "UPDATE due SET until = ? WHERE dataset = ? AND start = ? AND end = ?",
                    (_NEVER if until is None else micros(until), *place),
                )


def touching(db: sqlite3.Connection, place: tuple[str, int, int]) -> set[str]:
    found = db.execute("SELECT claim FROM touched WHERE dataset = ? AND start = ? AND end = ?", place)
    return {row[0] for row in found}


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:due:<dataset>                         the windows that are due, by start
#     ionbeam:until:<dataset>                       the same, by the time until which they are postponed

MAKE_DUE = """
local function make_due(dataset, window)
    redis.call('ZADD', 'ionbeam:due:' .. dataset, window:match('^[^:]+'), window)
    redis.call('ZADD', 'ionbeam:until:' .. dataset, '-inf', window)
end
"""

TOUCHED_BY = """
local function touched_by(place, first)
    if redis.call('ZCARD', 'ionbeam:touching:' .. place) ~= #ARGV - first + 1 then return false end
    for i = first, #ARGV do
        if not redis.call('ZSCORE', 'ionbeam:touching:' .. place, ARGV[i]) then return false end
    end
    return true
end
"""

_POSTPONE = (
    TOUCHED_BY
    + """
local dataset, window, later = unpack(ARGV, 1, 3)
if touched_by(dataset .. ':' .. window, 4) then
    redis.call('ZADD', 'ionbeam:until:' .. dataset, 'XX', later, window)
end
"""
)


class RedisDueWindows(OnRedis):
    def due(self, dataset: str, now: datetime | None = None) -> list[Window]:
        if now is None:
            found = self._server.run(CALL, "ZRANGE", f"ionbeam:due:{dataset}", 0, -1)
        else:
            found = self._server.run(CALL, "ZRANGEBYSCORE", f"ionbeam:until:{dataset}", "-inf", micros(now))
        return sorted(map(window_at, found))

    def postpone(self, dataset: str, window: Window, seen: Sequence[Claim], until: datetime | None) -> None:
        later = "+inf" if until is None else micros(until)
        self._server.run(_POSTPONE, dataset, place_of(window), later, *{claim.id for claim in seen})
