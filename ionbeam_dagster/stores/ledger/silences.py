"""Silences: the sources that do not answer in time, since when, and how often in a row.

Belongs here: the counts, and how SQLite and Redis keep them. Does not belong here: what follows from them
(pipeline/agenda).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ionbeam_dagster.stores.ledger.keys import micros, moment
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


@dataclass(frozen=True, slots=True)
class Silence:
    """So many windows in a row took longer than they may, the first of them at `since`."""

    windows: int
    since: datetime


class Silences(Protocol):
    """Counts. Every method is one transaction, and may be called from many processes at once."""

    def add(self, source: str, windows: int, at: datetime) -> None:
        """So many windows more of a source took longer than they may."""
        ...

    def end(self, source: str) -> None:
        """A source answered."""
        ...

    def all(self) -> Mapping[str, Silence]:
        """The sources that did not answer the last time."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteSilences(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS silences (source TEXT PRIMARY KEY, windows INTEGER, since INTEGER) WITHOUT ROWID;
"""

    def add(self, source: str, windows: int, at: datetime) -> None:
        with self._file.writing() as db:
            db.execute(
                "INSERT INTO silences VALUES (?, ?, ?) ON CONFLICT (source) DO UPDATE SET"
                " windows = windows + excluded.windows",
                (source, windows, micros(at)),
            )

    def end(self, source: str) -> None:
        with self._file.writing() as db:
            db.execute("DELETE FROM silences WHERE source = ?", (source,))

    def all(self) -> Mapping[str, Silence]:
        with self._file.reading() as db:
            rows = db.execute("SELECT * FROM silences ORDER BY source").fetchall()
        return {source: Silence(windows, moment(since)) for source, windows, since in rows}


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:silences       of each source how many windows, and since when, as JSON

_ADD = """
local known = redis.call('HGET', 'ionbeam:silences', ARGV[1])
local windows, since = tonumber(ARGV[2]), ARGV[3]
if known then
    local before = cjson.decode(known)
    windows, since = windows + before[1], before[2]
end
redis.call('HSET', 'ionbeam:silences', ARGV[1], cjson.encode({windows, since}))
"""
_END = "redis.call('HDEL', 'ionbeam:silences', ARGV[1])"
_ALL = "return redis.call('HGETALL', 'ionbeam:silences')"


class RedisSilences(OnRedis):
    def add(self, source: str, windows: int, at: datetime) -> None:
        self._server.run_once(_ADD, source, windows, str(micros(at)))

    def end(self, source: str) -> None:
        self._server.run(_END, source)

    def all(self) -> Mapping[str, Silence]:
        found = self._server.run(_ALL)
        silences = {}
        for source, record in sorted(zip(found[::2], found[1::2], strict=True)):
            windows, since = json.loads(record)
            silences[source] = Silence(windows, moment(int(since)))
        return silences
