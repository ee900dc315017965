"""Attempts: work that is open, how often it was tried in vain, and when it is to be tried next.

Belongs here: the records, what every ledger promises of them, and how SQLite and Redis keep them. Does not belong here:
what is work (pipeline/agenda.py decides); an entry only says that it is open.

A try is counted when the work is begun, so that a process that is killed by its work counts, too. The wait between two
tries doubles from FIRST_WAIT to LONGEST_WAIT, without end; work of another token begins anew.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.keys import ends_of, micros, moment, place_of, window_from
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite

_T = TypeVar("_T")

FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(minutes=10)


def wait_after(tries: int) -> timedelta:
    """How long to wait after so many tries, at least one of them."""
    return min(FIRST_WAIT * (1 << min(tries - 1, 10)), LONGEST_WAIT)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Open work of one window: its `token` (what it would be made from), and what became of it so far.

    `product` is a source, a dataset, or ``<dataset>/<format>``. It was tried `tries` times, `since` it was noted or
    first tried; `next` is when it may be tried (again), `error` why it failed last, empty where it did not say.
    """

    stage: str
    product: str
    window: Window
    token: str
    reason: str
    tries: int
    since: datetime
    next: datetime
    error: str = ""

    def may_begin(self, now: datetime) -> bool:
        """Whether it may be tried at `now`; also where the clock went back since, so that `next` is out of reach."""
        return now >= self.next or (self.tries > 0 and self.next - now > wait_after(self.tries))


class Attempts(Protocol):
    """Remembers open work. Every method is one transaction, and may be called from many processes at once."""

    def note(self, found: Sequence[Attempt]) -> None:
        """Remember work; what is known with the same token keeps its tries, and may begin as soon as either says."""
        ...

    def begin(self, begun: Sequence[Attempt], now: datetime) -> None:
        """Count one more try of each. (Of what is given, `tries`, `since`, `next` and `error` are not looked at.)"""
        ...

    def fail(self, stage: str, product: str, errors: Mapping[Window, str], now: datetime) -> None:
        """Remember why work that is open failed; it waits from now on."""
        ...

    def settle(self, stage: str, product: str, windows: Iterable[Window]) -> None:
        """Forget work that is done, or that is none any longer."""
        ...

    def open(self, stage: str | None = None, product: str | None = None) -> list[Attempt]:
        """All open work of a product's stage, or of all of them, in order of stage, product and window."""
        ...

    def note_reconciled(self, at: datetime) -> None:
        """Remember when all files were last compared with the ledger."""
        ...

    def reconciled(self) -> datetime | None:
        """When all files were last compared with the ledger; None: they never were."""
        ...


def _noted_over(known: Attempt | None, found: Attempt) -> Attempt:
    if known is None or known.token != found.token:
        return found
    if known.tries:
        return known
    return Attempt(
        known.stage, known.product, known.window, known.token, known.reason, 0, known.since,
        min(known.next, found.next), known.error,
    )  # fmt: skip


def _begun_over(known: Attempt | None, begun: Attempt, now: datetime) -> Attempt:
    same = known is not None and known.token == begun.token
    tries = known.tries + 1 if known is not None and same else 1
    since, error = (known.since, known.error) if known is not None and same else (now, "")
    return Attempt(
        begun.stage, begun.product, begun.window, begun.token, begun.reason, tries, min(since, now),
        now + wait_after(tries), error,
    )  # fmt: skip


def _failed_over(known: Attempt, error: str, now: datetime) -> Attempt:
    tries = max(known.tries, 1)
    return Attempt(
        known.stage, known.product, known.window, known.token, known.reason, tries, known.since,
        now + wait_after(tries), error,
    )  # fmt: skip


# --- SQLite -----------------------------------------------------------------------------------------------------------

_KEY = "stage = ? AND product = ? AND start = ? AND end = ?"
_PUT = "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class SqliteAttempts(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS attempts (
    stage TEXT, product TEXT, start INTEGER, end INTEGER, token TEXT, reason TEXT, tries INTEGER, since INTEGER,
    next INTEGER, error TEXT, PRIMARY KEY (stage, product, start, end)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reconciled (only INTEGER PRIMARY KEY CHECK (only = 1), at INTEGER);
"""

    def note(self, found: Sequence[Attempt]) -> None:
        self._change(found, lambda known, one: _noted_over(known, one))

    def begin(self, begun: Sequence[Attempt], now: datetime) -> None:
        self._change(begun, lambda known, one: _begun_over(known, one, now))

    def fail(self, stage: str, product: str, errors: Mapping[Window, str], now: datetime) -> None:
        with self._file.writing() as db:
            for window, error in errors.items():
                known = _known(db, stage, product, window)
                if known is not None:
                    db.execute(_PUT, _row(_failed_over(known, error, now)))

    def settle(self, stage: str, product: str, windows: Iterable[Window]) -> None:
        keys = [(stage, product, *ends_of(window)) for window in windows]
        if keys:
            with self._file.writing() as db:
                db.executemany(f"DELETE FROM attempts WHERE {_KEY}", keys)

    def open(self, stage: str | None = None, product: str | None = None) -> list[Attempt]:
        wanted = [(name, given) for name, given in (("stage", stage), ("product", product)) if given is not None]
        where = " AND ".join(f"{name} = ?" for name, _ in wanted) or "1"
        with self._file.reading() as db:
            rows = db.execute(
                f"SELECT * FROM attempts WHERE {where} ORDER BY stage, product, start", [given for _, given in wanted]
            ).fetchall()
        return [_attempt(*row) for row in rows]

    def note_reconciled(self, at: datetime) -> None:
        with self._file.writing() as db:
            db.execute("INSERT OR REPLACE INTO reconciled VALUES (1, ?)", (micros(at),))

    def reconciled(self) -> datetime | None:
        with self._file.reading() as db:
            row = db.execute("SELECT at FROM reconciled").fetchone()
        return moment(row[0]) if row else None

    def _change(self, given: Sequence[Attempt], after: Callable[[Attempt | None, Attempt], Attempt]) -> None:
        if not given:
            return
        with self._file.writing() as db:
            for one in given:
                db.execute(_PUT, _row(after(_known(db, one.stage, one.product, one.window), one)))


def _known(db: sqlite3.Connection, stage: str, product: str, window: Window) -> Attempt | None:
    row = db.execute(f"SELECT * FROM attempts WHERE {_KEY}", (stage, product, *ends_of(window))).fetchone()
    return _attempt(*row) if row else None


def _row(one: Attempt) -> tuple[Any, ...]:
    since, following = micros(one.since), micros(one.next)
    ends = ends_of(one.window)
    return (one.stage, one.product, *ends, one.token, one.reason, one.tries, since, following, one.error)


def _attempt(
    stage: str, product: str, start: int, end: int, token: str, reason: str, tries: int, since: int, next: int,
    error: str,
) -> Attempt:  # fmt: skip
    return Attempt(stage, product, window_from(start, end), token, reason, tries, moment(since), moment(next), error)


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:attempts                       the products of which work is open, as <stage> <product>
# ionbeam:attempts:<stage> <product>     the open work of each window, as JSON
# ionbeam:reconciled                     when all files were last compared with the ledger

_OPEN = """
local found, groups = {}, {}
if ARGV[1] ~= '' and ARGV[2] ~= '' then groups = {ARGV[1] .. ' ' .. ARGV[2]}
else groups = redis.call('SMEMBERS', 'ionbeam:attempts') end
for _, group in ipairs(groups) do
    local stage, product = group:match('^([^ ]+) (.*)$')
    if (ARGV[1] == '' or ARGV[1] == stage) and (ARGV[2] == '' or ARGV[2] == product) then
        for _, record in ipairs(redis.call('HVALS', 'ionbeam:attempts:' .. group)) do found[#found + 1] = record end
    end
end
return found
"""
_KNOWN = """
return redis.call('HMGET', 'ionbeam:attempts:' .. ARGV[1], unpack(ARGV, 2))
"""
_PUT_UNLESS_CHANGED = """
local key = 'ionbeam:attempts:' .. ARGV[1]
for i = 2, #ARGV, 3 do
    if (redis.call('HGET', key, ARGV[i]) or '') ~= ARGV[i + 1] then return 0 end
end
for i = 2, #ARGV, 3 do redis.call('HSET', key, ARGV[i], ARGV[i + 2]) end
redis.call('SADD', 'ionbeam:attempts', ARGV[1])
return 1
"""
_SETTLE = """
redis.call('HDEL', 'ionbeam:attempts:' .. ARGV[1], unpack(ARGV, 2))
if redis.call('EXISTS', 'ionbeam:attempts:' .. ARGV[1]) == 0 then redis.call('SREM', 'ionbeam:attempts', ARGV[1]) end
"""
_NOTE_RECONCILED = "redis.call('SET', 'ionbeam:reconciled', ARGV[1])"
_RECONCILED = "return redis.call('GET', 'ionbeam:reconciled')"
_AT_ONCE = 1000  # entries a script takes: Lua unpacks no more than some 8,000 arguments


class RedisAttempts(OnRedis):
    def note(self, found: Sequence[Attempt]) -> None:
        for group, some in _grouped(found):
            self._change(group, some, lambda known, one: _noted_over(known, one))

    def begin(self, begun: Sequence[Attempt], now: datetime) -> None:
        for group, some in _grouped(begun):
            self._change(group, some, lambda known, one: _begun_over(known, one, now))

    def fail(self, stage: str, product: str, errors: Mapping[Window, str], now: datetime) -> None:
        def failed(known: Attempt | None, error: str) -> Attempt | None:
            return None if known is None else _failed_over(known, error, now)

        for some in _portions(list(errors)):
            self._change(f"{stage} {product}", {window: errors[window] for window in some}, failed)

    def settle(self, stage: str, product: str, windows: Iterable[Window]) -> None:
        for some in _portions(list(windows)):
            self._server.run(_SETTLE, f"{stage} {product}", *map(place_of, some))

    def open(self, stage: str | None = None, product: str | None = None) -> list[Attempt]:
        found = map(_read, self._server.run(_OPEN, stage or "", product or ""))
        return sorted(found, key=attrgetter("stage", "product", "window"))

    def note_reconciled(self, at: datetime) -> None:
        self._server.run(_NOTE_RECONCILED, micros(at))

    def reconciled(self) -> datetime | None:
        at = self._server.run(_RECONCILED)
        return moment(int(at)) if at else None

    def _change(
        self, group: str, given: Mapping[Window, Any], after: Callable[[Attempt | None, Any], Attempt | None]
    ) -> None:
        """Put what follows from what is known; begun anew as long as others change it meanwhile."""
        while given:
            fields = {window: place_of(window) for window in given}
            before = dict(zip(given, self._server.run(_KNOWN, group, *fields.values()), strict=True))
            entries: list[str] = []
            for window, one in given.items():
                record = before[window]
                put = after(_read(record) if record else None, one)
                if put is not None:
                    entries += [fields[window], record or "", _written(put)]
            if not entries or self._server.run(_PUT_UNLESS_CHANGED, group, *entries):
                return


def _grouped(given: Sequence[Attempt]) -> Iterator[tuple[str, dict[Window, Attempt]]]:
    for (stage, product), group in groupby(
        sorted(given, key=attrgetter("stage", "product")), key=attrgetter("stage", "product")
    ):
        for some in _portions(list(group)):
            yield f"{stage} {product}", {one.window: one for one in some}


def _portions(given: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(given), _AT_ONCE):
        yield given[start : start + _AT_ONCE]


def _written(one: Attempt) -> str:
    return json.dumps(_row(one))


def _read(record: str) -> Attempt:
    return _attempt(*json.loads(record))
