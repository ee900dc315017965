"""Claims in the ledger.

Belongs here: claims, and the windows that they touch. Does not belong here: their metadata (readings.py), what is
counted of them (counts.py), or which windows are due for them (due.py).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, ClassVar, Protocol

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.lateness import lateness_of
from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.counts import hour_of
from ionbeam_dagster.stores.ledger.due import MAKE_DUE
from ionbeam_dagster.stores.ledger.keys import ends_of, micros, moment, place_of, window_at, window_from
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import Column, OnSqlite


class Claims(Protocol):
    """Remembers claims, and which dataset windows they touch."""

    def record_claim(
        self, claim: Claim, metadata: IngestionMetadata, touched: Mapping[Window, int], replaces: Sequence[str] = ()
    ) -> None:
        """Remember a claim, and how many of its rows lie in each dataset window that it touches.

        It touches those that it collected in part, and those that it gave late rows.

        The ingestions `replaces` are forgotten along with it, for good, also those that have no claim yet: what was
        sent no longer waits, and one that should come back gets a new place in the order of arrival. A claim that is
        new is also measured for its lateness, if it says when it arrived.
        """
        ...

    def claims(self, dataset: str, window: Window) -> list[Claim]:
        """The claims that touch one dataset window, in order of arrival; the cost does not grow with the others."""
        ...

    def claims_between(self, dataset: str, start: datetime, end: datetime) -> list[Claim]:
        """The claims that touch dataset windows that start in [start, end), in order of arrival.

        The cost grows with these claims, not with the range.
        """
        ...

    def claims_of(self, ingestions: Sequence[str]) -> list[Claim]:
        """The claims of these ingestions, of those that have one, in order of arrival."""
        ...

    def withdraw_claim(self, ingestion: str) -> None:
        """Forget a claim. Revisions of the windows that it touched are no longer intact."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------

CLAIM = "SELECT id, source, dataset, start, end, arrival, rows, quarantined, strays, arrived_at FROM claims"


class SqliteClaims(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS claims (
    id TEXT PRIMARY KEY, source TEXT, dataset TEXT, start INTEGER, end INTEGER, arrival INTEGER, rows INTEGER,
    quarantined INTEGER, strays TEXT, reading TEXT, arrived_at INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS touched (
    dataset TEXT, start INTEGER, end INTEGER, claim TEXT, rows INTEGER, PRIMARY KEY (dataset, start, end, claim)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS touched_by_claim ON touched (claim);
"""
    ADDED: ClassVar[tuple[Column, ...]] = (("claims", "arrived_at", "INTEGER"), ("touched", "rows", "INTEGER"))

    def record_claim(
        self, claim: Claim, metadata: IngestionMetadata, touched: Mapping[Window, int], replaces: Sequence[str] = ()
    ) -> None:
        text = metadata.model_dump_json()
        reading = sha256(text.encode()).hexdigest()
        strays = json.dumps([ends_of(window) for window in claim.stray_windows])
        arrived_at = None if claim.arrived_at is None else micros(claim.arrived_at)
        with self._file.writing() as db:
            db.execute("INSERT OR IGNORE INTO readings VALUES (?, ?)", (reading, text))
            db.execute("INSERT OR IGNORE INTO versions VALUES (?, ?, ?)", (claim.source, metadata.version, reading))
            known = db.execute("SELECT 1 FROM claims WHERE id = ?", (claim.id,)).fetchone()
            db.execute(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (claim.id, claim.source, claim.dataset, *ends_of(claim.collected), claim.arrival, claim.rows,
                 claim.quarantined, strays, reading, arrived_at),
            )  # fmt: skip
            db.execute("DELETE FROM unclaimed WHERE ingestion = ?", (claim.id,))
            db.execute(
                "INSERT INTO begun VALUES (?, ?) ON CONFLICT DO UPDATE SET start = min(start, excluded.start)",
                (claim.source, micros(claim.collected.start)),
            )
            ranges = [(claim.dataset, *ends_of(window)) for window in touched]
            db.executemany(
                "INSERT OR REPLACE INTO touched VALUES (?, ?, ?, ?, ?)",
                [(*place, claim.id, rows) for place, rows in zip(ranges, touched.values(), strict=True)],
            )
            for ingestion in replaces:
                _forget_claim(db, ingestion)
                db.execute("DELETE FROM arrivals WHERE ingestion = ?", (ingestion,))
                db.execute("DELETE FROM sent WHERE ingestion = ?", (ingestion,))
                db.execute("DELETE FROM sent_into WHERE ingestion = ?", (ingestion,))
                db.execute("DELETE FROM unclaimed WHERE ingestion = ?", (ingestion,))
            if not known:
                db.executemany("INSERT OR REPLACE INTO due (dataset, start, end) VALUES (?, ?, ?)", ranges)
                db.execute("INSERT INTO feed (claim) VALUES (?)", (claim.id,))
                if claim.arrived_at is not None:
                    db.execute(
                        "INSERT INTO lateness VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
                        (claim.source, hour_of(claim.arrived_at),
                         lateness_of(claim) // timedelta(seconds=1)),
                    )  # fmt: skip

    def claims(self, dataset: str, window: Window) -> list[Claim]:
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT c.id, c.source, c.dataset, c.start, c.end, c.arrival, c.rows, c.quarantined, c.strays, "
                "c.arrived_at "
                "FROM touched t JOIN claims c ON c.id = t.claim "
                "WHERE t.dataset = ? AND t.start = ? AND t.end = ? ORDER BY c.arrival",
                (dataset, *ends_of(window)),
            ).fetchall()
        return [claim_of_row(row) for row in rows]

    def claims_between(self, dataset: str, start: datetime, end: datetime) -> list[Claim]:
        with self._file.reading() as db:
            rows = db.execute(
                f"{CLAIM} WHERE id IN (SELECT claim FROM touched WHERE dataset = ? AND start >= ? AND start < ?) "
                "ORDER BY arrival",
                (dataset, micros(start), micros(end)),
            ).fetchall()
        return [claim_of_row(row) for row in rows]

    def claims_of(self, ingestions: Sequence[str]) -> list[Claim]:
        with self._file.reading() as db:
            found = [db.execute(f"{CLAIM} WHERE id = ?", (ingestion,)).fetchone() for ingestion in ingestions]
        return sorted((claim_of_row(row) for row in found if row), key=lambda claim: claim.arrival)

    def withdraw_claim(self, ingestion: str) -> None:
        with self._file.writing() as db:
            _forget_claim(db, ingestion)
            db.execute("INSERT OR IGNORE INTO unclaimed SELECT ingestion FROM sent WHERE ingestion = ?", (ingestion,))


def _forget_claim(db: sqlite3.Connection, ingestion: str) -> None:
    """Remove a claim; the windows that it touched are due, and their revisions not intact."""
    db.execute(
        "UPDATE revisions SET intact = 0 FROM touched t WHERE t.claim = ? AND revisions.dataset = t.dataset "
        "AND revisions.start = t.start AND revisions.end = t.end",
        (ingestion,),
    )
    db.execute(
        "INSERT OR REPLACE INTO due (dataset, start, end) SELECT dataset, start, end FROM touched WHERE claim = ?",
        (ingestion,),
    )
    db.execute("DELETE FROM touched WHERE claim = ?", (ingestion,))
    db.execute("DELETE FROM claims WHERE id = ?", (ingestion,))


def claim_of_row(row: tuple[Any, ...]) -> Claim:
    strays = tuple(window_from(*ends) for ends in json.loads(row[8]))
    arrived_at = None if row[9] is None else moment(row[9])
    return Claim(row[0], row[1], row[2], window_from(row[3], row[4]), row[5], row[6], row[7], strays, arrived_at)


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:claim:<id>                            a claim, with the hash of its metadata
#     ionbeam:touching:<dataset>:<window>           the claims that touch a window, by arrival
#     ionbeam:touched:<id>                          the windows that a claim touches
#     ionbeam:rows:<dataset>:<window>               how many rows each claim brought into a window

_FORGET = (
    MAKE_DUE
    + """
local function forget(id)
    for _, window in ipairs(redis.call('SMEMBERS', 'ionbeam:touched:' .. id)) do
        local dataset = needed('HGET', 'ionbeam:claim:' .. id, 'dataset')
        local place = dataset .. ':' .. window
        for _, number in ipairs(redis.call('ZRANGE', 'ionbeam:revisions:' .. place, 0, -1)) do
            redis.call('HSET', 'ionbeam:revision:' .. place .. ':' .. number, 'intact', 0)
        end
        make_due(dataset, window)
        redis.call('ZREM', 'ionbeam:touching:' .. place, id)
        redis.call('HDEL', 'ionbeam:rows:' .. place, id)
    end
    redis.call('DEL', 'ionbeam:touched:' .. id, 'ionbeam:claim:' .. id)
end
"""
)

_RECORD_CLAIM = (
    _FORGET
    + """
local id, source, dataset, arrival, version, reading, metadata, record, hour, late, touched = unpack(ARGV, 1, 11)
redis.call('SREM', 'ionbeam:waiting:' .. source, id)
redis.call('HSETNX', 'ionbeam:readings', reading, metadata)
redis.call('HSETNX', 'ionbeam:versions:' .. source, version, reading)
local known = redis.call('EXISTS', 'ionbeam:claim:' .. id) == 1
redis.call('HSET', 'ionbeam:claim:' .. id, 'record', record, 'dataset', dataset, 'reading', reading)
local begins, begun = cjson.decode(record)[4]:match('^[^:]+'), redis.call('HGET', 'ionbeam:begun', source)
if not begun or tonumber(begins) < tonumber(begun) then redis.call('HSET', 'ionbeam:begun', source, begins) end
local last = 11 + 2 * touched
for i = 12, last, 2 do
    redis.call('ZADD', 'ionbeam:touching:' .. dataset .. ':' .. ARGV[i], arrival, id)
    redis.call('HSET', 'ionbeam:rows:' .. dataset .. ':' .. ARGV[i], id, ARGV[i + 1])
    redis.call('SADD', 'ionbeam:touched:' .. id, ARGV[i])
    if not known then make_due(dataset, ARGV[i]) end
end
for i = last + 1, #ARGV do
    local sent = redis.call('GET', 'ionbeam:sent:' .. ARGV[i])
    if sent then
        for _, window in ipairs(redis.call('SMEMBERS', 'ionbeam:sent_windows:' .. ARGV[i])) do
            redis.call('ZREM', 'ionbeam:sent_into:' .. source .. ':' .. window, ARGV[i])
        end
        redis.call('SREM', 'ionbeam:waiting:' .. source, ARGV[i])
        redis.call('ZREM', 'ionbeam:raws:' .. source, 'sent ' .. ARGV[i])
        redis.call('DEL', 'ionbeam:sent:' .. ARGV[i], 'ionbeam:sent_windows:' .. ARGV[i])
    end
    forget(ARGV[i])
    redis.call('HDEL', 'ionbeam:arrivals', ARGV[i])
end
if known then return end
redis.call('RPUSH', 'ionbeam:feed', 'c ' .. id)
if hour ~= '' then redis.call('HINCRBY', 'ionbeam:lateness:' .. source .. ':' .. hour, late, 1) end
"""
)


_CLAIMS = """
local found = {}
for i, id in ipairs(redis.call('ZRANGE', 'ionbeam:touching:' .. ARGV[1] .. ':' .. ARGV[2], 0, -1)) do
    found[i] = needed('HGET', 'ionbeam:claim:' .. id, 'record')
end
return found
"""

_CLAIMS_BETWEEN = """
local seen, found = {}, {}
for _, kind in ipairs({'due', 'built'}) do  -- a window that was touched is in one of them
    for _, window in ipairs(redis.call('ZRANGE', 'ionbeam:' .. kind .. ':' .. ARGV[1], ARGV[2], ARGV[3], 'BYSCORE')) do
        for _, id in ipairs(redis.call('ZRANGE', 'ionbeam:touching:' .. ARGV[1] .. ':' .. window, 0, -1)) do
            if not seen[id] then
                seen[id] = true
                found[#found + 1] = needed('HGET', 'ionbeam:claim:' .. id, 'record')
            end
        end
    end
end
return found
"""

_CLAIMS_OF = """
local found = {}
for _, id in ipairs(ARGV) do
    local record = redis.call('HGET', 'ionbeam:claim:' .. id, 'record')
    if record then found[#found + 1] = record end
end
return found
"""


_WITHDRAW = (
    _FORGET
    + """
local sent = redis.call('GET', 'ionbeam:sent:' .. ARGV[1])
if sent then redis.call('SADD', 'ionbeam:waiting:' .. cjson.decode(sent)[2], ARGV[1]) end
forget(ARGV[1])
"""
)


class RedisClaims(OnRedis):
    def record_claim(
        self, claim: Claim, metadata: IngestionMetadata, touched: Mapping[Window, int], replaces: Sequence[str] = ()
    ) -> None:
        text = metadata.model_dump_json()
        reading = sha256(text.encode()).hexdigest()
        arrived_at = None if claim.arrived_at is None else micros(claim.arrived_at)
        hour = "" if claim.arrived_at is None else hour_of(claim.arrived_at)
        record = json.dumps(
            [claim.id, claim.source, claim.dataset, place_of(claim.collected), claim.arrival, claim.rows,
             claim.quarantined, [place_of(window) for window in claim.stray_windows], arrived_at]
        )  # fmt: skip
        rows = (part for window, rows in touched.items() for part in (place_of(window), rows))
        self._server.run(
            _RECORD_CLAIM, claim.id, claim.source, claim.dataset, claim.arrival, metadata.version, reading, text,
            record, hour, lateness_of(claim) // timedelta(seconds=1), len(touched), *rows, *replaces,
        )  # fmt: skip

    def claims(self, dataset: str, window: Window) -> list[Claim]:
        return [claim_of_record(record) for record in self._server.run(_CLAIMS, dataset, place_of(window))]

    def claims_between(self, dataset: str, start: datetime, end: datetime) -> list[Claim]:
        records = self._server.run(_CLAIMS_BETWEEN, dataset, micros(start), f"({micros(end)}")
        return sorted(map(claim_of_record, records), key=lambda claim: claim.arrival)

    def claims_of(self, ingestions: Sequence[str]) -> list[Claim]:
        found = (claim_of_record(record) for record in self._server.run(_CLAIMS_OF, *ingestions))
        return sorted(found, key=lambda claim: claim.arrival)

    def withdraw_claim(self, ingestion: str) -> None:
        self._server.run(_WITHDRAW, ingestion)


def claim_of_record(record: str) -> Claim:
    id, source, dataset, collected, arrival, rows, quarantined, strays, *noted = json.loads(record)
    stray_windows = tuple(window_at(stray) for stray in strays)
    arrived_at = moment(noted[0]) if noted and noted[0] is not None else None
    return Claim(id, source, dataset, window_at(collected), arrival, rows, quarantined, stray_windows, arrived_at)
