"""Attempts: work that is open, how often it was tried in vain, and when it is to be tried next.

Belongs here: the records, what every ledger promises of them, and how SQLite and Redis keep them. Does not belong here:
what is work (pipeline/agenda decides); an entry only says that it is open.

A try is counted when the work is begun, so that a process that is killed by its work counts, too. The wait between two
tries doubles from FIRST_WAIT to LONGEST_WAIT, without end; work of another token begins anew. Since when a window
fails, and how often it did, is kept whatever its token is, until it succeeds.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, ClassVar, Protocol, TypeVar

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.keys import ends_of, micros, moment, place_of, window_from
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import Column, OnSqlite

_T = TypeVar("_T")

FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(minutes=10)


def wait_after(tries: int) -> timedelta:
    """How long to wait after so many tries, at least one of them."""
    return min(FIRST_WAIT * (1 << min(tries - 1, 10)), LONGEST_WAIT)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Open work of one window: its `token` (what it would be made from), and what became of it so far.

    `product` is a source, a dataset, or ``<dataset>/<format>``. It was tried `tries` times; `next` is when it may be
    tried (again), `error` why it failed last, empty where it did not say. `was_tried` is False where it failed last
    because the run that it was in ended before its turn.

    `failures` counts all tries of the window since it last succeeded, also those of other tokens; `since` is when the
    first of them began, or, where there was none, when the work was noted.
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
    failures: int = 0
    was_tried: bool = True

    def may_begin(self, now: datetime) -> bool:
        """Whether it may be tried at `now`; also where the clock went back since, so that `next` is out of reach."""
        return now >= self.next or (self.tries > 0 and self.next - now > wait_after(self.tries))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a window failed; `was_tried` is False where the run that it was in ended before its turn."""

    error: str
    was_tried: bool = True


class Attempts(Protocol):
    """Remembers open work. Every method is one transaction, and may be called from many processes at once."""

    def note(self, found: Sequence[Attempt]) -> None:
        """Remember work; what is known with the same token keeps its tries, and may begin as soon as either says."""
        ...

    def note_unless_open(self, found: Sequence[Attempt]) -> list[Attempt]:
        """Remember work of those windows that have none open, and leave the others as they are; returns the former."""
        ...

    def begin(self, begun: Sequence[Attempt], now: datetime) -> None:
        """Count one more try of each. (Of what is given, only what it is, its token and its reason are looked at.)"""
        ...

    def fail(self, stage: str, product: str, failures: Mapping[Window, Failure], now: datetime) -> None:
        """Remember why work that is open failed; it waits from now on."""
        ...

    def settle(self, stage: str, product: str, tokens: Mapping[Window, str], now: datetime) -> None:
        """Forget work that is done, or that is none any longer, where its token is still this one.

        Where another one was noted meanwhile, that stays, as work that never failed.
        """
        ...

    def open(self, stage: str | None = None, product: str | None = None) -> list[Attempt]:
        """All open work of a product's stage, or of all of them, in order of stage, product and window."""
        ...


def _noted_over(known: Attempt | None, found: Attempt) -> Attempt:
    if known is None:
        return found
    if known.token != found.token:
        return _failing_as(known, found) if known.failures else found
    return known if known.tries else replace(known, next=min(known.next, found.next))


def _failing_as(known: Attempt, new: Attempt) -> Attempt:
    """Work of another token of a window that goes on failing."""
    return replace(
        new, since=known.since, error=known.error, failures=known.failures, was_tried=known.was_tried
    )  # fmt: skip


def _begun_over(known: Attempt | None, begun: Attempt, now: datetime) -> Attempt:
    tries = known.tries + 1 if known is not None and known.token == begun.token else 1
    fresh = replace(begun, tries=tries, since=now, next=now + wait_after(tries), error="", failures=0, was_tried=True)
    before = known if known is not None and known.failures else fresh
    return replace(
        _failing_as(before, fresh), since=min(before.since, now), failures=before.failures + 1
    )  # fmt: skip


def _failed_over(known: Attempt, failure: Failure, now: datetime) -> Attempt:
    tries = max(known.tries, 1)
    return replace(
        known, tries=tries, next=now + wait_after(tries), error=failure.error, was_tried=failure.was_tried,
        failures=max(known.failures, 1),
    )  # fmt: skip


def _settled_over(known: Attempt | None, token: str, now: datetime) -> Attempt | None:
    """What is left open of a window whose work of `token` is done."""
    if known is None or known.token == token:
        return None
    return replace(known, tries=0, since=now, error="", failures=0, was_tried=True)


# --- SQLite -----------------------------------------------------------------------------------------------------------

_KEY = "stage = ? AND product = ? AND start = ? AND end = ?"
_COLUMNS = "stage, product, start, end, token, reason, tries, since, next, error, failures, was_tried"
_PUT = f"INSERT OR REPLACE INTO attempts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class SqliteAttempts(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS attempts (
    stage TEXT, product TEXT, start INTEGER, end INTEGER, token TEXT, reason TEXT, tries INTEGER, since INTEGER,
    next INTEGER, error TEXT, failures INTEGER, was_tried INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (stage, product, start, end)
) WITHOUT ROWID;
"""
    ADDED: ClassVar[tuple[Column, ...]] = (
        ("attempts", "failures", "INTEGER"),
        ("attempts", "was_tried", "INTEGER NOT NULL DEFAULT 1"),
    )

    def note(self, found: Sequence[Attempt]) -> None:
        self._change(found, _noted_over)

    def note_unless_open(self, found: Sequence[Attempt]) -> list[Attempt]:
        noted = []
        with self._file.writing() as db:
            for one in found:
                if _known(db, one.stage, one.product, one.window) is None:
                    db.execute(_PUT, _row(one))
                    noted.append(one)
        return noted

    def begin(self, begun: Sequence[Attempt], now: datetime) -> None:
        self._change(begun, lambda known, one: _begun_over(known, one, now))

    def fail(self, stage: str, product: str, failures: Mapping[Window, Failure], now: datetime) -> None:
        with self._file.writing() as db:
            for window, failure in failures.items():
                known = _known(db, stage, product, window)
                if known is not None:
                    db.execute(_PUT, _row(_failed_over(known, failure, now)))

    def settle(self, stage: str, product: str, tokens: Mapping[Window, str], now: datetime) -> None:
        if not tokens:
            return
        with self._file.writing() as db:
            for window, token in tokens.items():
                left = _settled_over(_known(db, stage, product, window), token, now)
                if left is None:
                    db.execute(f"DELETE FROM attempts WHERE {_KEY}", (stage, product, *ends_of(window)))
                else:
                    db.execute(_PUT, _row(left))

    def open(self, stage: str | None = None, product: str | None = None) -> list[Attempt]:
        wanted = [(name, given) for name, given in (("stage", stage), ("product", product)) if given is not None]
        where = " AND ".join(f"{name} = ?" for name, _ in wanted) or "1"
        with self._file.reading() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM attempts WHERE {where} ORDER BY stage, product, start",
                [given for _, given in wanted],
            ).fetchall()
        return [_attempt(*row) for row in rows]

    def _change(self, given: Sequence[Attempt], after: Callable[[Attempt | None, Attempt], Attempt]) -> None:
        if not given:
            return
        with self._file.writing() as db:
            for one in given:
                db.execute(_PUT, _row(after(_known(db, one.stage, one.product, one.window), one)))


def _known(db: sqlite3.Connection, stage: str, product: str, window: Window) -> Attempt | None:
    row = db.execute(f"SELECT {_COLUMNS} FROM attempts WHERE {_KEY}", (stage, product, *ends_of(window))).fetchone()
    return _attempt(*row) if row else None


def _row(one: Attempt) -> tuple[Any, ...]:
    since, following = micros(one.since), micros(one.next)
    return (
        one.stage, one.product, *ends_of(one.window), one.token, one.reason, one.tries, since, following, one.error,
        one.failures, int(one.was_tried),
    )  # fmt: skip


def _attempt(
    stage: str, product: str, start: int, end: int, token: str, reason: str, tries: int, since: int, next: int,
    error: str, failures: int | None = None, was_tried: int = 1,
) -> Attempt:  # fmt: skip
    """An entry; one of an earlier version, which counted no failures, has failed as often as it was tried."""
    return Attempt(
        stage, product, window_from(start, end), token, reason, tries, moment(since), moment(next), error,
        tries if failures is None else failures, bool(was_tried),
    )  # fmt: skip


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:attempts                       the products of which work is open, as <stage> <product>
# ionbeam:attempts:<stage> <product>     the open work of each window, as JSON

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
for i = 2, #ARGV, 3 do
    if ARGV[i + 2] == '' then redis.call('HDEL', key, ARGV[i]) else redis.call('HSET', key, ARGV[i], ARGV[i + 2]) end
end
if redis.call('EXISTS', key) == 1 then redis.call('SADD', 'ionbeam:attempts', ARGV[1])
else redis.call('SREM', 'ionbeam:attempts', ARGV[1]) end
return 1
"""
_AT_ONCE = 1000  # entries a script takes: Lua unpacks no more than some 8,000 arguments


class RedisAttempts(OnRedis):
    def note(self, found: Sequence[Attempt]) -> None:
        for group, some in _grouped(found):
            self._change(group, some, _noted_over)

    def note_unless_open(self, found: Sequence[Attempt]) -> list[Attempt]:
        noted: list[Attempt] = []
        for group, some in _grouped(found):
            before = self._change(group, some, lambda known, one: known or one)
            noted += [one for window, one in some.items() if before[window] is None]
        return noted

    def begin(self, begun: Sequence[Attempt], now: datetime) -> None:
        for group, some in _grouped(begun):
            self._change(group, some, lambda known, one: _begun_over(known, one, now))

    def fail(self, stage: str, product: str, failures: Mapping[Window, Failure], now: datetime) -> None:
        def failed(known: Attempt | None, failure: Failure) -> Attempt | None:
            return None if known is None else _failed_over(known, failure, now)

        for some in _portions(list(failures)):
            self._change(f"{stage} {product}", {window: failures[window] for window in some}, failed)

    def settle(self, stage: str, product: str, tokens: Mapping[Window, str], now: datetime) -> None:
        def settled(known: Attempt | None, token: str) -> Attempt | None:
            return _settled_over(known, token, now)

        for some in _portions(list(tokens)):
            self._change(f"{stage} {product}", {window: tokens[window] for window in some}, settled)

    def open(self, stage: str | None = None, product: str | None = None) -> list[Attempt]:
        found = map(_read, self._server.run(_OPEN, stage or "", product or ""))
        return sorted(found, key=attrgetter("stage", "product", "window"))

    def _change(
        self, group: str, given: Mapping[Window, Any], after: Callable[[Attempt | None, Any], Attempt | None]
    ) -> dict[Window, Attempt | None]:
        """Put what follows from what is known (None: nothing), begun anew as long as others change it meanwhile;
        returns what was known."""
        fields = {window: place_of(window) for window in given}
        while True:
            records = dict(zip(given, self._server.run(_KNOWN, group, *fields.values()), strict=True))
            known = {window: _read(record) if record else None for window, record in records.items()}
            entries: list[str] = []
            for window, one in given.items():
                put = after(known[window], one)
                if put != known[window]:
                    entries += [fields[window], records[window] or "", _written(put) if put else ""]
            if not entries or self._server.run_once(_PUT_UNLESS_CHANGED, group, *entries):
                return known


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
