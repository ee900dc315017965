"""Counts of claims in the ledger.

Belongs here: how late ingestions came, how many rows a window got, how long windows are, and when a source begins.
Does not belong here: the claims, which are counted as they are recorded (claims.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from ionbeam_dagster.domain.records import Lateness
from ionbeam_dagster.domain.windows import HOUR, Window, window_of, windows_between
from ionbeam_dagster.stores.ledger.keys import ends_of, micros, moment, place_of, window_at, window_from
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


class Counts(Protocol):
    """Remembers what is counted of claims."""

    def lateness(self, source: str, start: datetime, end: datetime) -> list[Lateness]:
        """How late ingestions of a source came, of those that arrived in the whole hours of [start, end)."""
        ...

    def rows_in(self, dataset: str, window: Window) -> int | None:
        """How many rows its claims brought into a dataset window, repeated ones counted each time.

        None where a claim of an earlier version of the ledger touches it, which did not count them.
        """
        ...

    def rows_by_window(self, ingestion: str) -> dict[Window, int]:
        """How many rows a claim brought into which dataset windows; of an earlier version of the ledger, which did not
        count them, no window."""
        ...

    def span_of(self, dataset: str) -> timedelta | None:
        """How long the newest window is that a claim of `dataset` touched; None while none did."""
        ...

    def begun(self, source: str) -> datetime | None:
        """The start of the earliest range that was ever collected of a source, as far as that was noted: an earlier
        version of the ledger did not."""
        ...


def hour_of(moment: datetime) -> int:
    """The hour in which something arrived, as ledgers keep it."""
    return micros(window_of(moment, HOUR).start)


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteCounts(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS lateness (
    source TEXT, hour INTEGER, late INTEGER, count INTEGER, PRIMARY KEY (source, hour, late)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS begun (source TEXT PRIMARY KEY, start INTEGER) WITHOUT ROWID;
"""

    def lateness(self, source: str, start: datetime, end: datetime) -> list[Lateness]:
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT hour, late, count FROM lateness WHERE source = ? AND hour >= ? AND hour < ? ORDER BY 1, 2",
                (source, micros(start), micros(end)),
            ).fetchall()
        return [Lateness(moment(hour), timedelta(seconds=late), count) for hour, late, count in rows]

    def rows_in(self, dataset: str, window: Window) -> int | None:
        with self._file.reading() as db:
            rows, unknown = db.execute(
                "SELECT COALESCE(SUM(rows), 0), COUNT(*) - COUNT(rows) FROM touched "
                "WHERE dataset = ? AND start = ? AND end = ?",
                (dataset, *ends_of(window)),
            ).fetchone()
        return None if unknown else int(rows)

    def rows_by_window(self, ingestion: str) -> dict[Window, int]:
        with self._file.reading() as db:
            found = db.execute("SELECT start, end, rows FROM touched WHERE claim = ?", (ingestion,)).fetchall()
        return {window_from(start, end): rows for start, end, rows in found if rows is not None}

    def span_of(self, dataset: str) -> timedelta | None:
        newest = "SELECT start, end FROM touched WHERE dataset = ? ORDER BY start DESC LIMIT 1"
        with self._file.reading() as db:
            row = db.execute(newest, (dataset,)).fetchone()
        return window_from(*row).span if row else None

    def begun(self, source: str) -> datetime | None:
        with self._file.reading() as db:
            row = db.execute("SELECT start FROM begun WHERE source = ?", (source,)).fetchone()
        return moment(row[0]) if row else None


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:lateness:<source>:<hour>              how many ingestions arrived in an hour, by how many seconds too late
#     ionbeam:begun                                 the start of the earliest range collected of each source

_LATENESS = """
local found = {}
for i = 2, #ARGV do
    found[i - 1] = redis.call('HGETALL', 'ionbeam:lateness:' .. ARGV[1] .. ':' .. ARGV[i])
end
return found
"""

_ROWS_IN = """
local place = ARGV[1] .. ':' .. ARGV[2]
local rows = redis.call('HVALS', 'ionbeam:rows:' .. place)
if #rows ~= redis.call('ZCARD', 'ionbeam:touching:' .. place) then return false end
local sum = 0
for _, number in ipairs(rows) do sum = sum + number end
return sum
"""

_ROWS_BY_WINDOW = """
local found = {}
local dataset = redis.call('HGET', 'ionbeam:claim:' .. ARGV[1], 'dataset')
for _, window in ipairs(redis.call('SMEMBERS', 'ionbeam:touched:' .. ARGV[1])) do
    local rows = redis.call('HGET', 'ionbeam:rows:' .. dataset .. ':' .. window, ARGV[1])
    if rows then
        found[#found + 1] = window
        found[#found + 1] = rows
    end
end
return found
"""

_NEWEST = """
local newest = ''
for _, kind in ipairs({'due', 'built'}) do  -- a window that was touched is in one of them
    local window = redis.call('ZRANGE', 'ionbeam:' .. kind .. ':' .. ARGV[1], -1, -1)[1]
    if window and (newest == '' or tonumber(window:match('^[^:]+')) > tonumber(newest:match('^[^:]+'))) then
        newest = window
    end
end
return newest
"""

_BEGUN = "return redis.call('HGET', 'ionbeam:begun', ARGV[1]) or ''"


class RedisCounts(OnRedis):
    def lateness(self, source: str, start: datetime, end: datetime) -> list[Lateness]:
        hours = [window.start for window in windows_between(start, end, HOUR) if window.start >= start]
        found = self._server.run(_LATENESS, source, *map(hour_of, hours))
        return [
            Lateness(hour, timedelta(seconds=late), count)
            for hour, flat in zip(hours, found, strict=True)
            for late, count in sorted(
                (int(late), int(count)) for late, count in zip(flat[::2], flat[1::2], strict=True)
            )
        ]

    def rows_in(self, dataset: str, window: Window) -> int | None:
        rows = self._server.run(_ROWS_IN, dataset, place_of(window))
        return None if rows is None else int(rows)

    def rows_by_window(self, ingestion: str) -> dict[Window, int]:
        flat = self._server.run(_ROWS_BY_WINDOW, ingestion)
        return {window_at(place): int(rows) for place, rows in zip(flat[::2], flat[1::2], strict=True)}

    def span_of(self, dataset: str) -> timedelta | None:
        newest = self._server.run(_NEWEST, dataset)
        return window_at(newest).span if newest else None

    def begun(self, source: str) -> datetime | None:
        start = self._server.run(_BEGUN, source)
        return moment(int(start)) if start else None
