"""Raw partitions in the ledger.

Belongs here: what is remembered of raw files, and the two implementations of that. Does not belong here: the files
themselves (stores/raw.py).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Protocol

from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.arrivals import PLACE_OF, TAKE_PLACE
from ionbeam_dagster.stores.ledger.keys import ends_of, micros, moment, place_of, window_at, window_from
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import Column, OnSqlite

Sent = tuple[RawPartition, Sequence[Window]]
"""A raw file that was sent from outside, and the windows of its source that it touches."""


class RawPartitions(Protocol):
    """Remembers raw partitions: those that were collected, and those that clients sent."""

    def record_raw(self, raw: RawPartition) -> None:
        """Remember the raw file of a source's window; it replaces the earlier one of the same window.

        A new ingestion takes the next place in the order of arrival.
        """
        ...

    def raw(self, source: str, window: Window) -> RawPartition | None: ...

    def record_sent(self, raws: Sequence[Sent]) -> None:
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

_FIELDS = "r.ingestion, r.source, r.start, r.end, r.path, r.rows, r.signature, r.bytes, r.hash, w.at"
_OF_COLLECTED = f"{_FIELDS}, r.kept, r.beside, r.knows, r.asked_at, ''"
_COLLECTED = f"SELECT {_OF_COLLECTED} FROM raw r LEFT JOIN swept w USING (ingestion)"
_OF_SENT = f"{_FIELDS}, 0, '', 0, NULL, r.sender"
_SENT_ROWS = f"SELECT {_OF_SENT} FROM sent r LEFT JOIN swept w USING (ingestion)"


class SqliteRawPartitions(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS raw (
    source TEXT, start INTEGER, end INTEGER, ingestion TEXT, path TEXT, rows INTEGER, signature TEXT,
    kept INTEGER NOT NULL DEFAULT 0, beside TEXT NOT NULL DEFAULT '', knows INTEGER NOT NULL DEFAULT 0,
    asked_at INTEGER, bytes INTEGER NOT NULL DEFAULT 0, hash TEXT NOT NULL DEFAULT '', PRIMARY KEY (source, start, end)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent (
    ingestion TEXT PRIMARY KEY, source TEXT, start INTEGER, end INTEGER, path TEXT, rows INTEGER, signature TEXT,
    bytes INTEGER NOT NULL DEFAULT 0, hash TEXT NOT NULL DEFAULT '', sender TEXT NOT NULL DEFAULT ''
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
        ("raw", "asked_at", "INTEGER"),
        ("raw", "bytes", "INTEGER NOT NULL DEFAULT 0"),
        ("raw", "hash", "TEXT NOT NULL DEFAULT ''"),
        ("sent", "bytes", "INTEGER NOT NULL DEFAULT 0"),
        ("sent", "hash", "TEXT NOT NULL DEFAULT ''"),
        ("sent", "sender", "TEXT NOT NULL DEFAULT ''"),
    )

    def record_raw(self, raw: RawPartition) -> None:
        with self._file.writing() as db:
            db.execute(TAKE_PLACE, (raw.ingestion,))
            db.execute(
                "INSERT OR REPLACE INTO raw (source, start, end, ingestion, path, rows, signature, kept, beside, "
                "knows, asked_at, bytes, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    raw.source, *ends_of(raw.window), raw.ingestion, raw.path, raw.rows, raw.signature, raw.kept,
                    " ".join(raw.beside), raw.knows, None if raw.asked_at is None else micros(raw.asked_at), raw.bytes,
                    raw.hash,
                ),
            )  # fmt: skip
            db.execute("DELETE FROM swept WHERE ingestion = ?", (raw.ingestion,))

    def raw(self, source: str, window: Window) -> RawPartition | None:
        with self._file.reading() as db:
            row = db.execute(
                f"{_COLLECTED} WHERE r.source = ? AND r.start = ? AND r.end = ?", (source, *ends_of(window))
            ).fetchone()
        return _raw_of_row(row) if row else None

    def record_sent(self, raws: Sequence[Sent]) -> None:
        with self._file.writing() as db:
            put_sent(db, raws)

    def sent(self, source: str, window: Window) -> list[RawPartition]:
        with self._file.reading() as db:
            rows = db.execute(
                f"SELECT {_OF_SENT} FROM sent_into i JOIN sent r USING (ingestion) JOIN arrivals a "
                "USING (ingestion) "
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


def put_sent(db: sqlite3.Connection, raws: Sequence[Sent]) -> None:
    """`RawPartitions.record_sent`, in a transaction that has more to do."""
    db.executemany(TAKE_PLACE, [(raw.ingestion,) for raw, _ in raws])
    db.executemany(
        "INSERT OR REPLACE INTO sent (ingestion, source, start, end, path, rows, signature, bytes, hash, sender) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (r.ingestion, r.source, *ends_of(r.window), r.path, r.rows, r.signature, r.bytes, r.hash, r.sender)
            for r, _ in raws
        ],
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


def _raw_of_row(row: tuple[Any, ...]) -> RawPartition:
    ingestion, source, start, end, path, rows, signature, size, hash, purged, kept, beside, knows, *others = row
    asked_at, sender = others
    return RawPartition(
        ingestion, source, window_from(start, end), path, rows, signature, None if purged is None else moment(purged),
        kept, tuple(beside.split()), knows, None if asked_at is None else moment(asked_at), size, hash, sender,
    )  # fmt: skip


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
    'beside', ARGV[8], 'knows', ARGV[9], 'asked_at', ARGV[10], 'bytes', ARGV[11], 'hash', ARGV[12])
redis.call('HDEL', 'ionbeam:swept', ingestion)
redis.call('ZADD', 'ionbeam:raws:' .. source, window:match('[^:]+$'), window)
"""

_RAW = """
local found = redis.call('HMGET', 'ionbeam:raw:' .. ARGV[1] .. ':' .. ARGV[2],
    'ingestion', 'path', 'rows', 'signature', 'kept', 'beside', 'knows', 'asked_at', 'bytes', 'hash')
if not found[1] then return {} end
return {found[1], found[2], found[3], found[4], redis.call('HGET', 'ionbeam:swept', found[1]) or '',
    found[5] or '0', found[6] or '', found[7] or '0', found[8] or '', found[9] or '0', found[10] or ''}
"""

RECORD_SENT = f"""{PLACE_OF}
local function record_sent(record, windows)
    local id, source, reach = unpack(cjson.decode(record), 1, 3)
    local place = place_of(id)
    redis.call('SET', 'ionbeam:sent:' .. id, record)
    redis.call('HDEL', 'ionbeam:swept', id)
    redis.call('ZADD', 'ionbeam:raws:' .. source, reach:match('[^:]+$'), 'sent ' .. id)
    for _, window in ipairs(windows) do
        redis.call('ZADD', 'ionbeam:sent_into:' .. source .. ':' .. window, place, id)
        redis.call('SADD', 'ionbeam:sent_windows:' .. id, window)
    end
    if redis.call('EXISTS', 'ionbeam:claim:' .. id) == 0 then
        redis.call('SADD', 'ionbeam:waiting:' .. source, id)
    end
end
"""

_RECORD_SENT = f"""{RECORD_SENT}
for _, sent in ipairs(cjson.decode(ARGV[1])) do record_sent(unpack(sent)) end
"""

_SENT = """
local found = {}
for i, id in ipairs(redis.call('ZRANGE', 'ionbeam:sent_into:' .. ARGV[1] .. ':' .. ARGV[2], 0, -1)) do
    found[i] = {needed('GET', 'ionbeam:sent:' .. id), redis.call('HGET', 'ionbeam:swept', id) or ''}
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
        found[i] = {'', needed('GET', 'ionbeam:sent:' .. name:sub(6))}
    else
        local kept = needed('HMGET', 'ionbeam:raw:' .. ARGV[1] .. ':' .. name,
            'ingestion', 'path', 'rows', 'signature', 'kept', 'beside', 'knows', 'asked_at', 'bytes', 'hash')
        found[i] = {name, kept[1], kept[2], kept[3], kept[4], '', kept[5] or '0', kept[6] or '', kept[7] or '0',
            kept[8] or '', kept[9] or '0', kept[10] or ''}
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
        asked_at = "" if raw.asked_at is None else micros(raw.asked_at)
        told = (raw.kept, " ".join(raw.beside), raw.knows, asked_at, raw.bytes, raw.hash)
        record = (raw.ingestion, raw.path, raw.rows, raw.signature, *told)
        self._server.run(_RECORD_RAW, raw.source, place_of(raw.window), *record)

    def raw(self, source: str, window: Window) -> RawPartition | None:
        kept = self._server.run(_RAW, source, place_of(window))
        return _raw_of_record(source, place_of(window), *kept) if kept else None

    def record_sent(self, raws: Sequence[Sent]) -> None:
        self._server.run(_RECORD_SENT, json.dumps([sent_record(*one) for one in raws]))

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


def sent_record(raw: RawPartition, touched: Sequence[Window]) -> list[str | list[str]]:
    """What the script's function `record_sent` takes."""
    record = [
        raw.ingestion, raw.source, place_of(raw.window), raw.path, raw.rows, raw.signature, raw.bytes, raw.hash,
        *([raw.sender] if raw.sender else []),
    ]  # fmt: skip
    return [json.dumps(record), [place_of(window) for window in touched]]


def _raw_of_record(
    source: str, window: str, ingestion: str, path: str, rows: str, signature: str, purged: str = "",
    kept: str = "0", beside: str = "", knows: str = "0", asked_at: str = "", size: str = "0", hash: str = "",
    sender: str = "",
) -> RawPartition:  # fmt: skip
    return RawPartition(
        ingestion, source, window_at(window), path, int(rows), signature, moment(int(purged)) if purged else None,
        int(kept), tuple(beside.split()), int(knows), moment(int(asked_at)) if asked_at else None, int(size), hash,
        sender,
    )  # fmt: skip


def _sent_of_record(record: str, purged: str = "") -> RawPartition:
    ingestion, source, reach, path, rows, signature, *later = json.loads(record)
    size, hash, sender = later + ["0", "", ""][len(later) :]
    return _raw_of_record(source, reach, ingestion, path, rows, signature, purged, size=size, hash=hash, sender=sender)
