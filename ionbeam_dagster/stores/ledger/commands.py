"""Commands in the ledger: what doors took in, and of which windows Dagster is to be told.

Belongs here: which commands were taken in, with the raw files that came of them, and their payloads. Does not belong
here: commands of which parts are missing (parts.py), or how they are taken in (doors/).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.keys import KEPT_FOR, ends_of, micros, place_of, window_at, window_from
from ionbeam_dagster.stores.ledger.on_redis import CALL, OnRedis
from ionbeam_dagster.stores.ledger.parts import FORGET_ALL_PARTS, FORGET_PARTS
from ionbeam_dagster.stores.ledger.raws import RECORD_SENT, put_sent, sent_record
from ionbeam_dagster.stores.ledger.requests import ANSWER, ANSWER_REQUESTS
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


@dataclass(frozen=True, slots=True)
class Taken:
    """A command whose rows are in the file of a raw partition, which has its id.

    `windows` are those of its source that it touches; `payload` is the name of the file in the payload store that had
    its rows, if one had.
    """

    raw: RawPartition
    windows: Sequence[Window]
    payload: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A window of a source into which `commands` with so many `rows` came, of which Dagster has not been told.

    `last` is the id of the last of them.
    """

    source: str
    window: Window
    commands: int
    rows: int
    last: str


class Commands(Protocol):
    """Remembers commands. Every method is one transaction, and may be called from many processes at once.

    A command is known as long as the ledger has its raw file or its claim, and KEPT_FOR where neither is there any
    longer, because another took its place.
    """

    def take(self, commands: Sequence[Taken], now: datetime) -> None:
        """Remember commands and their raw files, in order, and that Dagster is to be told of them.

        Their parts are forgotten, and whoever asked for their ranges has got an answer. Doing it again changes nothing.
        """
        ...

    def knows(self, id: str, part: int) -> bool:
        """Whether a command, or this part of it, was taken in before."""
        ...

    def note_again(self, id: str, now: datetime) -> None:
        """A command that is known came once more: that answers whoever asked for its range."""
        ...

    def count(self) -> int:
        """How many commands were taken in lately, which is within KEPT_FOR."""
        ...

    def unreported(self, limit: int) -> list[Arrival]:
        """Windows of which Dagster is to be told, oldest first."""
        ...

    def note_reported(self, arrivals: Sequence[Arrival]) -> None:
        """Dagster was told; what came into a window meanwhile is still to be told."""
        ...

    def payloads(self, before: datetime) -> list[tuple[str, str]]:
        """(name, source) of payloads whose rows became raw partitions before then (the last time, if several did)."""
        ...

    def forget_payload(self, name: str) -> None:
        """Forget a payload that is gone."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteCommands(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS taken (
    id TEXT PRIMARY KEY, source TEXT, start INTEGER, end INTEGER, at INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS taken_by_time ON taken (at);
CREATE TABLE IF NOT EXISTS payloads (name TEXT PRIMARY KEY, source TEXT, at INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unreported (
    source TEXT, start INTEGER, end INTEGER, commands INTEGER, rows INTEGER, last TEXT,
    PRIMARY KEY (source, start, end)
) WITHOUT ROWID;
"""

    def take(self, commands: Sequence[Taken], now: datetime) -> None:
        if not commands:
            return
        at = micros(now)
        with self._file.writing() as db:
            put_sent(db, [(one.raw, one.windows) for one in commands])
            for one in commands:
                id, source = one.raw.ingestion, one.raw.source
                ends = (source, *ends_of(one.raw.window))
                new = db.execute("INSERT OR IGNORE INTO taken VALUES (?, ?, ?, ?, ?)", (id, *ends, at)).rowcount
                db.execute(FORGET_PARTS, (id,))
                if one.payload is not None:
                    db.execute("INSERT OR REPLACE INTO payloads VALUES (?, ?, ?)", (one.payload, source, at))
                if new:
                    db.executemany(
                        "INSERT INTO unreported VALUES (?, ?, ?, 1, ?, ?) ON CONFLICT DO UPDATE SET "
                        "commands = commands + 1, rows = rows + excluded.rows, last = excluded.last",
                        [(source, *ends_of(window), one.raw.rows, id) for window in one.windows],
                    )
                db.execute(ANSWER, (at, *ends))
            db.execute("DELETE FROM taken WHERE at < ?", (micros(now - KEPT_FOR),))

    def knows(self, id: str, part: int) -> bool:
        with self._file.reading() as db:
            found = db.execute(
                "SELECT 1 FROM taken WHERE id = ?1 UNION ALL SELECT 1 FROM sent WHERE ingestion = ?1 "
                "UNION ALL SELECT 1 FROM claims WHERE id = ?1 "
                "UNION ALL SELECT 1 FROM parts WHERE id = ?1 AND part = ?2",
                (id, part),
            ).fetchone()
        return found is not None

    def note_again(self, id: str, now: datetime) -> None:
        with self._file.writing(durable=False) as db:
            rows = db.execute("SELECT source, start, end FROM taken WHERE id = ?", (id,)).fetchall()
            db.executemany(ANSWER, [(micros(now), *row) for row in rows])

    def count(self) -> int:
        with self._file.reading() as db:
            return int(db.execute("SELECT count(*) FROM taken").fetchone()[0])

    def unreported(self, limit: int) -> list[Arrival]:
        with self._file.reading() as db:
            rows = db.execute("SELECT * FROM unreported ORDER BY start, end, source LIMIT ?", (limit,)).fetchall()
        return [Arrival(row[0], window_from(row[1], row[2]), *row[3:]) for row in rows]

    def note_reported(self, arrivals: Sequence[Arrival]) -> None:
        with self._file.writing(durable=False) as db:
            db.executemany(
                "DELETE FROM unreported WHERE source = ? AND start = ? AND end = ? AND commands = ? AND last = ?",
                [(one.source, *ends_of(one.window), one.commands, one.last) for one in arrivals],
            )

    def payloads(self, before: datetime) -> list[tuple[str, str]]:
        with self._file.reading() as db:
            rows = db.execute("SELECT name, source FROM payloads WHERE at < ? ORDER BY at, name", (micros(before),))
            return [(name, source) for name, source in rows]

    def forget_payload(self, name: str) -> None:
        with self._file.writing(durable=False) as db:
            db.execute("DELETE FROM payloads WHERE name = ?", (name,))


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:taken                  the ids of commands, by when they were taken in
# ionbeam:taken:ranges           of each "<start> <end> <source>"
# ionbeam:unreported             windows of which Dagster is to be told, as "<window> <source>", by their start
# ionbeam:unreported:arrivals    of each "<commands> <rows> <id of the last>"
# ionbeam:payloads               payloads, by when their rows became a raw partition
# ionbeam:payloads:sources       of each its source

_TAKE = f"""{RECORD_SENT}{FORGET_ALL_PARTS}{ANSWER_REQUESTS}
local now, old = ARGV[2], ARGV[3]
local function report(name, rows, id)
    local known = redis.call('HGET', 'ionbeam:unreported:arrivals', name) or '0 0 '
    local commands, before = known:match('^(%S+) (%S+)')
    redis.call('ZADD', 'ionbeam:unreported', name:match('^[^:]+'), name)
    redis.call('HSET', 'ionbeam:unreported:arrivals', name,
        string.format('%.0f %.0f ', commands + 1, before + rows) .. id)
end
for _, one in ipairs(cjson.decode(ARGV[1])) do
    local id, source, first, last, rows, payload, record, windows = unpack(one)
    record_sent(record, windows)
    forget_parts(id)
    if payload ~= '' then
        redis.call('ZADD', 'ionbeam:payloads', now, payload)
        redis.call('HSET', 'ionbeam:payloads:sources', payload, source)
    end
    if redis.call('ZADD', 'ionbeam:taken', 'NX', now, id) == 1 then
        redis.call('HSET', 'ionbeam:taken:ranges', id, first .. ' ' .. last .. ' ' .. source)
        for _, window in ipairs(windows) do report(window .. ' ' .. source, rows, id) end
    end
    answer(source, first, last, now)
end
for _, gone in ipairs(redis.call('ZRANGE', 'ionbeam:taken', '-inf', '(' .. old, 'BYSCORE')) do
    redis.call('HDEL', 'ionbeam:taken:ranges', gone)
end
redis.call('ZREMRANGEBYSCORE', 'ionbeam:taken', '-inf', '(' .. old)
"""
_KNOWS = """
return redis.call('HEXISTS', 'ionbeam:taken:ranges', ARGV[1]) + redis.call('EXISTS', 'ionbeam:sent:' .. ARGV[1])
    + redis.call('EXISTS', 'ionbeam:claim:' .. ARGV[1]) + redis.call('HEXISTS', 'ionbeam:parts:' .. ARGV[1], ARGV[2])
"""
_NOTE_AGAIN = f"""{ANSWER_REQUESTS}
local range = redis.call('HGET', 'ionbeam:taken:ranges', ARGV[1])
if range then
    local first, last, source = range:match('^(%S+) (%S+) (.*)$')
    answer(source, first, last, ARGV[2])
end
"""
_UNREPORTED = """
local found = {}
for i, name in ipairs(redis.call('ZRANGE', 'ionbeam:unreported', 0, ARGV[1] - 1)) do
    found[i] = {name, needed('HGET', 'ionbeam:unreported:arrivals', name)}
end
return found
"""
_NOTE_REPORTED = """
for i = 1, #ARGV, 3 do
    local known = redis.call('HGET', 'ionbeam:unreported:arrivals', ARGV[i]) or ''
    local commands, last = known:match('^(%S+) %S+ (.*)$')
    if commands == ARGV[i + 1] and last == ARGV[i + 2] then
        redis.call('ZREM', 'ionbeam:unreported', ARGV[i])
        redis.call('HDEL', 'ionbeam:unreported:arrivals', ARGV[i])
    end
end
"""
_PAYLOADS = """
local found = {}
for i, name in ipairs(redis.call('ZRANGE', 'ionbeam:payloads', '-inf', '(' .. ARGV[1], 'BYSCORE')) do
    found[i] = {name, needed('HGET', 'ionbeam:payloads:sources', name)}
end
return found
"""
_FORGET_PAYLOAD = """
redis.call('ZREM', 'ionbeam:payloads', ARGV[1])
redis.call('HDEL', 'ionbeam:payloads:sources', ARGV[1])
"""


class RedisCommands(OnRedis):
    def take(self, commands: Sequence[Taken], now: datetime) -> None:
        if not commands:
            return
        given = [
            (one.raw.ingestion, one.raw.source, *map(str, ends_of(one.raw.window)), one.raw.rows, one.payload or "",
             *sent_record(one.raw, one.windows))
            for one in commands
        ]  # fmt: skip
        self._server.run(_TAKE, json.dumps(given), micros(now), micros(now - KEPT_FOR))

    def knows(self, id: str, part: int) -> bool:
        return bool(self._server.run(_KNOWS, id, part))

    def note_again(self, id: str, now: datetime) -> None:
        self._server.run(_NOTE_AGAIN, id, micros(now))

    def count(self) -> int:
        return int(self._server.run(CALL, "ZCARD", "ionbeam:taken"))

    def unreported(self, limit: int) -> list[Arrival]:
        return [_arrival(*found) for found in self._server.run(_UNREPORTED, limit)]

    def note_reported(self, arrivals: Sequence[Arrival]) -> None:
        told = [part for one in arrivals for part in (f"{place_of(one.window)} {one.source}", one.commands, one.last)]
        self._server.run(_NOTE_REPORTED, *told)

    def payloads(self, before: datetime) -> list[tuple[str, str]]:
        return [(name, source) for name, source in self._server.run(_PAYLOADS, micros(before))]

    def forget_payload(self, name: str) -> None:
        self._server.run(_FORGET_PAYLOAD, name)


def _arrival(name: str, record: str) -> Arrival:
    window, source = name.split(" ", 1)
    commands, rows, last = record.split(" ", 2)
    return Arrival(source, window_at(window), int(commands), int(rows), last)
