"""Leases: who works on what, so that nobody else on any host does it at the same time.

Belongs here: their names, taking them, and how SQLite and Redis keep them. Does not belong here: when a holder is dead
(orchestration/dead_runs.py says so by having it leave workers.py), or the lock of a window's files (holding.py).

A lease has no end of its own: it is free as soon as its holder is no longer among the workers. A holder's name is used
once (a run's id), so that it is a fencing token: who was believed dead, and was not, finds that the lease is another's.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Protocol

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


def lease_of(stage: str, of: str, window: Window) -> str:
    """The name of the lease of one window of a product."""
    return f"{stage} {of} {window.key}"


def is_held(held: Container[str], stage: str, of: str, window: Window) -> bool:
    """Whether somebody works on a window of a product, or on that which it is made of: the same run goes on with it."""
    names = [lease_of(stage, of, window)]
    if stage == "ingest":
        names.append(lease_of("collect", of, window))
    elif stage == "export":
        names.append(lease_of("build", of.partition("/")[0], window))
    return any(name in held for name in names)


class Leases(Protocol):
    """Remembers who works on what. Every method is one transaction, and may be called from many processes at once."""

    def take(self, names: Sequence[str], holder: str) -> list[str]:
        """Take what is free, or held by one who is no worker any longer; gives those of `names` that `holder` has
        now. The holder's heart has to beat already."""
        ...

    def give_back(self, names: Sequence[str], holder: str) -> None:
        """Free those of `names` that `holder` has."""
        ...

    def held(self) -> Mapping[str, str]:
        """The holder of each lease that one of the workers has."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteLeases(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS leases (name TEXT PRIMARY KEY, holder TEXT) WITHOUT ROWID;
"""

    def take(self, names: Sequence[str], holder: str) -> list[str]:
        with self._file.writing() as db:
            db.executemany(
                "INSERT INTO leases VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET holder = excluded.holder"
                " WHERE leases.holder NOT IN (SELECT holder FROM workers)",
                [(name, holder) for name in names],
            )
            query = "SELECT 1 FROM leases WHERE name = ? AND holder = ?"
            return [name for name in names if db.execute(query, (name, holder)).fetchone()]

    def give_back(self, names: Sequence[str], holder: str) -> None:
        with self._file.writing() as db:
            query = "DELETE FROM leases WHERE name = ? AND holder = ?"
            db.executemany(query, [(name, holder) for name in names])

    def held(self) -> Mapping[str, str]:
        with self._file.reading() as db:
            return dict(db.execute("SELECT name, holder FROM leases WHERE holder IN (SELECT holder FROM workers)"))


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:leases         of each lease its holder

_TAKE = """
local taken = {}
for i = 2, #ARGV do
    local holder = redis.call('HGET', 'ionbeam:leases', ARGV[i])
    if not holder or redis.call('HEXISTS', 'ionbeam:workers', holder) == 0 then
        redis.call('HSET', 'ionbeam:leases', ARGV[i], ARGV[1])
        holder = ARGV[1]
    end
    if holder == ARGV[1] then taken[#taken + 1] = ARGV[i] end
end
return taken
"""
_GIVE_BACK = """
for i = 2, #ARGV do
    if redis.call('HGET', 'ionbeam:leases', ARGV[i]) == ARGV[1] then redis.call('HDEL', 'ionbeam:leases', ARGV[i]) end
end
"""
_HELD = """
local found, known = {}, redis.call('HGETALL', 'ionbeam:leases')
for i = 1, #known, 2 do
    if redis.call('HEXISTS', 'ionbeam:workers', known[i + 1]) == 1 then
        found[#found + 1] = known[i]
        found[#found + 1] = known[i + 1]
    end
end
return found
"""


class RedisLeases(OnRedis):
    def take(self, names: Sequence[str], holder: str) -> list[str]:
        return list(self._server.run(_TAKE, holder, *names))

    def give_back(self, names: Sequence[str], holder: str) -> None:
        self._server.run(_GIVE_BACK, holder, *names)

    def held(self) -> Mapping[str, str]:
        found = self._server.run(_HELD)
        return dict(zip(found[::2], found[1::2], strict=True))
