"""What the doors remember: what was taken in, and of the bus what was refused, asked for and announced.

Belongs here: these records, in one SQLite file of the platform's state folder, shared by the processes of one machine.
Does not belong here: raw files, claims and revisions, which are the ledger's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ionbeam_client.models import ReplayDatasetsCommand, StartSourceCommand
from ionbeam_client.state import Database
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.locks import JobLock

_SCHEMA = """
CREATE TABLE IF NOT EXISTS taken (
    id TEXT PRIMARY KEY, source TEXT, start TEXT, end TEXT, rows INTEGER, at REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
    id TEXT, part INTEGER, parts INTEGER, said TEXT, source TEXT, path TEXT, at REAL, PRIMARY KEY (id, part)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS payloads (location TEXT PRIMARY KEY, source TEXT, at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unreported (
    source TEXT, start TEXT, end TEXT, commands INTEGER, rows INTEGER, last TEXT, PRIMARY KEY (source, start, end)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
    number INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT, message_id TEXT, reason TEXT, at REAL
);
CREATE TABLE IF NOT EXISTS accepted (dataset TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (
    source TEXT, start TEXT, end TEXT, times INTEGER, last TEXT, answered TEXT, PRIMARY KEY (source, start, end)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS wanted (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, source TEXT, start TEXT, end TEXT, at REAL
);
CREATE TABLE IF NOT EXISTS wanted_from_cache (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replays (id TEXT PRIMARY KEY, command TEXT, sent INTEGER, done INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS too_early (source TEXT PRIMARY KEY, commands INTEGER, first TEXT, at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS strangers (
    source TEXT, sender TEXT, messages INTEGER, at REAL, PRIMARY KEY (source, sender)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursors (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
"""
_REFUSALS_KEPT = 1_000

ANNOUNCED = "announced"
"""The cursor of the ledger's feed: what was published."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A command whose raw file is durable; `windows` are those of its source that it touches, `payload` is the name of
    the file in the payload store that had its rows, if one had."""

    id: str
    source: str
    collected: Window
    rows: int
    windows: Sequence[Window]
    payload: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One of several messages of a command; `said` stands for all that they must say alike."""

    id: str
    part: int
    parts: int
    said: str
    source: str
    path: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """A window of an external source into which something came, and Dagster has not been told."""

    source: str
    window: Window
    commands: int
    rows: int
    last: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A window that a client was asked for: how often, when last, and when its answer came, if it did."""

    source: str
    window: Window
    times: int
    last: datetime
    answered: datetime | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range of a source of the platform's own that somebody asked for over the bus, from its cache if he said so."""

    number: int
    id: str
    source: str
    range: Window
    use_cache: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A message in the dead queue of `queue`, and why."""

    queue: str
    message_id: str
    reason: str
    at: datetime


class Inbox:
    """The records of the doors in the file ``<folder>/bus.sqlite``. Safe across threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = Database(folder / "bus.sqlite", _SCHEMA)

    def lock(self, job: str) -> JobLock:
        """The lock of a job that one process at a time may do."""
        return JobLock(self._folder / f"{job}.lock")

    # -- commands ------------------------------------------------------------------------------------------------

    def knows(self, id: str, part: int) -> bool:
        """Whether a command, or this part of it, was taken in before."""
        query = "SELECT 1 FROM taken WHERE id = ? UNION ALL SELECT 1 FROM parts WHERE id = ? AND part = ?"
        return bool(self._database.read(query, (id, id, part)))

    def count(self) -> int:
        """How many commands were ever taken in."""
        return int(self._database.read("SELECT count(*) FROM taken")[0][0])

    def add_parts(self, parts: Iterable[Part]) -> None:
        """Remember parts that are durable."""
        rows = [(p.id, p.part, p.parts, p.said, p.source, p.path, time.time()) for p in parts]
        with self._database.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def forget_part(self, id: str, part: int) -> None:
        """Forget a part that turned out not to belong to the others."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM parts WHERE id = ? AND part = ?", (id, part))

    def parts(self, id: str) -> list[Part]:
        """The parts of a command that are there, in order."""
        rows = self._database.read("SELECT id, part, parts, said, source, path FROM parts WHERE id = ?", (id,))
        return [Part(*row) for row in rows]

    def take(self, commands: Sequence[Taken]) -> None:
        """Remember commands for good, and that Dagster is to be told of them; their parts are forgotten."""
        now = datetime.now(UTC).isoformat()
        with self._database.transaction() as db:
            for one in commands:
                ends = (one.source, *_ends(one.collected))
                new = db.execute(
                    "INSERT OR IGNORE INTO taken VALUES (?, ?, ?, ?, ?, ?)", (one.id, *ends, one.rows, time.time())
                ).rowcount
                db.execute("DELETE FROM parts WHERE id = ?", (one.id,))
                if one.payload is not None:
                    db.execute(
                        "INSERT OR REPLACE INTO payloads VALUES (?, ?, ?)", (one.payload, one.source, time.time())
                    )
                if new:
                    db.executemany(
                        "INSERT INTO unreported VALUES (?, ?, ?, 1, ?, ?) ON CONFLICT DO UPDATE SET "
                        "commands = commands + 1, rows = rows + excluded.rows, last = excluded.last",
                        [(one.source, *_ends(window), one.rows, one.id) for window in one.windows],
                    )
                db.execute(_ANSWER, (now, *ends))

    def note_too_early(self, source: str, start: datetime) -> None:
        """Remember that a command says a range that begins before its source does."""
        with self._database.transaction(durable=False) as db:
            db.execute(
                "INSERT INTO too_early VALUES (?, 1, ?, ?) ON CONFLICT DO UPDATE SET commands = commands + 1, "
                "first = min(first, excluded.first), at = excluded.at",
                (source, start.isoformat(), time.time()),
            )

    def too_early(self) -> list[tuple[str, int, datetime, datetime]]:
        """(source, commands that begin before it, where the earliest does, when the last one came)."""
        rows = self._database.read("SELECT source, commands, first, at FROM too_early ORDER BY source")
        return [(row[0], row[1], datetime.fromisoformat(row[2]), datetime.fromtimestamp(row[3], UTC)) for row in rows]

    def note_stranger(self, source: str, sender: str) -> None:
        """Count a message for `source` from a user who may not send it."""
        with self._database.transaction(durable=False) as db:
            db.execute(
                "INSERT INTO strangers VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE SET messages = messages + 1, "
                "at = excluded.at",
                (source, sender, time.time()),
            )

    def strangers(self, limit: int) -> list[tuple[str, str, int, datetime]]:
        """(source, user, messages, when the last one came) of users who may not send a source, the last first."""
        rows = self._database.read("SELECT * FROM strangers ORDER BY at DESC LIMIT ?", (limit,))
        return [(row[0], row[1], row[2], datetime.fromtimestamp(row[3], UTC)) for row in rows]

    def answered_again(self, id: str) -> None:
        """A command that is known came once more: that answers whoever asked for its range."""
        rows = self._database.read("SELECT source, start, end FROM taken WHERE id = ?", (id,))
        with self._database.transaction(durable=False) as db:
            db.executemany(_ANSWER, [(datetime.now(UTC).isoformat(), *row) for row in rows])

    def payloads(self, before: datetime) -> list[tuple[str, str]]:
        """(name, source) of payloads whose rows became raw partitions before then (the last time, if several did)."""
        query = "SELECT location, source FROM payloads WHERE at < ? ORDER BY at"
        return [tuple(row) for row in self._database.read(query, (before.timestamp(),))]

    def forget_payload(self, location: str) -> None:
        """Forget a payload that is gone."""
        with self._database.transaction(durable=False) as db:
            db.execute("DELETE FROM payloads WHERE location = ?", (location,))

    def part_files(self) -> set[str]:
        """The files of all parts that wait for others."""
        return {str(row[0]) for row in self._database.read("SELECT path FROM parts")}

    def unfinished(self) -> list[tuple[str, str, int, int]]:
        """Commands of which parts are missing: (id, source, parts that are there, all parts)."""
        rows = self._database.read("SELECT id, source, count(*), max(parts) FROM parts GROUP BY id, source")
        return [tuple(row) for row in rows]

    # -- what Dagster is to be told --------------------------------------------------------------------------------

    def unreported(self, limit: int) -> list[Arrival]:
        """Windows of which Dagster is to be told, oldest first."""
        rows = self._database.read(
            "SELECT source, start, end, commands, rows, last FROM unreported ORDER BY start LIMIT ?", (limit,)
        )
        return [Arrival(row[0], _window(row[1], row[2]), *row[3:]) for row in rows]

    def reported(self, arrival: Arrival) -> None:
        """Dagster was told; what came into the window meanwhile is still to be told."""
        values = (arrival.source, *_ends(arrival.window), arrival.commands)
        with self._database.transaction(durable=False) as db:
            db.execute("DELETE FROM unreported WHERE source = ? AND start = ? AND end = ? AND commands = ?", values)

    # -- what was refused ------------------------------------------------------------------------------------------

    def refuse(self, refused: Sequence[tuple[str, str, str]]) -> None:
        """Remember (queue, message id, reason) of messages that are in a dead queue; the newest 1,000 are kept."""
        with self._database.transaction(durable=False) as db:
            db.executemany(
                "INSERT INTO refused (queue, message_id, reason, at) VALUES (?, ?, ?, ?)",
                [(*one, time.time()) for one in refused],
            )
            db.execute("DELETE FROM refused WHERE number <= (SELECT max(number) FROM refused) - ?", (_REFUSALS_KEPT,))

    def refusals(self, limit: int) -> list[Refused]:
        """The newest refusals, newest first."""
        rows = self._database.read(
            "SELECT queue, message_id, reason, at FROM refused ORDER BY number DESC LIMIT ?", (limit,)
        )
        return [Refused(queue, id, reason, datetime.fromtimestamp(at, UTC)) for queue, id, reason, at in rows]

    def mended(self, message_ids: Iterable[str]) -> None:
        """Forget refusals: these messages were sent back, and have been taken in."""
        with self._database.transaction(durable=False) as db:
            db.executemany("DELETE FROM refused WHERE message_id = ?", [(id,) for id in message_ids])

    def accept(self, dataset: str) -> None:
        """Remember that what was parked of a dataset is to be taken in by the first process whose YAML knows it."""
        with self._database.transaction() as db:
            db.execute("INSERT OR IGNORE INTO accepted VALUES (?)", (dataset,))

    def accepted(self) -> list[str]:
        return [str(row[0]) for row in self._database.read("SELECT dataset FROM accepted ORDER BY dataset")]

    def sent_back(self, dataset: str) -> None:
        """What was parked of a dataset is in its queue again."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM accepted WHERE dataset = ?", (dataset,))

    # -- what was asked for ----------------------------------------------------------------------------------------

    def ask(self, source: str, window: Window, now: datetime) -> int:
        """Remember that a client is asked for a window now; returns how often it was since its last answer."""
        with self._database.transaction() as db:
            row = db.execute(
                "INSERT INTO asked VALUES (?, ?, ?, 1, ?, NULL) ON CONFLICT DO UPDATE SET "
                "times = CASE WHEN answered IS NULL THEN times + 1 ELSE 1 END, last = excluded.last, answered = NULL "
                "RETURNING times",
                (source, *_ends(window), now.isoformat()),
            ).fetchone()
        return int(row[0])

    def asked(self, source: str, window: Window) -> Asked | None:
        """When a window, or the part of it that had passed, was last asked for; None: it never was."""
        start, end = _ends(window)
        rows = self._database.read(
            f"{_ASKED} WHERE source = ? AND start = ? AND end <= ? ORDER BY last DESC LIMIT 1", (source, start, end)
        )
        return _asked(rows[0]) if rows else None

    def unanswered(self, limit: int, source: str | None = None) -> list[Asked]:
        """Windows, of one source or all, that were asked for and did not come, those asked last first."""
        rows = self._database.read(
            f"{_ASKED} WHERE answered IS NULL AND source = ifnull(?, source) ORDER BY last DESC LIMIT ?",
            (source, limit),
        )
        return [_asked(row) for row in rows]

    def want(self, command: StartSourceCommand) -> None:
        """Remember that somebody wants a range of a source of the platform's own."""
        ends = (command.start_time.isoformat(), command.end_time.isoformat())
        with self._database.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO wanted (id, source, start, end, at) VALUES (?, ?, ?, ?, ?)",
                (str(command.id), command.source_name, *ends, time.time()),
            )
            if command.use_cache:
                db.execute("INSERT OR IGNORE INTO wanted_from_cache VALUES (?)", (str(command.id),))

    def wanted(self, after: int, limit: int) -> list[Wanted]:
        """The ranges that were wanted after number `after`, in order."""
        rows = self._database.read(
            "SELECT number, id, source, start, end, EXISTS (SELECT 1 FROM wanted_from_cache c WHERE c.id = wanted.id) "
            "FROM wanted WHERE number > ? ORDER BY number LIMIT ?",
            (after, limit),
        )
        return [Wanted(row[0], row[1], row[2], _window(row[3], row[4]), bool(row[5])) for row in rows]

    # -- what is to be announced -----------------------------------------------------------------------------------

    def cursor(self, name: str) -> int:
        rows = self._database.read("SELECT value FROM cursors WHERE name = ?", (name,))
        return int(rows[0][0]) if rows else 0

    def move(self, name: str, value: int) -> None:
        """Move a cursor. A power cut may set it back: what it stands for is then done again."""
        with self._database.transaction(durable=False) as db:
            db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (name, value))

    def add_replay(self, command: ReplayDatasetsCommand) -> None:
        """Remember that an exporter wants what was built before."""
        values = (str(command.id), command.model_dump_json())
        with self._database.transaction() as db:
            db.execute("INSERT OR IGNORE INTO replays VALUES (?, ?, 0, 0)", values)

    def next_replay(self) -> tuple[ReplayDatasetsCommand, int] | None:
        """A replay that is not done, and how many of its windows are sent."""
        rows = self._database.read("SELECT command, sent FROM replays WHERE NOT done LIMIT 1")
        return (ReplayDatasetsCommand.from_wire(rows[0][0]), int(rows[0][1])) if rows else None

    def replayed(self, id: str, sent: int, done: bool) -> None:
        with self._database.transaction(durable=done) as db:
            db.execute("UPDATE replays SET sent = ?, done = ? WHERE id = ?", (sent, done, id))

    def close(self) -> None:
        self._database.close()


_ASKED = "SELECT source, start, end, times, last, answered FROM asked"
_ANSWER = "UPDATE asked SET answered = ? WHERE source = ? AND answered IS NULL AND start >= ? AND end <= ?"


def _ends(window: Window) -> tuple[str, str]:
    return window.start.isoformat(), window.end.isoformat()


def _window(start: str, end: str) -> Window:
    return Window(datetime.fromisoformat(start), datetime.fromisoformat(end))


def _asked(row: Any) -> Asked:
    answered = datetime.fromisoformat(row[5]) if row[5] else None
    return Asked(row[0], _window(row[1], row[2]), row[3], datetime.fromisoformat(row[4]), answered)
