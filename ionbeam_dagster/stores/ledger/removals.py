"""Files that are to be removed, in the ledger: the intention, so that a process that is killed leaves none behind.

Belongs here: what is remembered of raw files between the decision that they go and their removal. Does not belong here:
the decision (pipeline/retention.py, pipeline/ingest.py), or the files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar, Protocol

from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.stores.ledger.keys import ends_of, place_of
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import Column, OnSqlite

Intended = tuple[RawPartition, str]
"""A raw partition whose file is to go, and the mark that tells the file from another one in its place."""


class Removals(Protocol):
    """Remembers raw files that are to be removed. Every method is one transaction."""

    def intend(self, raws: Sequence[Intended]) -> None:
        """Remember that the files of raw partitions are to be removed as soon as they are purged, or replaced."""
        ...

    def pending(self) -> list[str]:
        """The files that are to be removed: of what was intended, whatever is the file of no raw partition now."""
        ...

    def intended(self, path: str) -> str | None:
        """The mark of the file that is still to be removed there (empty: an earlier version noted none); None: none
        is, it may be a raw partition's again."""
        ...

    def done(self, paths: Sequence[str]) -> None:
        """Forget files that were removed."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------

_OF_NO_RAW = """
    NOT EXISTS (SELECT 1 FROM raw r WHERE r.source = m.source AND r.start = m.start AND r.end = m.end
        AND r.path = m.path AND NOT EXISTS (SELECT 1 FROM swept w WHERE w.ingestion = r.ingestion))
    AND NOT EXISTS (SELECT 1 FROM sent s WHERE s.ingestion = m.ingestion
        AND NOT EXISTS (SELECT 1 FROM swept w WHERE w.ingestion = s.ingestion))
"""


class SqliteRemovals(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS removals (
    path TEXT PRIMARY KEY, source TEXT, start INTEGER, end INTEGER, ingestion TEXT, mark TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
"""

    ADDED: ClassVar[tuple[Column, ...]] = (("removals", "mark", "TEXT NOT NULL DEFAULT ''"),)

    def intend(self, raws: Sequence[Intended]) -> None:
        with self._file.writing() as db:
            db.executemany(
                "INSERT OR REPLACE INTO removals VALUES (?, ?, ?, ?, ?, ?)",
                [(raw.path, raw.source, *ends_of(raw.window), raw.ingestion, mark) for raw, mark in raws],
            )

    def pending(self) -> list[str]:
        with self._file.reading() as db:
            rows = db.execute(f"SELECT path FROM removals m WHERE {_OF_NO_RAW} ORDER BY path").fetchall()
        return [row[0] for row in rows]

    def intended(self, path: str) -> str | None:
        with self._file.reading() as db:
            row = db.execute(f"SELECT mark FROM removals m WHERE m.path = ? AND {_OF_NO_RAW}", (path,)).fetchone()
        return None if row is None else row[0]

    def done(self, paths: Sequence[str]) -> None:
        with self._file.writing() as db:
            db.executemany("DELETE FROM removals WHERE path = ?", [(path,) for path in paths])


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:removals      the files that are to be removed, each with its source, window, ingestion and mark as JSON

_INTEND = "redis.call('HSET', 'ionbeam:removals', ARGV[1], ARGV[2])"
_OF_NO_RAW_ON_REDIS = """
local function of_no_raw(path, record)
    local source, window, ingestion = unpack(cjson.decode(record))
    local kept = 'ionbeam:raws:' .. source
    local collected = redis.call('HGET', 'ionbeam:raw:' .. source .. ':' .. window, 'path') == path
        and redis.call('ZSCORE', kept, window)
    return not collected and not redis.call('ZSCORE', kept, 'sent ' .. ingestion)
end
"""
_PENDING = f"""{_OF_NO_RAW_ON_REDIS}
local found, all = {{}}, redis.call('HGETALL', 'ionbeam:removals')
for i = 1, #all, 2 do
    if of_no_raw(all[i], all[i + 1]) then found[#found + 1] = all[i] end
end
return found
"""
_INTENDED = f"""{_OF_NO_RAW_ON_REDIS}
local record = redis.call('HGET', 'ionbeam:removals', ARGV[1])
return record and of_no_raw(ARGV[1], record) and (cjson.decode(record)[4] or '')
"""
_DONE = "redis.call('HDEL', 'ionbeam:removals', ARGV[1])"


class RedisRemovals(OnRedis):
    def intend(self, raws: Sequence[Intended]) -> None:
        for raw, mark in raws:
            self._server.run(_INTEND, raw.path, json.dumps([raw.source, place_of(raw.window), raw.ingestion, mark]))

    def pending(self) -> list[str]:
        return sorted(self._server.run(_PENDING))

    def intended(self, path: str) -> str | None:
        mark: str | None = self._server.run(_INTENDED, path)
        return mark

    def done(self, paths: Sequence[str]) -> None:
        for path in paths:
            self._server.run(_DONE, path)
