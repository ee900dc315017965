"""Corrections: changes of their past that sources told, and how far each is published.

Belongs here: what is remembered of them, and how SQLite and Redis keep it. Does not belong here: when one is published,
and confirmed to its source (pipeline/corrections.py).

Each has a number, in the order in which the platform saw them first, and no time: a raw partition that was collected
when a number was known holds what its source had then, whatever the clocks of two hosts say. Numbers only grow, also
from a ledger that was lost to the one after it: they are times in milliseconds, or follow one (those that an earlier
version gave out are small).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ionbeam_dagster.domain.records import Correction
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.keys import milliseconds, place_of, window_at
from ionbeam_dagster.stores.ledger.on_redis import CALL, OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite

MOST_CLOSED = 1000
"""Corrections of a source that are remembered after they were closed: those with the largest numbers."""


@dataclass(frozen=True, slots=True)
class KnownCorrection:
    """A correction that the platform knows of since `seen`.

    `remaining` are the ranges whose products are not known to be made anew, None while nobody looked; of these, what
    begins before `looked_until` is looked at next. `by` is who began to confirm it, and `closed` when that was done, or
    the source was found not to tell of it any longer.
    """

    correction: Correction
    number: int
    seen: datetime
    remaining: tuple[Window, ...] | None = None
    looked_until: datetime | None = None
    by: str = ""
    closed: datetime | None = None


class Corrections(Protocol):
    """Remembers corrections. Every method is one transaction, and may be called from many processes at once."""

    def see(self, source: str, told: Sequence[Correction], at: datetime) -> None:
        """Remember what a source tells; what is new, or another now, is open, and has the next number."""
        ...

    def seen(self, source: str) -> datetime | None:
        """When a source last told; None where it never did."""
        ...

    def change(self, source: str, known: KnownCorrection) -> bool:
        """Remember another state of a correction; False, and nothing is done, where its number is another by now."""
        ...

    def open(self, source: str) -> list[KnownCorrection]:
        """Those of a source that are not closed, by their numbers."""
        ...

    def closed(self, source: str) -> list[KnownCorrection]:
        """Those of a source that are closed, the latest first."""
        ...


def _as_text(known: KnownCorrection) -> str:
    """What changes of a correction; the rest follows from what was told."""
    remaining = None if known.remaining is None else [place_of(one) for one in known.remaining]
    return json.dumps([known.seen.isoformat(), remaining, _moment(known.looked_until), known.by, _moment(known.closed)])


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _told(correction: Correction) -> str:
    return json.dumps([place_of(correction.range), correction.what])


def _from_texts(id: str, told: str, number: int, state: str) -> KnownCorrection:
    place, what = json.loads(told)
    seen, remaining, looked_until, by, closed = json.loads(state)
    return KnownCorrection(
        Correction(id, window_at(place), what),
        number,
        datetime.fromisoformat(seen),
        None if remaining is None else tuple(map(window_at, remaining)),
        None if looked_until is None else datetime.fromisoformat(looked_until),
        by,
        None if closed is None else datetime.fromisoformat(closed),
    )


def _new(correction: Correction, at: datetime) -> str:
    return _as_text(KnownCorrection(correction, 0, at))


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteCorrections(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS corrections (
    number INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT, id TEXT, told TEXT, state TEXT, is_closed INTEGER,
    UNIQUE (source, id)
);
CREATE TABLE IF NOT EXISTS corrections_seen (source TEXT PRIMARY KEY, at TEXT);
"""

    def see(self, source: str, told: Sequence[Correction], at: datetime) -> None:
        with self._file.writing() as db:
            db.execute("INSERT OR REPLACE INTO corrections_seen VALUES (?, ?)", (source, at.isoformat()))
            for one in told:
                text = _told(one)
                known = db.execute("SELECT told FROM corrections WHERE source = ? AND id = ?", (source, one.id))
                if known.fetchone() != (text,):
                    db.execute(
                        "INSERT OR REPLACE INTO corrections (number, source, id, told, state, is_closed) SELECT "
                        "max(?, 1 + ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'corrections'), 0)), "
                        "?, ?, ?, ?, 0",
                        (milliseconds(at), source, one.id, text, _new(one, at)),
                    )

    def seen(self, source: str) -> datetime | None:
        with self._file.reading() as db:
            found = db.execute("SELECT at FROM corrections_seen WHERE source = ?", (source,)).fetchone()
        return None if found is None else datetime.fromisoformat(found[0])

    def change(self, source: str, known: KnownCorrection) -> bool:
        with self._file.writing() as db:
            done = db.execute(
                "UPDATE corrections SET state = ?, is_closed = ? WHERE source = ? AND number = ?",
                (_as_text(known), known.closed is not None, source, known.number),
            )
            if known.closed is not None:
                db.execute(
                    "DELETE FROM corrections WHERE number IN (SELECT number FROM corrections WHERE source = ? "
                    "AND is_closed ORDER BY number DESC LIMIT -1 OFFSET ?)",
                    (source, MOST_CLOSED),
                )
            return done.rowcount == 1

    def open(self, source: str) -> list[KnownCorrection]:
        return self._all(source, False)

    def closed(self, source: str) -> list[KnownCorrection]:
        return _latest_first(self._all(source, True))

    def _all(self, source: str, is_closed: bool) -> list[KnownCorrection]:
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT id, told, number, state FROM corrections WHERE source = ? AND is_closed = ? ORDER BY number",
                (source, is_closed),
            ).fetchall()
        return [_from_texts(*row) for row in rows]


def _latest_first(closed: list[KnownCorrection]) -> list[KnownCorrection]:
    return sorted(closed, key=lambda one: (one.closed or one.seen, one.number), reverse=True)


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:corrections:<source>                  told, number and state of a correction, by its id, as JSON
#     ionbeam:corrections_last                      the last number
#     ionbeam:corrections_seen                      when each source last told, by its name

_SEE = """
local key, now = 'ionbeam:corrections:' .. ARGV[1], tonumber(ARGV[2])
redis.call('HSET', 'ionbeam:corrections_seen', ARGV[1], ARGV[3])
for i = 4, #ARGV, 3 do
    local id, told, state = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local known = redis.call('HGET', key, id)
    if not known or cjson.decode(known)[1] ~= told then
        local number = math.max(now, (redis.call('GET', 'ionbeam:corrections_last') or 0) + 1)
        redis.call('SET', 'ionbeam:corrections_last', string.format('%.0f', number))
        redis.call('HSET', key, id, cjson.encode({told, number, state}))
    end
end
"""

_CHANGE = """
local key, id, most_closed = 'ionbeam:corrections:' .. ARGV[1], ARGV[2], tonumber(ARGV[5])
local known = redis.call('HGET', key, id)
if not known then return 0 end
local told, number = unpack(cjson.decode(known), 1, 2)
if number ~= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', key, id, cjson.encode({told, number, ARGV[4]}))
if redis.call('HLEN', key) <= most_closed then return 1 end
local closed, all = {}, redis.call('HGETALL', key)
for i = 1, #all, 2 do
    local _, number, state = unpack(cjson.decode(all[i + 1]))
    if cjson.decode(state)[5] ~= cjson.null then closed[#closed + 1] = {number, all[i]} end
end
table.sort(closed, function(one, other) return one[1] > other[1] end)
for i = most_closed + 1, #closed do redis.call('HDEL', key, closed[i][2]) end
return 1
"""


class RedisCorrections(OnRedis):
    def see(self, source: str, told: Sequence[Correction], at: datetime) -> None:
        texts = [text for one in told for text in (one.id, _told(one), _new(one, at))]
        self._server.run(_SEE, source, milliseconds(at), at.isoformat(), *texts)

    def seen(self, source: str) -> datetime | None:
        found = self._server.run(CALL, "HGET", "ionbeam:corrections_seen", source)
        return datetime.fromisoformat(found) if found else None

    def change(self, source: str, known: KnownCorrection) -> bool:
        return bool(self._server.run(_CHANGE, source, known.correction.id, known.number, _as_text(known), MOST_CLOSED))

    def open(self, source: str) -> list[KnownCorrection]:
        return sorted((one for one in self._all(source) if one.closed is None), key=lambda one: one.number)

    def closed(self, source: str) -> list[KnownCorrection]:
        return _latest_first([one for one in self._all(source) if one.closed is not None])

    def _all(self, source: str) -> list[KnownCorrection]:
        found = self._server.run(CALL, "HGETALL", f"ionbeam:corrections:{source}")
        return [_from_record(*one) for one in zip(found[::2], found[1::2], strict=True)]


def _from_record(id: str, record: str) -> KnownCorrection:
    told, number, state = json.loads(record)
    return _from_texts(id, told, int(number), state)
