"""Refusals in the ledger: messages that are in a dead queue, and who sends what the platform does not take.

Belongs here: why messages were refused, what a person accepted of them, and counts of what is only told. Does not
belong here: the messages themselves, which the broker keeps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ionbeam_dagster.stores.ledger.keys import micros, moment
from ionbeam_dagster.stores.ledger.on_redis import CALL, OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite

REFUSALS_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message in the dead queue of `queue`, and why."""

    queue: str
    message_id: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class TooEarly:
    """`commands` of a source had ranges that begin before it, the earliest at `first`; the last one came at `at`."""

    source: str
    commands: int
    first: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Stranger:
    """A user who may not send `source`, and sent so many messages for it, the last one at `at`."""

    source: str
    sender: str
    messages: int
    at: datetime


class Refusals(Protocol):
    """Remembers refusals. Every method is one transaction, and may be called from many processes at once."""

    def add(self, refusals: Sequence[Refusal]) -> None:
        """Remember messages that are in a dead queue; the newest REFUSALS_KEPT are kept."""
        ...

    def newest(self, limit: int) -> list[Refusal]:
        """The newest refusals, newest first."""
        ...

    def forget(self, message_ids: Iterable[str]) -> None:
        """Forget refusals: these messages were sent back, and have been taken in."""
        ...

    def accept(self, dataset: str) -> None:
        """Remember that what was parked of a dataset is to be taken in by the first process whose YAML knows it."""
        ...

    def accepted(self) -> list[str]:
        """The datasets that were accepted, and of which what is parked was not sent back yet, in order."""
        ...

    def sent_back(self, dataset: str) -> None:
        """What was parked of a dataset is in its queue again."""
        ...

    def note_too_early(self, source: str, start: datetime, now: datetime) -> None:
        """Count a command with a range that begins before its source does."""
        ...

    def too_early(self) -> list[TooEarly]:
        """Sources of which commands began too early, in order."""
        ...

    def note_stranger(self, source: str, sender: str, now: datetime) -> None:
        """Count a message for `source` from a user who may not send it."""
        ...

    def strangers(self, limit: int) -> list[Stranger]:
        """Users who sent what they may not, the last first."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteRefusals(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS refused (
    number INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT, message_id TEXT, reason TEXT, at INTEGER
);
CREATE TABLE IF NOT EXISTS accepted (dataset TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS too_early (
    source TEXT PRIMARY KEY, commands INTEGER, first INTEGER, at INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS strangers (
    source TEXT, sender TEXT, messages INTEGER, at INTEGER, PRIMARY KEY (source, sender)
) WITHOUT ROWID;
"""

    def add(self, refusals: Sequence[Refusal]) -> None:
        with self._file.writing(durable=False) as db:
            db.executemany(
                "INSERT INTO refused (queue, message_id, reason, at) VALUES (?, ?, ?, ?)",
                [(one.queue, one.message_id, one.reason, micros(one.at)) for one in refusals],
            )
            db.execute(
                "DELETE FROM refused WHERE number <= "
                "(SELECT number FROM refused ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (REFUSALS_KEPT,),
            )

    def newest(self, limit: int) -> list[Refusal]:
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT queue, message_id, reason, at FROM refused ORDER BY number DESC LIMIT ?", (limit,)
            ).fetchall()
        return [Refusal(queue, id, reason, moment(at)) for queue, id, reason, at in rows]

    def forget(self, message_ids: Iterable[str]) -> None:
        with self._file.writing(durable=False) as db:
            db.executemany("DELETE FROM refused WHERE message_id = ?", [(id,) for id in message_ids])

    def accept(self, dataset: str) -> None:
        with self._file.writing() as db:
            db.execute("INSERT OR IGNORE INTO accepted VALUES (?)", (dataset,))

    def accepted(self) -> list[str]:
        with self._file.reading() as db:
            return [row[0] for row in db.execute("SELECT dataset FROM accepted ORDER BY dataset")]

    def sent_back(self, dataset: str) -> None:
        with self._file.writing() as db:
            db.execute("DELETE FROM accepted WHERE dataset = ?", (dataset,))

    def note_too_early(self, source: str, start: datetime, now: datetime) -> None:
        with self._file.writing(durable=False) as db:
            db.execute(
                "INSERT INTO too_early VALUES (?, 1, ?, ?) ON CONFLICT DO UPDATE SET commands = commands + 1, "
                "first = min(first, excluded.first), at = excluded.at",
                (source, micros(start), micros(now)),
            )

    def too_early(self) -> list[TooEarly]:
        with self._file.reading() as db:
            rows = db.execute("SELECT * FROM too_early ORDER BY source").fetchall()
        return [TooEarly(source, commands, moment(first), moment(at)) for source, commands, first, at in rows]

    def note_stranger(self, source: str, sender: str, now: datetime) -> None:
        with self._file.writing(durable=False) as db:
            db.execute(
                "INSERT INTO strangers VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE SET messages = messages + 1, "
                "at = excluded.at",
                (source, sender, micros(now)),
            )

    def strangers(self, limit: int) -> list[Stranger]:
        with self._file.reading() as db:
            rows = db.execute("SELECT * FROM strangers ORDER BY at DESC, source, sender LIMIT ?", (limit,)).fetchall()
        return [Stranger(source, sender, messages, moment(at)) for source, sender, messages, at in rows]


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:refused                  the newest refusals as JSON, newest first
# ionbeam:accepted                 the datasets that were accepted
# ionbeam:too_early                of each source "<commands> <first> <at>", in microseconds
# ionbeam:strangers                of each source and sender, as JSON, "<messages> <at>"

_ADD = """
local refusals = cjson.decode(ARGV[1])
for _, one in ipairs(refusals) do redis.call('LPUSH', 'ionbeam:refused', one) end
redis.call('LTRIM', 'ionbeam:refused', 0, ARGV[2] - 1)
"""
_FORGET = """
local gone = {}
for _, id in ipairs(ARGV) do gone[id] = true end
for _, one in ipairs(redis.call('LRANGE', 'ionbeam:refused', 0, -1)) do
    if gone[cjson.decode(one)[2]] then redis.call('LREM', 'ionbeam:refused', 0, one) end
end
"""
_NOTE_TOO_EARLY = """
local source, start, now = unpack(ARGV)
local commands, first = (redis.call('HGET', 'ionbeam:too_early', source) or ''):match('^(%S+) (%S+)')
if not first or tonumber(start) < tonumber(first) then first = start end
redis.call('HSET', 'ionbeam:too_early', source, (commands or 0) + 1 .. ' ' .. first .. ' ' .. now)
"""
_NOTE_STRANGER = """
local messages = (redis.call('HGET', 'ionbeam:strangers', ARGV[1]) or ''):match('^%S+') or 0
redis.call('HSET', 'ionbeam:strangers', ARGV[1], messages + 1 .. ' ' .. ARGV[2])
"""


class RedisRefusals(OnRedis):
    def add(self, refusals: Sequence[Refusal]) -> None:
        records = [json.dumps([one.queue, one.message_id, one.reason, micros(one.at)]) for one in refusals]
        self._server.run_once(_ADD, json.dumps(records), REFUSALS_KEPT)

    def newest(self, limit: int) -> list[Refusal]:
        found = self._server.run(CALL, "LRANGE", "ionbeam:refused", 0, limit - 1) if limit else []
        told = (json.loads(record) for record in found)
        return [Refusal(queue, id, reason, moment(at)) for queue, id, reason, at in told]

    def forget(self, message_ids: Iterable[str]) -> None:
        self._server.run(_FORGET, *message_ids)

    def accept(self, dataset: str) -> None:
        self._server.run(CALL, "SADD", "ionbeam:accepted", dataset)

    def accepted(self) -> list[str]:
        return sorted(self._server.run(CALL, "SMEMBERS", "ionbeam:accepted"))

    def sent_back(self, dataset: str) -> None:
        self._server.run(CALL, "SREM", "ionbeam:accepted", dataset)

    def note_too_early(self, source: str, start: datetime, now: datetime) -> None:
        self._server.run_once(_NOTE_TOO_EARLY, source, micros(start), micros(now))

    def too_early(self) -> list[TooEarly]:
        found = []
        for source, record in self._all("ionbeam:too_early"):
            commands, first, at = map(int, record.split())
            found.append(TooEarly(source, commands, moment(first), moment(at)))
        return sorted(found, key=lambda one: one.source)

    def note_stranger(self, source: str, sender: str, now: datetime) -> None:
        self._server.run_once(_NOTE_STRANGER, json.dumps([source, sender]), micros(now))

    def strangers(self, limit: int) -> list[Stranger]:
        found = []
        for name, record in self._all("ionbeam:strangers"):
            messages, at = map(int, record.split())
            source, sender = json.loads(name)
            found.append(Stranger(source, sender, messages, moment(at)))
        return sorted(found, key=lambda one: (-micros(one.at), one.source, one.sender))[:limit]

    def _all(self, key: str) -> Iterable[tuple[str, str]]:
        flat = self._server.run(CALL, "HGETALL", key)
        return zip(flat[::2], flat[1::2], strict=True)
