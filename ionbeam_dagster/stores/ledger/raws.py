"""Raw partitions in the ledger.

Belongs here: what is remembered of raw files, and the two implementations of that. Does not belong here: the files
themselves (stores/raw.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Protocol

from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.arrivals import PLACE_OF, TAKE_PLACE
from ionbeam_dagster.stores.ledger.keys import ends_of, micros, moment, place_of, window_at, window_from
from ionbeam_dagster.stores.ledger.migration import Column
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


class RawPartitions(Protocol):
    """Remembers raw partitions: those that were collected, and those that clients sent."""

    def record_raw(self, raw: RawPartition) -> None:
        """Remember the raw file of a source's window; it replaces the earlier one of the same window.

        A new ingestion takes the next place in the order of arrival.
        """
        ...

    def raw(self, source: str, window: Window) -> RawPartition | None: ...

    def record_sent(self, raws: Sequence[tuple[RawPartition, Sequence[Window]]]) -> None:
        """Remember raw files that were sent from outside, each with the windows of its source that it touches.

        Their own windows are the ranges that they collected; each stands beside the others. They take their places in
        the order of arrival as they are given; one that is known keeps its own.
        """
        ...

    def sent(self, source: str, window: Window) -> list[RawPartition]:
        """The raw files sent from outside that touch one window of their source, in order of arrival."""
        ...

    def waiting(self, source: str) -> list[Window]:
        """The windows of a source into which something was sent that has no claim yet, in order."""
        ...

    def raws(self, source: str, before: datetime) -> list[RawPartition]:
        """The raw files of a source, collected or sent, of windows that end by `before`, but for those purged."""
        ...

    def record_purged(self, raw: RawPartition, at: datetime) -> None:
        """Remember that a raw file was removed on purpose, until it is recorded again."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------

_COLLECTED = (
    "SELECT r.ingestion, r.source, r.start, r.end, r.path, r.rows, r.signature, w.at, r.kept, r.beside, r.knows "
    "FROM raw r LEFT JOIN swept w USING (ingestion)"
)
_SENT_ROWS = (
    "SELECT r.ingestion, r.source, r.start, r.end, r.path, r.rows, r.signature, w.at, 0, '', 0 "
    "FROM sent r LEFT JOIN swept w USING (ingestion)"
)


class SqliteRawPartitions(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS raw (
    source TEXT, start INTEGER, end INTEGER, ingestion TEXT, path TEXT, rows INTEGER, signature TEXT,
    kept INTEGER NOT NULL DEFAULT 0, beside TEXT NOT NULL DEFAULT '', knows INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (source, start, end)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent (
    ingestion TEXT PRIMARY KEY, source TEXT, start INTEGER, end INTEGER, path TEXT, rows INTEGER, signature TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent_into (
    source TEXT, start INTEGER, end INTEGER, ingestion TEXT, PRIMARY KEY (source, start, end, ingestion)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sent_by_ingestion ON sent_into (ingestion);
CREATE TABLE IF NOT EXISTS swept (ingestion TEXT PRIMARY KEY, at INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unclaimed (ingestion TEXT PRIMARY KEY) WITHOUT ROWID;
"""

    ADDED: ClassVar[tuple[Column, ...]] = (
        ("raw", "kept", "INTEGER NOT NULL DEFAULT 0"),
        ("raw", "beside", "TEXT NOT NULL DEFAULT ''"),
        ("raw", "knows", "INTEGER NOT NULL DEFAULT 0"),
    )

    def record_raw(self, raw: RawPartition) -> None:
        with self._file.writing() as db:
            db.execute(TAKE_PLACE, (raw.ingestion,))
            db.execute(
                "INSERT OR REPLACE INTO raw (source, start, end, ingestion, path, rows, signature, kept, beside, "
                "knows) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    raw.source,
                    *ends_of(raw.window),
                    raw.ingestion,
                    raw.path,
                    raw.rows,
                    raw.signature,
                    raw.kept,
                    " ".join(raw.beside),
                    raw.knows,
                ),
            )
            db.execute("DELETE FROM swept WHERE ingestion = ?", (raw.ingestion,))

    def raw(self, source: str, window: Window) -> RawPartition | None:
        with self._file.reading() as db:
            row = db.execute(
                f"{_COLLECTED} WHERE r.source = ? AND r.start = ? AND r.end = ?", (source, *ends_of(window))
            ).fetchone()
        return _raw_of_row(row) if row else None

    def record_sent(self, raws: Sequence[tuple[RawPartition, Sequence[Window]]]) -> None:
        with self._file.writing() as db:
            db.executemany(TAKE_PLACE, [(raw.ingestion,) for raw, _ in raws])
            db.executemany(
                "INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(r.ingestion, r.source, *ends_of(r.window), r.path, r.rows, r.signature) for r, _ in raws],
            )
            db.executemany(
                "INSERT OR IGNORE INTO sent_into VALUES (?, ?, ?, ?)",
                [(r.source, *ends_of(window), r.ingestion) for r, touched in raws for window in touched],
            )
            db.executemany("DELETE FROM swept WHERE ingestion = ?", [(r.ingestion,) for r, _ in raws])
            db.executemany(
                "INSERT OR IGNORE INTO unclaimed SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM claims WHERE id = ?1)",
                [(raw.ingestion,) for raw, _ in raws],
            )

    def sent(self, source: str, window: Window) -> list[RawPartition]:
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT r.ingestion, r.source, r.start, r.end, r.path, r.rows, r.signature, w.at "
                "FROM sent_into i JOIN sent r USING (ingestion) JOIN arrivals a USING (ingestion) "
                "LEFT JOIN swept w USING (ingestion) "
                "WHERE i.source = ? AND i.start = ? AND i.end = ? ORDER BY a.arrival",
                (source, *ends_of(window)),
            ).fetchall()
        return [_raw_of_row(row) for row in rows]

    def waiting(self, source: str) -> list[Window]:
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT DISTINCT i.start, i.end FROM unclaimed u JOIN sent_into i USING (ingestion) "
                "WHERE i.source = ? ORDER BY i.start",
                (source,),
            ).fetchall()
        return [window_from(*row) for row in rows]

    def raws(self, source: str, before: datetime) -> list[RawPartition]:
        kept = "WHERE r.source = ? AND r.end <= ? AND w.at IS NULL"
        with self._file.reading() as db:
            rows = db.execute(
                f"{_COLLECTED} {kept} UNION ALL {_SENT_ROWS} {kept} ORDER BY 3, 4",
                (source, micros(before)) * 2,
            ).fetchall()
        return [_raw_of_row(row) for row in rows]

    def record_purged(self, raw: RawPartition, at: datetime) -> None:
        with self._file.writing() as db:
            db.execute("INSERT OR REPLACE INTO swept VALUES (?, ?)", (raw.ingestion, micros(at)))


def _raw_of_row(row: tuple[Any, ...]) -> RawPartition:
    purged = moment(row[7]) if row[7] is not None else None
    kept, beside, knows = row[8:] or (0, "", 0)
    window = window_from(row[2], row[3])
    return RawPartition(row[0], row[1], window, row[4], row[5], row[6], purged, kept, tuple(beside.split()), knows)


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:raw:<source>:<window>                 a raw partition
#     ionbeam:sent:<id>                             a raw file that was sent from outside
#     ionbeam:sent_into:<source>:<window>           the raw files sent that touch a window, by arrival
#     ionbeam:waiting:<source>                      the raw files sent that have no claim
#     ionbeam:sent_windows:<id>                     the windows that a raw file sent touches
#     ionbeam:raws:<source>                         windows, and ids of raw files sent, whose file is kept, by their end
#     ionbeam:swept                                 when retention removed a raw file, by its ingestion

_RECORD_RAW = f"""{PLACE_OF}
local source, window, ingestion = unpack(ARGV, 1, 3)
place_of(ingestion)
redis.call('HSET', 'ionbeam:raw:' .. source .. ':' .. window,
    'ingestion', ingestion, 'path', ARGV[4], 'rows', ARGV[5], 'signature', ARGV[6], 'kept', ARGV[7],
    'beside', ARGV[8], 'knows', ARGV[9])
redis.call('HDEL', 'ionbeam:swept', ingestion)
redis.call('ZADD', 'ionbeam:raws:' .. source, window:match('[^:]+$'), window)
"""

_RAW = """
local found = redis.call('HMGET', 'ionbeam:raw:' .. ARGV[1] .. ':' .. ARGV[2],
    'ingestion', 'path', 'rows', 'signature', 'kept', 'beside', 'knows')
if not found[1] then return {} end
return {found[1], found[2], found[3], found[4], redis.call('HGET', 'ionbeam:swept', found[1]) or '',
    found[5] or '0', found[6] or '', found[7] or '0'}
"""

_RECORD_SENT = f"""{PLACE_OF}
local id, record, source = unpack(ARGV, 1, 3)
local place = place_of(id)
redis.call('SET', 'ionbeam:sent:' .. id, record)
redis.call('HDEL', 'ionbeam:swept', id)
redis.call('ZADD', 'ionbeam:raws:' .. source, cjson.decode(record)[3]:match('[^:]+$'), 'sent ' .. id)
for i = 4, #ARGV do
    redis.call('ZADD', 'ionbeam:sent_into:' .. source .. ':' .. ARGV[i], place, id)
    redis.call('SADD', 'ionbeam:sent_windows:' .. id, ARGV[i])
end
if redis.call('EXISTS', 'ionbeam:claim:' .. id) == 0 then
    redis.call('SADD', 'ionbeam:waiting:' .. source, id)
end
"""

_SENT = """
local found = {}
for i, id in ipairs(redis.call('ZRANGE', 'ionbeam:sent_into:' .. ARGV[1] .. ':' .. ARGV[2], 0, -1)) do
    found[i] = {redis.call('GET', 'ionbeam:sent:' .. id), redis.call('HGET', 'ionbeam:swept', id) or ''}
end
return found
"""

_WAITING = """
local found = {}
for _, id in ipairs(redis.call('SMEMBERS', 'ionbeam:waiting:' .. ARGV[1])) do
    for _, window in ipairs(redis.call('SMEMBERS', 'ionbeam:sent_windows:' .. id)) do
        found[#found + 1] = window
    end
end
return found
"""

_RAWS = """
local found = {}
for i, name in ipairs(redis.call('ZRANGE', 'ionbeam:raws:' .. ARGV[1], '-inf', ARGV[2], 'BYSCORE')) do
    if name:sub(1, 5) == 'sent ' then
        found[i] = {'', redis.call('GET', 'ionbeam:sent:' .. name:sub(6))}
    else
        local kept = redis.call('HMGET', 'ionbeam:raw:' .. ARGV[1] .. ':' .. name,
            'ingestion', 'path', 'rows', 'signature', 'kept', 'beside', 'knows')
        found[i] = {name, kept[1], kept[2], kept[3], kept[4], '', kept[5] or '0', kept[6] or '', kept[7] or '0'}
    end
end
return found
"""

_RECORD_PURGED = """
local source, window, ingestion, at = unpack(ARGV, 1, 4)
redis.call('HSET', 'ionbeam:swept', ingestion, at)
redis.call('ZREM', 'ionbeam:raws:' .. source, 'sent ' .. ingestion)
if redis.call('HGET', 'ionbeam:raw:' .. source .. ':' .. window, 'ingestion') == ingestion then
    redis.call('ZREM', 'ionbeam:raws:' .. source, window)
end
"""


class RedisRawPartitions(OnRedis):
    def record_raw(self, raw: RawPartition) -> None:
        record = (raw.ingestion, raw.path, raw.rows, raw.signature, raw.kept, " ".join(raw.beside), raw.knows)
        self._server.run(_RECORD_RAW, raw.source, place_of(raw.window), *record)

    def raw(self, source: str, window: Window) -> RawPartition | None:
        kept = self._server.run(_RAW, source, place_of(window))
        return _raw_of_record(source, place_of(window), *kept) if kept else None

    def record_sent(self, raws: Sequence[tuple[RawPartition, Sequence[Window]]]) -> None:
        for raw, touched in raws:
            record = json.dumps(
                [raw.ingestion, raw.source, place_of(raw.window), raw.path, raw.rows, raw.signature]
            )  # fmt: skip
            self._server.run(_RECORD_SENT, raw.ingestion, record, raw.source, *(place_of(window) for window in touched))

    def sent(self, source: str, window: Window) -> list[RawPartition]:
        return [_sent_of_record(*kept) for kept in self._server.run(_SENT, source, place_of(window))]

    def waiting(self, source: str) -> list[Window]:
        return sorted({window_at(text) for text in self._server.run(_WAITING, source)})

    def raws(self, source: str, before: datetime) -> list[RawPartition]:
        found = self._server.run(_RAWS, source, micros(before))
        raws = (_raw_of_record(source, *kept) if kept[0] else _sent_of_record(kept[1]) for kept in found)
        return sorted(raws, key=lambda raw: raw.window)

    def record_purged(self, raw: RawPartition, at: datetime) -> None:
        self._server.run(_RECORD_PURGED, raw.source, place_of(raw.window), raw.ingestion, micros(at))


def _raw_of_record(
    source: str, window: str, ingestion: str, path: str, rows: str, signature: str, purged: str = "",
    kept: str = "0", beside: str = "", knows: str = "0",
) -> RawPartition:  # fmt: skip
    removed = moment(int(purged)) if purged else None
    return RawPartition(
        ingestion, source, window_at(window), path, int(rows), signature, removed, int(kept), tuple(beside.split()),
        int(knows),
    )  # fmt: skip


def _sent_of_record(record: str, purged: str = "") -> RawPartition:
    ingestion, source, reach, path, rows, signature = json.loads(record)
    return _raw_of_record(source, reach, ingestion, path, rows, signature, purged)
