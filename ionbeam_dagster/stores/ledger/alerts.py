"""Alerts: the troubles that are there, since when, and whether somebody was told.

Belongs here: the records, and how SQLite and Redis keep them. Does not belong here: what is a trouble, or how people
are told (health/alerts.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ionbeam_dagster.stores.ledger.keys import micros, moment
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


@dataclass(frozen=True, slots=True)
class Alert:
    """A trouble with `subject`, seen first at `since`; `told` is whether somebody was told that it began."""

    subject: str
    since: datetime
    words: str
    told: bool = False


class Alerts(Protocol):
    """Remembers troubles. Every method is one transaction, and may be called from many processes at once."""

    def keep(self, alert: Alert) -> None:
        """Remember a trouble as it is now."""
        ...

    def end(self, subject: str) -> None:
        """There is no trouble with this subject any longer."""
        ...

    def all(self) -> list[Alert]:
        """The troubles that are there, in order of their subjects."""
        ...

    def looked_since(self, source: str, now: datetime) -> datetime:
        """Since when it is looked whether a source falls silent: from `now` on, where nobody did before, or by a clock
        that was ahead."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteAlerts(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS alerts (subject TEXT PRIMARY KEY, since INTEGER, words TEXT, told INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS looked (source TEXT PRIMARY KEY, since INTEGER) WITHOUT ROWID;
"""

    def keep(self, alert: Alert) -> None:
        with self._file.writing() as db:
            row = (alert.subject, micros(alert.since), alert.words, int(alert.told))
            db.execute("INSERT OR REPLACE INTO alerts VALUES (?, ?, ?, ?)", row)

    def end(self, subject: str) -> None:
        with self._file.writing() as db:
            db.execute("DELETE FROM alerts WHERE subject = ?", (subject,))

    def all(self) -> list[Alert]:
        with self._file.reading() as db:
            rows = db.execute("SELECT * FROM alerts ORDER BY subject").fetchall()
        return [Alert(subject, moment(since), words, bool(told)) for subject, since, words, told in rows]

    def looked_since(self, source: str, now: datetime) -> datetime:
        with self._file.reading() as db:
            known = db.execute("SELECT since FROM looked WHERE source = ?", (source,)).fetchone()
        if known is not None and known[0] <= micros(now):
            return moment(known[0])
        with self._file.writing() as db:
            (since,) = db.execute(
                "INSERT INTO looked VALUES (?, ?) ON CONFLICT DO UPDATE SET since = min(since, excluded.since) "
                "RETURNING since",
                (source, micros(now)),
            ).fetchone()
        return moment(since)


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:alerts         of each subject since when, the words, and whether somebody was told, as JSON
# ionbeam:looked         of each source since when it is looked whether it falls silent

_KEEP = "redis.call('HSET', 'ionbeam:alerts', ARGV[1], ARGV[2])"
_END = "redis.call('HDEL', 'ionbeam:alerts', ARGV[1])"
_ALL = "return redis.call('HGETALL', 'ionbeam:alerts')"
_LOOKED = """
local known = redis.call('HGET', 'ionbeam:looked', ARGV[1])
if known and tonumber(known) <= tonumber(ARGV[2]) then return known end
redis.call('HSET', 'ionbeam:looked', ARGV[1], ARGV[2])
return ARGV[2]
"""


class RedisAlerts(OnRedis):
    def keep(self, alert: Alert) -> None:
        self._server.run(_KEEP, alert.subject, json.dumps([micros(alert.since), alert.words, alert.told]))

    def end(self, subject: str) -> None:
        self._server.run(_END, subject)

    def all(self) -> list[Alert]:
        found = self._server.run(_ALL)
        alerts = []
        for subject, record in sorted(zip(found[::2], found[1::2], strict=True)):
            since, words, told = json.loads(record)
            alerts.append(Alert(subject, moment(int(since)), words, told))
        return alerts

    def looked_since(self, source: str, now: datetime) -> datetime:
        return moment(int(self._server.run(_LOOKED, source, micros(now))))
