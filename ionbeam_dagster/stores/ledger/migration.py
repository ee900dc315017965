"""What earlier versions kept, and its way into this version's ledger: the one place of old forms.

Belongs here: what is done to every SQLite file that is opened, each subject bringing its own tables; and the file
``bus.sqlite`` of one machine, in which the doors' records stood beside the ledger. Does not belong here: this version's
forms. Records in Redis need none of it: what a key lacks there is absent.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ionbeam_dagster.stores.ledger.errors import LedgerError
from ionbeam_dagster.stores.ledger.keys import KEPT_FOR, micros
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import Column, OnSqlite

Row = tuple[Any, ...]
_NAMES = re.compile(r"CREATE (?:TABLE|INDEX) IF NOT EXISTS (\w+)")

EarlierBus = dict[str, list[Row]]
"""The records of a ``bus.sqlite``, as rows of the tables that SQLite's ledger now has for them."""


def migrate(db: sqlite3.Connection, tables: Iterable[str], added: Iterable[Column], indices: Iterable[str]) -> None:
    """Make the tables that are missing, add the columns that earlier versions lack, and make the indices of these."""
    _make(db, "".join(tables))
    for table, column, kind in added:
        if not _has_column(db, table, column):
            db.execute("BEGIN IMMEDIATE")
            if not _has_column(db, table, column):  # another process may have been quicker
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
            db.execute("COMMIT")
    _make(db, "".join(indices))


def _make(db: sqlite3.Connection, script: str) -> None:
    """Make what is missing of a script's tables and indices, in one transaction: each waits for the disk."""
    there = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
    if not there.issuperset(_NAMES.findall(script)):
        db.executescript(f"BEGIN IMMEDIATE;{script}COMMIT;")


def _has_column(db: sqlite3.Connection, table: str, column: str) -> bool:
    return column in {row[1] for row in db.execute(f"PRAGMA table_info({table})")}


# --- bus.sqlite -------------------------------------------------------------------------------------------------------

_EARLIER = {
    "taken": "SELECT id, source, start, end, at FROM taken",
    "parts": "SELECT id, part, parts, said, source, path FROM parts",
    "payloads": "SELECT location, source, at FROM payloads",
    "unreported": "SELECT source, start, end, commands, rows, last FROM unreported",
    "refused": "SELECT number, queue, message_id, reason, at FROM refused ORDER BY number",
    "accepted": "SELECT dataset FROM accepted",
    "too_early": "SELECT source, commands, first, at FROM too_early",
    "strangers": "SELECT source, sender, messages, at FROM strangers",
    "requests": "SELECT source, start, end, times, last, answered FROM asked",
    "source_requests": (
        "SELECT number, id, source, start, end, EXISTS (SELECT 1 FROM wanted_from_cache c WHERE c.id = wanted.id) "
        "FROM wanted"
    ),
    "replays": "SELECT id, command, sent, done FROM replays",
    "announced": "SELECT 1, value FROM cursors WHERE name = 'announced'",
}
_EARLIER_NAMES = {"requests": "asked", "source_requests": "wanted_from_cache", "announced": "cursors"}
_TIMES = {"start", "end", "last", "answered", "first"}


@contextmanager
def earlier_bus(path: Path) -> Iterator[EarlierBus]:
    """What the file holds. Once the block has ended well, it stands beside as ``bus.sqlite.taken-over``.

    Raises LedgerError when it cannot be read, or while a process of the earlier version uses it.
    """
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as db:
        try:
            db.execute("PRAGMA journal_mode=DELETE")  # which nobody can do as long as others have it open
            db.row_factory = sqlite3.Row
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
            old = {
                table: [_converted(row) for row in db.execute(query)]
                for table, query in _EARLIER.items()
                if _EARLIER_NAMES.get(table, table) in tables
            }
        except sqlite3.Error as error:
            raise LedgerError(
                f"{path} of an earlier version cannot be taken over ({error}); end all processes of that version, or, "
                "if it is damaged, move it away"
            ) from error
    now = datetime.now(UTC)
    old["taken"] = [row for row in old.get("taken", []) if row[-1] >= micros(now - KEPT_FOR)]
    old["replays"] = [(*row, micros(now)) for row in old.get("replays", [])]
    yield old
    path.rename(path.with_name(f"{path.name}.taken-over"))


def _converted(row: sqlite3.Row) -> Row:
    """A row with its times, which were ISO 8601 or seconds, in microseconds."""

    def converted(name: str, value: Any) -> Any:
        if name == "at":
            return round(value * 1_000_000)
        is_time = name in _TIMES and isinstance(value, str) and value[4:5] == "-" and "T" in value
        return micros(datetime.fromisoformat(value)) if is_time else value

    return tuple(converted(name, row[name]) for name in row.keys())  # noqa: SIM118  # a row's `in` looks at its values


class TakesOver(Protocol):
    """Takes over what an earlier version kept beside the ledger."""

    def take_over(self, earlier: EarlierBus) -> None:
        """Put records of the doors into the ledger that it does not have; what it has is left alone."""
        ...


class SqliteTakesOver(OnSqlite):
    def take_over(self, earlier: EarlierBus) -> None:
        with self._file.writing() as db:
            for table, rows in earlier.items():
                for row in rows:
                    db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)


_CALL_ALL = """
for _, call in ipairs(cjson.decode(ARGV[1])) do redis.call(unpack(call)) end
"""


class RedisTakesOver(OnRedis):
    def take_over(self, earlier: EarlierBus) -> None:
        calls = [[str(part) for part in call] for call in _calls(earlier)]
        self._server.run(_CALL_ALL, json.dumps(calls))


def _calls(earlier: EarlierBus) -> Iterator[tuple[object, ...]]:
    """The commands of Redis that put the rows where each subject has them."""
    rows = {table: earlier.get(table, []) for table in _EARLIER}
    for id, source, start, end, at in rows["taken"]:
        yield "ZADD", "ionbeam:taken", "NX", at, id
        yield "HSETNX", "ionbeam:taken:ranges", id, f"{start} {end} {source}"
    for part in rows["parts"]:
        yield "SADD", "ionbeam:parts", part[0]
        yield "HSETNX", f"ionbeam:parts:{part[0]}", part[1], json.dumps(part)
    for name, source, at in rows["payloads"]:
        yield "ZADD", "ionbeam:payloads", "NX", at, name
        yield "HSETNX", "ionbeam:payloads:sources", name, source
    for source, start, end, commands, count, last in rows["unreported"]:
        yield "ZADD", "ionbeam:unreported", "NX", start, f"{start}:{end} {source}"
        yield "HSETNX", "ionbeam:unreported:arrivals", f"{start}:{end} {source}", f"{commands} {count} {last}"
    for refusal in rows["refused"]:
        record = json.dumps(refusal[1:])
        yield "LREM", "ionbeam:refused", 0, record
        yield "LPUSH", "ionbeam:refused", record
    for (dataset,) in rows["accepted"]:
        yield "SADD", "ionbeam:accepted", dataset
    for source, commands, first, at in rows["too_early"]:
        yield "HSETNX", "ionbeam:too_early", source, f"{commands} {first} {at}"
    for source, sender, messages, at in rows["strangers"]:
        yield "HSETNX", "ionbeam:strangers", json.dumps([source, sender]), f"{messages} {at}"
    for source, start, end, times, last, answered in rows["requests"]:
        window = f"{start}:{end}"
        yield "ZADD", "ionbeam:requests", "NX", last, f"{window} {source}"
        yield "HSETNX", f"ionbeam:requests:{source}", window, f"{times} {last} {'' if answered is None else answered}"
        yield "ZADD", f"ionbeam:requested:{source}", "NX", start, window
        if answered is None:
            yield "ZADD", f"ionbeam:unanswered:{source}", "NX", start, window
    for number, id, source, start, end, use_cache in rows["source_requests"]:
        yield "ZADD", "ionbeam:source_requests", "NX", number, id
        yield "HSETNX", "ionbeam:source_requests:kept", id, json.dumps([source, f"{start}:{end}", bool(use_cache)])
    for id, command, sent, done, at in rows["replays"]:
        yield "ZADD", "ionbeam:replays", "NX", at, id
        yield "HSETNX", "ionbeam:replays:commands", id, command
        yield "HSETNX", "ionbeam:replays:sent", id, sent
        if not done:
            yield "ZADD", "ionbeam:replays:open", "NX", at, id
    for _, number in rows["announced"]:
        yield "SET", "ionbeam:announced", number, "NX"
