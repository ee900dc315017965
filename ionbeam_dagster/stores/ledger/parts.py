"""Parts of commands in the ledger.

Belongs here: the parts that are durable, and wait for the others of their command. Does not belong here: their files
(stores/parts.py), or commands that are whole (commands.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Protocol

from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


@dataclass(frozen=True, slots=True)
class Part:
    """Part number `part`, from 1 on, of the `parts` messages of the command `id` of `source`, in the file `path`.

    `common` stands for all that they must say alike.
    """

    id: str
    part: int
    parts: int
    common: str
    source: str
    path: str


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A command of `source` of which only `there` of its `parts` are there."""

    id: str
    source: str
    there: int
    parts: int


class Parts(Protocol):
    """Remembers parts. Every method is one transaction, and may be called from many processes at once."""

    def add(self, parts: Sequence[Part]) -> None:
        """Remember parts that are durable."""
        ...

    def forget(self, id: str, part: int) -> None:
        """Forget a part that turned out not to belong to the others."""
        ...

    def of(self, id: str) -> list[Part]:
        """The parts of a command that are there, in order."""
        ...

    def files(self) -> set[str]:
        """The files of all parts that wait for others."""
        ...

    def unfinished(self) -> list[Unfinished]:
        """Commands of which parts are missing, in order of their ids."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------

FORGET_PARTS = "DELETE FROM parts WHERE id = ?"


class SqliteParts(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS parts (
    id TEXT, part INTEGER, parts INTEGER, common TEXT, source TEXT, path TEXT, PRIMARY KEY (id, part)
) WITHOUT ROWID;
"""

    def add(self, parts: Sequence[Part]) -> None:
        if parts:
            with self._file.writing() as db:
                db.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?)", map(astuple, parts))

    def forget(self, id: str, part: int) -> None:
        with self._file.writing() as db:
            db.execute(f"{FORGET_PARTS} AND part = ?", (id, part))

    def of(self, id: str) -> list[Part]:
        with self._file.reading() as db:
            rows = db.execute("SELECT * FROM parts WHERE id = ? ORDER BY part", (id,)).fetchall()
        return [Part(*row) for row in rows]

    def files(self) -> set[str]:
        with self._file.reading() as db:
            return {row[0] for row in db.execute("SELECT path FROM parts")}

    def unfinished(self) -> list[Unfinished]:
        with self._file.reading() as db:
            rows = db.execute("SELECT id, source, count(*), max(parts) FROM parts GROUP BY id ORDER BY id").fetchall()
        return [Unfinished(*row) for row in rows]


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:parts          the commands of which parts are missing
# ionbeam:parts:<id>     each part of one that is there, as JSON

FORGET_ALL_PARTS = """
local function forget_parts(id)
    redis.call('DEL', 'ionbeam:parts:' .. id)
    redis.call('SREM', 'ionbeam:parts', id)
end
"""
_ADD = """
for _, one in ipairs(cjson.decode(ARGV[1])) do
    redis.call('HSET', 'ionbeam:parts:' .. one[1], one[2], one[3])
    redis.call('SADD', 'ionbeam:parts', one[1])
end
"""
_FORGET = """
redis.call('HDEL', 'ionbeam:parts:' .. ARGV[1], ARGV[2])
if redis.call('EXISTS', 'ionbeam:parts:' .. ARGV[1]) == 0 then redis.call('SREM', 'ionbeam:parts', ARGV[1]) end
"""
_OF = "return redis.call('HVALS', 'ionbeam:parts:' .. ARGV[1])"
_ALL = """
local found = {}
for _, id in ipairs(redis.call('SMEMBERS', 'ionbeam:parts')) do
    for _, record in ipairs(redis.call('HVALS', 'ionbeam:parts:' .. id)) do found[#found + 1] = record end
end
return found
"""


class RedisParts(OnRedis):
    def add(self, parts: Sequence[Part]) -> None:
        if parts:
            self._server.run(_ADD, json.dumps([(one.id, str(one.part), json.dumps(astuple(one))) for one in parts]))

    def forget(self, id: str, part: int) -> None:
        self._server.run(_FORGET, id, part)

    def of(self, id: str) -> list[Part]:
        return _read(self._server.run(_OF, id))

    def files(self) -> set[str]:
        return {part.path for part in _read(self._server.run(_ALL))}

    def unfinished(self) -> list[Unfinished]:
        commands: dict[str, list[Part]] = {}
        for part in _read(self._server.run(_ALL)):
            commands.setdefault(part.id, []).append(part)
        return [Unfinished(id, of[0].source, len(of), max(one.parts for one in of)) for id, of in commands.items()]


def _read(records: Sequence[str]) -> list[Part]:
    parts = (Part(*json.loads(record)) for record in records)
    return sorted(parts, key=lambda part: (part.id, part.part))
