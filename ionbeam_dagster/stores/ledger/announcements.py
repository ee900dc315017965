"""Announcements in the ledger: how far its feed was published, and what exporters want once more.

Belongs here: both. Does not belong here: the feed itself (feed.py), or the messages (doors/amqp/outbox.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ionbeam_dagster.stores.ledger.keys import KEPT_FOR, micros
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay that an exporter asked for: its `command` as JSON, and how many of its windows are `sent`."""

    id: str
    command: str
    sent: int


class Announcements(Protocol):
    """Remembers what was announced. Every method is one transaction, and may be called from many processes at once."""

    def announced(self) -> int:
        """The number of the feed up to which everything was published; 0: nothing was."""
        ...

    def note_announced(self, number: int) -> None:
        """Everything up to `number` was published; that it was is never taken back. A power cut may set it back: what
        it stands for is then published again."""
        ...

    def add_replay(self, id: str, command: str, now: datetime) -> None:
        """Remember that an exporter wants what was built before, once for each `id`.

        Those that were asked for more than KEPT_FOR ago, and are done, are forgotten.
        """
        ...

    def next_replay(self) -> Replay | None:
        """The oldest replay that is not done."""
        ...

    def note_replayed(self, id: str, sent: int, done: bool) -> None:
        """So many windows of a replay are sent; once it is done, it stays done."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteAnnouncements(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS announced (only INTEGER PRIMARY KEY CHECK (only = 1), number INTEGER);
CREATE TABLE IF NOT EXISTS replays (
    id TEXT PRIMARY KEY, command TEXT, sent INTEGER, done INTEGER, at INTEGER
) WITHOUT ROWID;
"""

    def announced(self) -> int:
        with self._file.reading() as db:
            row = db.execute("SELECT number FROM announced").fetchone()
        return int(row[0]) if row else 0

    def note_announced(self, number: int) -> None:
        with self._file.writing(durable=False) as db:
            db.execute(
                "INSERT INTO announced VALUES (1, ?) ON CONFLICT DO UPDATE SET number = max(number, excluded.number)",
                (number,),
            )

    def add_replay(self, id: str, command: str, now: datetime) -> None:
        with self._file.writing() as db:
            db.execute("INSERT OR IGNORE INTO replays VALUES (?, ?, 0, 0, ?)", (id, command, micros(now)))
            db.execute("DELETE FROM replays WHERE done AND at < ?", (micros(now - KEPT_FOR),))

    def next_replay(self) -> Replay | None:
        with self._file.reading() as db:
            row = db.execute("SELECT id, command, sent FROM replays WHERE NOT done ORDER BY at, id LIMIT 1").fetchone()
        return Replay(*row) if row else None

    def note_replayed(self, id: str, sent: int, done: bool) -> None:
        with self._file.writing(durable=done) as db:
            db.execute("UPDATE replays SET sent = ?, done = max(done, ?) WHERE id = ?", (sent, done, id))


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:announced            the number of the feed up to which everything was published
# ionbeam:replays              replays, by when they were asked for
# ionbeam:replays:open         those of them that are not done
# ionbeam:replays:commands     of each its command
# ionbeam:replays:sent         of each how many windows were sent, if any were

_ANNOUNCED = "return redis.call('GET', 'ionbeam:announced')"
_NOTE_ANNOUNCED = """
if tonumber(ARGV[1]) > tonumber(redis.call('GET', 'ionbeam:announced') or 0) then
    redis.call('SET', 'ionbeam:announced', ARGV[1])
end
"""
_ADD_REPLAY = """
local id, command, now, old = unpack(ARGV)
if redis.call('HSETNX', 'ionbeam:replays:commands', id, command) == 1 then
    redis.call('ZADD', 'ionbeam:replays', now, id)
    redis.call('ZADD', 'ionbeam:replays:open', now, id)
end
for _, gone in ipairs(redis.call('ZRANGE', 'ionbeam:replays', '-inf', '(' .. old, 'BYSCORE')) do
    if not redis.call('ZSCORE', 'ionbeam:replays:open', gone) then
        redis.call('ZREM', 'ionbeam:replays', gone)
        redis.call('HDEL', 'ionbeam:replays:commands', gone)
        redis.call('HDEL', 'ionbeam:replays:sent', gone)
    end
end
"""
_NEXT_REPLAY = """
local id = redis.call('ZRANGE', 'ionbeam:replays:open', 0, 0)[1]
if not id then return {} end
local command = needed('HGET', 'ionbeam:replays:commands', id)
return {id, command, redis.call('HGET', 'ionbeam:replays:sent', id) or '0'}
"""
_NOTE_REPLAYED = """
local id, sent, done = unpack(ARGV)
if redis.call('HEXISTS', 'ionbeam:replays:commands', id) == 1 then
    redis.call('HSET', 'ionbeam:replays:sent', id, sent)
    if done == '1' then redis.call('ZREM', 'ionbeam:replays:open', id) end
end
"""


class RedisAnnouncements(OnRedis):
    def announced(self) -> int:
        return int(self._server.run(_ANNOUNCED) or 0)

    def note_announced(self, number: int) -> None:
        self._server.run(_NOTE_ANNOUNCED, number)

    def add_replay(self, id: str, command: str, now: datetime) -> None:
        self._server.run(_ADD_REPLAY, id, command, micros(now), micros(now - KEPT_FOR))

    def next_replay(self) -> Replay | None:
        found = self._server.run(_NEXT_REPLAY)
        return Replay(found[0], found[1], int(found[2])) if found else None

    def note_replayed(self, id: str, sent: int, done: bool) -> None:
        self._server.run(_NOTE_REPLAYED, id, sent, int(done))
