"""Requests in the ledger: what clients were asked for, and what clients asked of the platform.

Belongs here: both kinds, and how the first are answered. Does not belong here: replays of what was built
(announcements.py), or the messages (doors/amqp/).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.keys import (
    KEPT_FOR,
    ends_of,
    micros,
    milliseconds,
    moment,
    place_of,
    window_at,
    window_from,
)  # fmt: skip
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite

_FIRST_TIME = 10**12
"""Numbers of requests are times in milliseconds, and larger than this; smaller ones an earlier version gave out."""


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A window that a client was asked for: how often since its last answer, when last, and when it was answered."""

    source: str
    window: Window
    times: int
    last: datetime
    answered: datetime | None


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """A range of a source of the platform's own that a client asked for, from its cache if it said so."""

    number: int
    id: str
    source: str
    range: Window
    use_cache: bool


class Requests(Protocol):
    """Remembers requests. Every method is one transaction, and may be called from many processes at once.

    Requests of clients that were made more than KEPT_FOR ago are forgotten; those of the platform when they were last
    made so long ago.
    """

    def note(self, source: str, window: Window, now: datetime) -> int:
        """Remember that a client is asked for a window now; returns how often it was since its last answer."""
        ...

    def last(self, source: str, window: Window) -> ClientRequest | None:
        """The last request for a window, or for the part of it that had passed; None: there was none."""
        ...

    def unanswered(self, limit: int, source: str | None = None) -> list[ClientRequest]:
        """Windows, of one source or all, that were asked for and did not come, those asked last first."""
        ...

    def add(self, id: str, source: str, range: Window, use_cache: bool, now: datetime) -> None:
        """Remember that a client asked for a range of a source of the platform's own, once for each `id`.

        Numbers only grow, also from a ledger that was lost to the one after it: they are times in milliseconds, or
        follow one.
        """
        ...

    def after(self, number: int, limit: int) -> list[SourceRequest]:
        """The next `limit` requests of clients after a number, in order."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------

ANSWER = "UPDATE requests SET answered = ? WHERE source = ? AND answered IS NULL AND start >= ? AND end <= ?"


class SqliteRequests(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    source TEXT, start INTEGER, end INTEGER, times INTEGER, last INTEGER, answered INTEGER,
    PRIMARY KEY (source, start, end)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS source_requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, source TEXT, start INTEGER, end INTEGER, use_cache INTEGER
);
"""

    def note(self, source: str, window: Window, now: datetime) -> int:
        with self._file.writing() as db:
            row = db.execute(
                "INSERT INTO requests VALUES (?, ?, ?, 1, ?, NULL) ON CONFLICT DO UPDATE SET "
                "times = CASE WHEN answered IS NULL THEN times + 1 ELSE 1 END, last = excluded.last, answered = NULL "
                "RETURNING times",
                (source, *ends_of(window), micros(now)),
            ).fetchone()
            db.execute("DELETE FROM requests WHERE last < ?", (micros(now - KEPT_FOR),))
        return int(row[0])

    def last(self, source: str, window: Window) -> ClientRequest | None:
        with self._file.reading() as db:
            row = db.execute(
                "SELECT * FROM requests WHERE source = ? AND start = ? AND end <= ? ORDER BY last DESC, end DESC "
                "LIMIT 1",
                (source, *ends_of(window)),
            ).fetchone()
        return _client_request(row) if row else None

    def unanswered(self, limit: int, source: str | None = None) -> list[ClientRequest]:
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT * FROM requests WHERE answered IS NULL AND source = ifnull(?, source) "
                "ORDER BY last DESC, source, start, end LIMIT ?",
                (source, limit),
            ).fetchall()
        return [_client_request(row) for row in rows]

    def add(self, id: str, source: str, range: Window, use_cache: bool, now: datetime) -> None:
        with self._file.writing() as db:
            db.execute(
                "INSERT INTO source_requests SELECT max(?, 1 + ifnull((SELECT seq FROM sqlite_sequence WHERE "
                "name = 'source_requests'), 0)), ?, ?, ?, ?, ? "
                "WHERE NOT EXISTS (SELECT 1 FROM source_requests WHERE id = ?)",  # one ignored would use a number up
                (milliseconds(now), id, source, *ends_of(range), use_cache, id),
            )
            db.execute(
                "DELETE FROM source_requests WHERE number BETWEEN ? AND ?",
                (_FIRST_TIME, milliseconds(now - KEPT_FOR)),
            )

    def after(self, number: int, limit: int) -> list[SourceRequest]:
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT * FROM source_requests WHERE number > ? ORDER BY number LIMIT ?", (number, limit)
            ).fetchall()
        return [SourceRequest(row[0], row[1], row[2], window_from(row[3], row[4]), bool(row[5])) for row in rows]


def _client_request(row: tuple[Any, ...]) -> ClientRequest:
    answered = None if row[5] is None else moment(row[5])
    return ClientRequest(row[0], window_from(row[1], row[2]), row[3], moment(row[4]), answered)


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:requests                       windows that clients were asked for, as "<window> <source>", by the last time
# ionbeam:requests:<source>              of each window: "<times> <last> <answered>", in microseconds, or nothing
# ionbeam:requested:<source>             the same windows, by their start
# ionbeam:unanswered:<source>            those that did not come, by their start
# ionbeam:source_requests                the ids of requests of clients, by number
# ionbeam:source_requests:kept           of each id the request as JSON
# ionbeam:source_requests:number         the number given out last

ANSWER_REQUESTS = """
local function answer(source, first, last, now)
    local key = 'ionbeam:unanswered:' .. source
    for _, window in ipairs(redis.call('ZRANGE', key, first, last, 'BYSCORE')) do
        if tonumber(window:match('[^:]+$')) <= tonumber(last) then
            local times, asked = needed('HGET', 'ionbeam:requests:' .. source, window):match('^(%S+) (%S+)')
            redis.call('HSET', 'ionbeam:requests:' .. source, window, times .. ' ' .. asked .. ' ' .. now)
            redis.call('ZREM', key, window)
        end
    end
end
"""
_NOTE = """
local source, window, now, old = unpack(ARGV)
local of, start = 'ionbeam:requests:' .. source, window:match('^[^:]+')
local times = tostring((redis.call('HGET', of, window) or ''):match('^(%d+) %S+ $') or 0) + 1
redis.call('HSET', of, window, times .. ' ' .. now .. ' ')
redis.call('ZADD', 'ionbeam:requests', now, window .. ' ' .. source)
redis.call('ZADD', 'ionbeam:requested:' .. source, start, window)
redis.call('ZADD', 'ionbeam:unanswered:' .. source, start, window)
for _, name in ipairs(redis.call('ZRANGE', 'ionbeam:requests', '-inf', '(' .. old, 'BYSCORE')) do
    local gone, whose = name:match('^(%S+) (.*)$')
    redis.call('HDEL', 'ionbeam:requests:' .. whose, gone)
    redis.call('ZREM', 'ionbeam:requested:' .. whose, gone)
    redis.call('ZREM', 'ionbeam:unanswered:' .. whose, gone)
    redis.call('ZREM', 'ionbeam:requests', name)
end
return times
"""
_LAST = """
local found = {}
for _, window in ipairs(redis.call('ZRANGE', 'ionbeam:requested:' .. ARGV[1], ARGV[2], ARGV[2], 'BYSCORE')) do
    found[#found + 1] = {ARGV[1], window, needed('HGET', 'ionbeam:requests:' .. ARGV[1], window)}
end
return found
"""
_UNANSWERED = """
local found = {}
for _, name in ipairs(redis.call('ZRANGE', 'ionbeam:requests', 0, -1, 'REV')) do
    local window, source = name:match('^(%S+) (.*)$')
    if (ARGV[1] == '' or ARGV[1] == source) and redis.call('ZSCORE', 'ionbeam:unanswered:' .. source, window) then
        found[#found + 1] = {source, window, needed('HGET', 'ionbeam:requests:' .. source, window)}
    end
end
return found
"""
_ADD = """
local id, record, now, first, old = unpack(ARGV)
if redis.call('HSETNX', 'ionbeam:source_requests:kept', id, record) == 1 then
    local last = redis.call('GET', 'ionbeam:source_requests:number') or 0
    local number = string.format('%.0f', math.max(tonumber(now), last + 1))
    redis.call('SET', 'ionbeam:source_requests:number', number)
    redis.call('ZADD', 'ionbeam:source_requests', number, id)
end
for _, gone in ipairs(redis.call('ZRANGE', 'ionbeam:source_requests', first, old, 'BYSCORE')) do
    redis.call('ZREM', 'ionbeam:source_requests', gone)
    redis.call('HDEL', 'ionbeam:source_requests:kept', gone)
end
"""
_AFTER = """
local found = {}
local ids = redis.call('ZRANGE', 'ionbeam:source_requests', '(' .. ARGV[1], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2])
for i, id in ipairs(ids) do
    local number = string.format('%.0f', redis.call('ZSCORE', 'ionbeam:source_requests', id))
    found[i] = {number, id, needed('HGET', 'ionbeam:source_requests:kept', id)}
end
return found
"""


class RedisRequests(OnRedis):
    def note(self, source: str, window: Window, now: datetime) -> int:
        return int(self._server.run_once(_NOTE, source, place_of(window), micros(now), micros(now - KEPT_FOR)))

    def last(self, source: str, window: Window) -> ClientRequest | None:
        found = (_read(*one) for one in self._server.run(_LAST, source, micros(window.start)))
        within = (one for one in found if one.window.end <= window.end)
        return max(within, key=lambda one: (one.last, one.window.end), default=None)

    def unanswered(self, limit: int, source: str | None = None) -> list[ClientRequest]:
        found = (_read(*one) for one in self._server.run(_UNANSWERED, source or ""))
        return sorted(found, key=lambda one: (-micros(one.last), one.source, one.window))[:limit]

    def add(self, id: str, source: str, range: Window, use_cache: bool, now: datetime) -> None:
        record = json.dumps([source, place_of(range), use_cache])
        self._server.run(_ADD, id, record, milliseconds(now), _FIRST_TIME, milliseconds(now - KEPT_FOR))

    def after(self, number: int, limit: int) -> list[SourceRequest]:
        found = []
        for given, id, record in self._server.run(_AFTER, number, limit):
            source, range, use_cache = json.loads(record)
            found.append(SourceRequest(int(given), id, source, window_at(range), use_cache))
        return found


def _read(source: str, window: str, record: str) -> ClientRequest:
    times, last, answered = record.split(" ")
    return ClientRequest(
        source, window_at(window), int(times), moment(int(last)), moment(int(answered)) if answered else None
    )
