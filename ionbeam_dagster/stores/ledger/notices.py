"""Notices in the ledger: which files others were told of, and which they are still to be told of.

Belongs here: the latest notice of each file. Does not belong here: the message (wis2/notification.py), or who tells it
(wis2/telling.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ionbeam_dagster.stores.ledger.keys import micros, moment
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


@dataclass(frozen=True, slots=True)
class Notice:
    """The message on revision `number` of `data_id`, a file with this `hash`; it is one `of` a dataset and format.

    `relation` is what it says (canonical, update, deletion), `place` the location of the message, `made` when it was
    made, and `told` when the broker had it (None: not yet). `number` is 0 where its file is gone, and is given anew.
    """

    data_id: str
    of: str
    message_id: str
    number: int
    hash: str
    relation: str
    place: str
    made: datetime
    told: datetime | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many files others were told of, how many they are still to be told of, and when that was done last."""

    told: int = 0
    open: int = 0
    last: datetime | None = None


class Notices(Protocol):
    """Remembers notices. Every method is one transaction, and may be called from many processes at once."""

    def keep(self, notice: Notice) -> None:
        """Remember a notice in the place of the earlier one on its file."""
        ...

    def on(self, data_ids: Sequence[str]) -> dict[str, Notice]:
        """The latest notices on these files, by `data_id`, of those on which there is one."""
        ...

    def open(self) -> list[Notice]:
        """Those that are not told yet, in the order in which they were made."""
        ...

    def note_told(self, notice: Notice, now: datetime) -> None:
        """The broker has it. Nothing happens where another one took its place."""
        ...

    def tally(self, of: str) -> Tally:
        """How many there are of a dataset and format."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------

_COLUMNS = "data_id, of_what, message_id, number, hash, relation, place, made, told"


class SqliteNotices(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS notices (
    data_id TEXT PRIMARY KEY, of_what TEXT, message_id TEXT, number INTEGER, hash TEXT, relation TEXT, place TEXT,
    made INTEGER, told INTEGER
) WITHOUT ROWID;
"""
    INDICES = """
CREATE INDEX IF NOT EXISTS notices_open ON notices (made, data_id) WHERE told IS NULL;
CREATE INDEX IF NOT EXISTS notices_of ON notices (of_what, told);
"""

    def keep(self, notice: Notice) -> None:
        told = None if notice.told is None else micros(notice.told)
        with self._file.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO notices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (notice.data_id, notice.of, notice.message_id, notice.number, notice.hash, notice.relation,
                 notice.place, micros(notice.made), told),
            )  # fmt: skip

    def on(self, data_ids: Sequence[str]) -> dict[str, Notice]:
        with self._file.reading() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM notices WHERE data_id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(data_ids)),),
            ).fetchall()
        return {row[0]: _of_row(row) for row in rows}

    def open(self) -> list[Notice]:
        with self._file.reading() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM notices WHERE told IS NULL ORDER BY made, data_id").fetchall()
        return [_of_row(row) for row in rows]

    def note_told(self, notice: Notice, now: datetime) -> None:
        with self._file.writing() as db:
            db.execute(
                "UPDATE notices SET told = ? WHERE data_id = ? AND message_id = ?",
                (micros(now), notice.data_id, notice.message_id),
            )

    def tally(self, of: str) -> Tally:
        with self._file.reading() as db:
            told, every, last = db.execute(
                "SELECT count(told), count(*), max(told) FROM notices WHERE of_what = ?", (of,)
            ).fetchone()
        return Tally(told, every - told, None if last is None else moment(last))


def _of_row(row: tuple[Any, ...]) -> Notice:
    data_id, of, message_id, number, hash, relation, place, made, told = row
    when = None if told is None else moment(told)
    return Notice(data_id, of, message_id, number, hash, relation, place, moment(made), when)


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:notices                  the latest on each file: "<message id> <of> <JSON>"
#     ionbeam:notices:open             the files of those that are not told yet, by when they were made
#     ionbeam:notices:open:<of>        the same of a dataset and format
#     ionbeam:notices:told:<of>        the files of those that are, by when they were told

_KEEP = """
local id, of, record, made, told = unpack(ARGV)
redis.call('HSET', 'ionbeam:notices', id, record)
if told == '' then
    redis.call('ZREM', 'ionbeam:notices:told:' .. of, id)
    redis.call('ZADD', 'ionbeam:notices:open', made, id)
    redis.call('ZADD', 'ionbeam:notices:open:' .. of, made, id)
else
    redis.call('ZREM', 'ionbeam:notices:open', id)
    redis.call('ZREM', 'ionbeam:notices:open:' .. of, id)
    redis.call('ZADD', 'ionbeam:notices:told:' .. of, told, id)
end
"""
_GIVEN = """
local function given(id)
    local record = redis.call('HGET', 'ionbeam:notices', id)
    if not record then return {id, '', ''} end
    local of = record:match('^%S+ (%S+)')
    local told = redis.call('ZSCORE', 'ionbeam:notices:told:' .. of, id)
    return {id, record, told and string.format('%.0f', told) or ''}
end
"""
_ON = (
    _GIVEN
    + """
local found = {}
for i, id in ipairs(ARGV) do found[i] = given(id) end
return found
"""
)
_OPEN = (
    _GIVEN
    + """
local found = {}
for i, id in ipairs(redis.call('ZRANGE', 'ionbeam:notices:open', 0, -1)) do found[i] = given(id) end
return found
"""
)
_NOTE_TOLD = """
local id, of, message, now = unpack(ARGV)
local record = redis.call('HGET', 'ionbeam:notices', id)
if record and record:match('^%S+') == message then
    redis.call('ZREM', 'ionbeam:notices:open', id)
    redis.call('ZREM', 'ionbeam:notices:open:' .. of, id)
    redis.call('ZADD', 'ionbeam:notices:told:' .. of, now, id)
end
"""
_TALLY = """
local told, open = 'ionbeam:notices:told:' .. ARGV[1], 'ionbeam:notices:open:' .. ARGV[1]
local last = redis.call('ZRANGE', told, -1, -1, 'WITHSCORES')[2]
return {redis.call('ZCARD', told), redis.call('ZCARD', open), last and string.format('%.0f', last) or ''}
"""


class RedisNotices(OnRedis):
    def keep(self, notice: Notice) -> None:
        facts = json.dumps([notice.number, notice.hash, notice.relation, notice.place, micros(notice.made)])
        record = f"{notice.message_id} {notice.of} {facts}"
        told = "" if notice.told is None else micros(notice.told)
        self._server.run(_KEEP, notice.data_id, notice.of, record, micros(notice.made), told)

    def on(self, data_ids: Sequence[str]) -> dict[str, Notice]:
        return {found[0]: _of_record(*found) for found in self._server.run(_ON, *data_ids) if found[1]}

    def open(self) -> list[Notice]:
        return [_of_record(*found) for found in self._server.run(_OPEN)]

    def note_told(self, notice: Notice, now: datetime) -> None:
        self._server.run(_NOTE_TOLD, notice.data_id, notice.of, notice.message_id, micros(now))

    def tally(self, of: str) -> Tally:
        told, still_open, last = self._server.run(_TALLY, of)
        return Tally(int(told), int(still_open), moment(int(last)) if last else None)


def _of_record(data_id: str, record: str, told: str) -> Notice:
    message_id, of, facts = record.split(" ", 2)
    number, hash, relation, place, made = json.loads(facts)
    when = moment(int(told)) if told else None
    return Notice(data_id, of, message_id, number, hash, relation, place, moment(made), when)
