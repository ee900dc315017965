"""Revisions in the ledger.

Belongs here: revisions of dataset windows, with their facts. Does not belong here: the files (stores/datasets.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from ionbeam_dagster.domain.records import BuiltRevision, Claim, Revision, RevisionFacts
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.due import TOUCHED_BY, touching
from ionbeam_dagster.stores.ledger.keys import ends_of, micros, moment, place_of, window_at, window_from
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


class Revisions(Protocol):
    """Remembers the revisions of dataset windows."""

    def record_revision(self, built: BuiltRevision, made_of: Sequence[Claim]) -> None:
        """Remember a revision. Its window is no longer due, unless a claim not in `made_of` touched it meanwhile."""
        ...

    def latest_revision(self, dataset: str, window: Window) -> BuiltRevision | None: ...

    def revisions(self, dataset: str, start: datetime, end: datetime) -> list[BuiltRevision]:
        """The latest revision of each window that starts in [start, end), in order."""
        ...

    def revisions_of(self, dataset: str, window: Window) -> list[BuiltRevision]:
        """The revisions of one window that are not forgotten, in order of their numbers."""
        ...

    def superseded(self, dataset: str, before: datetime) -> list[BuiltRevision]:
        """Revisions of which a later one was built by `before`, in order of window and number."""
        ...

    def forget_revision(self, revision: Revision) -> None:
        """Forget a superseded revision, whose file is gone; the latest one of a window stays, whatever is asked."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------

REVISION = "SELECT dataset, start, end, number, inputs, intact, path, built_at, facts FROM revisions"


class SqliteRevisions(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS revisions (
    dataset TEXT, start INTEGER, end INTEGER, number INTEGER, inputs TEXT, intact INTEGER, path TEXT, built_at INTEGER,
    facts TEXT, PRIMARY KEY (dataset, start, end, number)
) WITHOUT ROWID;
"""

    def record_revision(self, built: BuiltRevision, made_of: Sequence[Claim]) -> None:
        revision = built.revision
        place = (revision.dataset, *ends_of(revision.window))
        with self._file.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*place, revision.number, revision.inputs, revision.intact, built.path, micros(built.built_at),
                 json.dumps(built.facts.to_json())),
            )  # fmt: skip
            db.execute(
                "INSERT INTO feed (dataset, start, end, revision) VALUES (?, ?, ?, ?)", (*place, revision.number)
            )
            if touching(db, place) == {claim.id for claim in made_of}:
                db.execute("DELETE FROM due WHERE dataset = ? AND start = ? AND end = ?", place)

    def latest_revision(self, dataset: str, window: Window) -> BuiltRevision | None:
        with self._file.reading() as db:
            row = db.execute(
                f"{REVISION} WHERE dataset = ? AND start = ? AND end = ? ORDER BY number DESC LIMIT 1",
                (dataset, *ends_of(window)),
            ).fetchone()
        return built_of_row(row) if row else None

    def revisions(self, dataset: str, start: datetime, end: datetime) -> list[BuiltRevision]:
        with self._file.reading() as db:
            rows = db.execute(
                f"{REVISION} WHERE dataset = ? AND start >= ? AND start < ? ORDER BY start, end, number",
                (dataset, micros(start), micros(end)),
            ).fetchall()
        return list({(row[1], row[2]): built_of_row(row) for row in rows}.values())

    def revisions_of(self, dataset: str, window: Window) -> list[BuiltRevision]:
        with self._file.reading() as db:
            rows = db.execute(
                f"{REVISION} WHERE dataset = ? AND start = ? AND end = ? ORDER BY number", (dataset, *ends_of(window))
            ).fetchall()
        return list(map(built_of_row, rows))

    def superseded(self, dataset: str, before: datetime) -> list[BuiltRevision]:
        following = "dataset = r.dataset AND start = r.start AND end = r.end AND number > r.number AND built_at <= ?"
        with self._file.reading() as db:
            rows = db.execute(
                f"{REVISION} r WHERE dataset = ? AND EXISTS (SELECT 1 FROM revisions WHERE {following}) "
                "ORDER BY start, end, number",
                (dataset, micros(before)),
            ).fetchall()
        return [built_of_row(row) for row in rows]

    def forget_revision(self, revision: Revision) -> None:
        with self._file.writing() as db:
            db.execute(
                "DELETE FROM revisions AS r WHERE dataset = ? AND start = ? AND end = ? AND number = ? AND number < "
                "(SELECT max(number) FROM revisions WHERE dataset = r.dataset AND start = r.start AND end = r.end)",
                (revision.dataset, *ends_of(revision.window), revision.number),
            )


def built_of_row(row: tuple[Any, ...]) -> BuiltRevision:
    revision = Revision(row[0], window_from(row[1], row[2]), row[3], row[4], bool(row[5]))
    return BuiltRevision(revision, row[6], moment(row[7]), RevisionFacts.from_json(json.loads(row[8])))


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:built:<dataset>                       the windows that have a revision, by start
#     ionbeam:revisions:<dataset>:<window>          the numbers of a window's revisions
#     ionbeam:revision:<dataset>:<window>:<number>  a revision

_RECORD_REVISION = (
    TOUCHED_BY
    + """
local dataset, window, number, record, intact = unpack(ARGV, 1, 5)
local place = dataset .. ':' .. window
redis.call('HSET', 'ionbeam:revision:' .. place .. ':' .. number, 'record', record, 'intact', intact)
redis.call('ZADD', 'ionbeam:revisions:' .. place, number, number)
redis.call('RPUSH', 'ionbeam:feed', 'r ' .. place .. ':' .. number)
redis.call('ZADD', 'ionbeam:built:' .. dataset, window:match('^[^:]+'), window)
if touched_by(place, 6) then
    redis.call('ZREM', 'ionbeam:due:' .. dataset, window)
    redis.call('ZREM', 'ionbeam:until:' .. dataset, window)
end
"""
)

_LATEST = """
local dataset, found = ARGV[1], {}
for i, window in ipairs(redis.call('ZRANGE', 'ionbeam:built:' .. dataset, ARGV[2], ARGV[3], 'BYSCORE')) do
    local place = dataset .. ':' .. window
    local number = needed('ZRANGE', 'ionbeam:revisions:' .. place, -1, -1)[1]
    local kept = needed('HMGET', 'ionbeam:revision:' .. place .. ':' .. number, 'record', 'intact')
    found[i] = {window, number, kept[1], kept[2]}
end
return found
"""

_REVISIONS_OF = """
local place, found = ARGV[1], {}
for i, number in ipairs(redis.call('ZRANGE', 'ionbeam:revisions:' .. place, 0, -1)) do
    local kept = needed('HMGET', 'ionbeam:revision:' .. place .. ':' .. number, 'record', 'intact')
    found[i] = {number, kept[1], kept[2]}
end
return found
"""

_SUPERSEDED = """
local dataset, found = ARGV[1], {}
for _, window in ipairs(redis.call('ZRANGE', 'ionbeam:built:' .. dataset, 0, -1)) do
    local place = dataset .. ':' .. window
    local first
    for _, number in ipairs(redis.call('ZRANGE', 'ionbeam:revisions:' .. place, 0, -1, 'REV')) do
        local kept = needed('HMGET', 'ionbeam:revision:' .. place .. ':' .. number, 'record', 'intact')
        if first and first <= tonumber(ARGV[2]) then found[#found + 1] = {window, number, kept[1], kept[2]} end
        first = math.min(first or math.huge, cjson.decode(kept[1])[3])  -- a clock may have gone back
    end
end
return found
"""

_FORGET_REVISION = """
local place, number = ARGV[1], ARGV[2]
if redis.call('ZRANGE', 'ionbeam:revisions:' .. place, -1, -1)[1] ~= number then
    redis.call('ZREM', 'ionbeam:revisions:' .. place, number)
    redis.call('DEL', 'ionbeam:revision:' .. place .. ':' .. number)
end
"""


class RedisRevisions(OnRedis):
    def record_revision(self, built: BuiltRevision, made_of: Sequence[Claim]) -> None:
        revision = built.revision
        record = json.dumps([revision.inputs, built.path, micros(built.built_at), built.facts.to_json()])
        place = (revision.dataset, place_of(revision.window), revision.number)
        self._server.run(_RECORD_REVISION, *place, record, int(revision.intact), *{claim.id for claim in made_of})

    def latest_revision(self, dataset: str, window: Window) -> BuiltRevision | None:
        start = micros(window.start)
        same_start = (built_of_record(dataset, *kept) for kept in self._server.run(_LATEST, dataset, start, start))
        return next((built for built in same_start if built.revision.window == window), None)

    def revisions(self, dataset: str, start: datetime, end: datetime) -> list[BuiltRevision]:
        kept = self._server.run(_LATEST, dataset, micros(start), f"({micros(end)}")
        return sorted((built_of_record(dataset, *one) for one in kept), key=lambda built: built.revision.window)

    def revisions_of(self, dataset: str, window: Window) -> list[BuiltRevision]:
        place = place_of(window)
        return [
            built_of_record(dataset, place, *kept) for kept in self._server.run(_REVISIONS_OF, f"{dataset}:{place}")
        ]

    def superseded(self, dataset: str, before: datetime) -> list[BuiltRevision]:
        found = (built_of_record(dataset, *kept) for kept in self._server.run(_SUPERSEDED, dataset, micros(before)))
        return sorted(found, key=lambda built: (built.revision.window, built.revision.number))

    def forget_revision(self, revision: Revision) -> None:
        self._server.run(_FORGET_REVISION, f"{revision.dataset}:{place_of(revision.window)}", revision.number)


def built_of_record(dataset: str, window: str, number: str, record: str, intact: str) -> BuiltRevision:
    inputs, path, built_at, facts = json.loads(record)
    revision = Revision(dataset, window_at(window), int(number), inputs, intact == "1")
    return BuiltRevision(revision, path, moment(built_at), RevisionFacts.from_json(facts))
