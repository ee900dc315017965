"""Workers: who is doing something now, and whether it is still alive.

Belongs here: the heartbeats of processes, and how SQLite and Redis keep them. Does not belong here: for how long
somebody may be silent, or what follows from that (orchestration/dead_runs.py).

A heartbeat is a number that the next one raises, and no time: clocks of two machines differ, and step. Whoever wants to
know whether somebody is alive looks twice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


@dataclass(frozen=True, slots=True)
class Worker:
    """`holder` is doing something in a process of a host; `beats` is another number after the next heartbeat."""

    holder: str
    host: str
    process: int
    doing: str
    beats: int


class Workers(Protocol):
    """Remembers who is alive. Every method is one transaction, and may be called from many processes at once."""

    def beat(self, holder: str, host: str, process: int, doing: str) -> None:
        """One more heartbeat of `holder`."""
        ...

    def leave(self, holder: str) -> None:
        """Forget `holder`, whose work has ended."""
        ...

    def present(self) -> list[Worker]:
        """All who have not left, dead or alive, in order of their names."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteWorkers(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS workers (
    holder TEXT PRIMARY KEY, host TEXT, process INTEGER, doing TEXT, beats INTEGER
) WITHOUT ROWID;
"""

    def beat(self, holder: str, host: str, process: int, doing: str) -> None:
        with self._file.writing() as db:
            db.execute(
                "INSERT INTO workers VALUES (?, ?, ?, ?, 1) ON CONFLICT (holder) DO UPDATE SET"
                " host = excluded.host, process = excluded.process, doing = excluded.doing, beats = beats + 1",
                (holder, host, process, doing),
            )

    def leave(self, holder: str) -> None:
        with self._file.writing() as db:
            db.execute("DELETE FROM workers WHERE holder = ?", (holder,))

    def present(self) -> list[Worker]:
        with self._file.reading() as db:
            return [Worker(*row) for row in db.execute("SELECT * FROM workers ORDER BY holder").fetchall()]


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:workers        of each holder its host, process and what it does, as JSON
# ionbeam:beats          of each holder how often its heart has beaten

_BEAT = """
redis.call('HSET', 'ionbeam:workers', ARGV[1], ARGV[2])
redis.call('HINCRBY', 'ionbeam:beats', ARGV[1], 1)
"""
_LEAVE = """
redis.call('HDEL', 'ionbeam:workers', ARGV[1])
redis.call('HDEL', 'ionbeam:beats', ARGV[1])
"""
_PRESENT = """
local found, known = {}, redis.call('HGETALL', 'ionbeam:workers')
for i = 1, #known, 2 do
    found[#found + 1] = {known[i], known[i + 1], needed('HGET', 'ionbeam:beats', known[i])}
end
return found
"""


class RedisWorkers(OnRedis):
    def beat(self, holder: str, host: str, process: int, doing: str) -> None:
        self._server.run(_BEAT, holder, json.dumps([host, process, doing]))

    def leave(self, holder: str) -> None:
        self._server.run(_LEAVE, holder)

    def present(self) -> list[Worker]:
        found = self._server.run(_PRESENT)
        workers = []
        for holder, told, beats in found:
            host, process, doing = json.loads(told)
            workers.append(Worker(holder, host, process, doing, int(beats)))
        return sorted(workers, key=lambda worker: worker.holder)
