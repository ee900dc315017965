"""What the HTTP door remembers beside its journal: how far it was taken in, numbers that were seen, what is parked.

Belongs here: these records, in one SQLite file of the platform's state folder. Does not belong here: the journal, or
the parked lines themselves (flush.py).
"""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ionbeam_client.archfx.utils.slugs import ArchFxDeviceSlug
from ionbeam_client.state import Database
from ionbeam_client.text import visible
from ionbeam_dagster.doors.http.counters import Counter
from ionbeam_dagster.doors.http.refusals import Refusals
from ionbeam_dagster.doors.http.sequences import Seen
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.publish import DAMAGED

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS listened (source TEXT PRIMARY KEY, since INTEGER, until INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (
    source TEXT, device TEXT, streamer TEXT, numbers BLOB, PRIMARY KEY (source, device, streamer)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (
    source TEXT, device TEXT, streamer TEXT, before BLOB, after INTEGER, newest INTEGER, noticed INTEGER,
    PRIMARY KEY (source, device, streamer)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parked (
    source TEXT, measurement TEXT, reason TEXT, lines INTEGER, last INTEGER, sample TEXT,
    PRIMARY KEY (source, measurement, reason)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS done (source TEXT, file TEXT, PRIMARY KEY (source, file)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failed (
    source TEXT, file TEXT, reason TEXT, since INTEGER, PRIMARY KEY (source, file)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS left_out (source TEXT PRIMARY KEY, readings INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
    source TEXT, status INTEGER, requests INTEGER, last INTEGER, reason TEXT, PRIMARY KEY (source, status)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS looked (source TEXT PRIMARY KEY, mapping TEXT) WITHOUT ROWID;
"""
_SAMPLE = 200
_TOLD_FOR = 7 * 86_400 * 10**9  # ns
_REASON = 2_000
_AGAIN = "once that is set, start `ionbeam receive` again: it looks at these lines again"
_REMEDIES = {
    "is from": _AGAIN,
    "has true or false": _AGAIN,
    "has a text": "correct what the station sends; these lines stay as they are",
    "the configuration has no": "if it should be there, add it and start `ionbeam receive` again",
}
"""What helps where `ionbeam source accept` cannot, by how a reason begins."""
_UNREAD = " cannot be read ("
_MOVE = "stop `ionbeam receive`, move the file out of that folder and keep it, and start it again"
_NAME = "door.sqlite"


@dataclass(frozen=True, slots=True)
class Listened:
    """[since, until) in ns since 1970: the time that the door listened for a source and that no claim tells of."""

    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Parked:
    """`lines` of a measurement that could not be taken in for one reason, the last at `last`; `sample` is one of them,
    as plain lines are, but no longer than 200 characters."""

    source: str
    measurement: str
    reason: str
    lines: int
    last: datetime
    sample: str

    @property
    def unread(self) -> Path | None:
        """The file of parked lines that cannot be read, where that is what is told."""
        path, is_one, _ = self.reason.partition(_UNREAD)
        return Path(path) if is_one and not self.measurement else None

    @property
    def remedy(self) -> str:
        """What helps; of most kinds the reason names the key to set."""
        if self.unread is not None:
            return _MOVE
        for begins, remedy in _REMEDIES.items():
            if self.reason.startswith(begins):
                return remedy
        return f"`ionbeam source accept {self.source}`"


@dataclass(frozen=True, slots=True)
class SetAside:
    """The `file` of the journal cannot be taken in as far as it is of `source`, of no source because it cannot be read:
    for this `reason`, and `since` then. It stays where it is, and is tried again."""

    source: str
    file: Path
    reason: str
    since: datetime

    @property
    def remedy(self) -> str:
        return "fix what it names, then start `ionbeam receive` again; its log tells more" if self.source else _MOVE

    def in_words(self) -> str:
        what = f"{self.source}: what was written" if self.source else "what was written"
        since = f"cannot be taken in since {self.since:%Y-%m-%d %H:%M}, stays in {self.file} and is tried again"
        return f"{what} {since}: {self.reason}"


@dataclass(frozen=True, slots=True)
class BeganAnew:
    """A device's streamer counts from 1 again, for what is newer than `after`; `noticed` is when that was seen."""

    source: str
    device: int
    streamer: int
    after: int
    noticed: int

    def in_words(self) -> str:
        moments = (datetime.fromtimestamp(ns / 1e9, UTC) for ns in (self.after, self.noticed))
        after, noticed = (f"{moment:%Y-%m-%d %H:%M}" for moment in moments)
        return (
            f"{self.source}: its counter began anew: {ArchFxDeviceSlug(self.device)}, streamer {self.streamer:#x}, "
            f"seen at {noticed}; its readings after {after} are taken in as new ones; if it was not reset or replaced, "
            "two devices have its id"
        )


def door_folder(platform: Platform) -> Path:
    """The folder of the HTTP door's own state."""
    return platform.config.sections.state_path / "door"


def put_damaged_aside(folder: Path) -> None:
    """Where the file of the memory is damaged, put it aside, and tell; for whoever holds the journal."""
    path = folder / _NAME
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path)) as look:
            [found] = look.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            return
        found = str(error)
    if found == "ok":
        return
    for end in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(f"{_NAME}{end}").rename(path.with_name(f"{_NAME}{DAMAGED}{end}"))
    log.error(
        "%s was damaged (%s), and is kept as %s%s; it begins anew: what is parked is looked at again, and reports that "
        "come again count as new ones, which makes no second point",
        path, visible(found), _NAME, DAMAGED,
    )  # fmt: skip


def damaged_memory(folder: Path) -> Path | None:
    """The file of a memory that was put aside, if there is one."""
    path = folder / f"{_NAME}{DAMAGED}"
    return path if path.exists() else None


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return _primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _primary_code(error: sqlite3.DatabaseError) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


class Memory:
    """The records in the file ``<folder>/door.sqlite``. Safe across threads and processes."""

    def __init__(self, folder: Path) -> None:
        """Raises StoreError where the file is damaged, or was removed under the door that uses it."""
        self._folder = folder
        try:
            self._database = Database(folder / _NAME, _SCHEMA)
        except sqlite3.DatabaseError as error:
            if _is_damage(error):
                words, remedy = "is damaged", "start `ionbeam receive` again, which puts it aside and begins anew"
            elif _primary_code(error) == sqlite3.SQLITE_IOERR:
                words = "was removed from beside its -wal, or its disk fails"
                remedy = "start `ionbeam receive` again, which begins it anew; else see `dmesg`"
            else:
                raise
            raise StoreError(f"{folder / _NAME} {words} ({error}); {remedy}") from error

    def listened(self, source: str) -> Listened | None:
        rows = self._database.read("SELECT since, until FROM listened WHERE source = ?", (source,))
        return Listened(*rows[0]) if rows else None

    def counter(self, source: str, device: int, streamer: int) -> Counter:
        """What was taken in of a device's streamer. Where an earlier version took it, nothing was newer than now."""
        query = (
            "SELECT numbers, before, after, newest, noticed FROM seen LEFT JOIN counters USING (source, device, "
            "streamer) WHERE source = ? AND device = ? AND streamer = ?"
        )
        rows = self._database.read(query, (source, str(device), str(streamer)))
        if not rows:
            return Counter()
        numbers, before, after, newest, noticed = rows[0]
        if before is None:
            return Counter(Seen.from_bytes(numbers), newest=time.time_ns())
        return Counter(Seen.from_bytes(numbers), Seen.from_bytes(before), after, newest, noticed)

    def began_anew(self) -> list[BeganAnew]:
        """Who began to count anew within a week, the latest first."""
        rows = self._database.read(
            "SELECT source, device, streamer, after, noticed FROM counters WHERE noticed > ? ORDER BY noticed DESC",
            (time.time_ns() - _TOLD_FOR,),
        )
        return [BeganAnew(source, int(device), int(streamer), *when) for source, device, streamer, *when in rows]

    def taken(
        self,
        source: str,
        file: str,
        listened: Listened | None,
        counters: dict[tuple[int, int], Counter],
        parked: Iterable[tuple[str, str, int, int, str]],
    ) -> None:
        """`file` of the journal is taken in as far as it is of `source`: all of this is remembered, or nothing.

        `parked` are (measurement, reason, lines, last in ns, sample). Without `listened`, that stays as it was.
        """
        with self._database.transaction() as db:
            db.execute("INSERT INTO done VALUES (?, ?)", (source, file))
            db.execute("DELETE FROM failed WHERE source = ? AND file = ?", (source, file))
            if listened is not None:
                row = source, listened.since, listened.until
                db.execute("INSERT OR REPLACE INTO listened VALUES (?, ?, ?)", row)
            db.executemany(
                "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)",
                [(source, *map(str, key), one.now.to_bytes()) for key, one in counters.items()],
            )
            db.executemany(
                "INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (source, *map(str, key), one.before.to_bytes(), one.after, one.newest, one.noticed)
                    for key, one in counters.items()
                ],
            )
            db.executemany(
                "INSERT INTO parked VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "lines = lines + excluded.lines, last = max(last, excluded.last), sample = excluded.sample",
                [(source, of, why, lines, last, sample[:_SAMPLE]) for of, why, lines, last, sample in parked],
            )

    def is_done(self, source: str, file: str) -> bool:
        """Whether a file of the journal is taken in as far as it is of `source`."""
        return bool(self._database.read("SELECT 1 FROM done WHERE source = ? AND file = ?", (source, file)))

    def removed(self, file: str) -> None:
        """A file of the journal is gone."""
        with self._database.transaction(durable=False) as db:
            db.execute("DELETE FROM done WHERE file = ?", (file,))
            db.execute("DELETE FROM failed WHERE file = ?", (file,))

    def failed(self, source: str, file: str, reason: str) -> None:
        """A file of the journal cannot be taken in now."""
        with self._database.transaction(durable=False) as db:
            db.execute(
                "INSERT INTO failed VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET reason = excluded.reason",
                (source, file, reason[:_REASON], time.time_ns()),
            )

    def set_aside(self) -> list[SetAside]:
        """What of the journal cannot be taken in now, the oldest first. A file that a person took away is none."""
        rows = self._database.read("SELECT source, file, reason, since FROM failed ORDER BY file, source")
        journal = self._folder / "journal"
        return [
            SetAside(source, path, reason, datetime.fromtimestamp(since / 1e9, UTC))
            for source, file, reason, since in rows
            if (path := journal / f"{file}.journal").exists()
        ]

    def parked(self, source: str | None = None) -> list[Parked]:
        """What is parked, of one source or all, most lines first. What a person took away is not."""
        rows = self._database.read(
            "SELECT source, measurement, reason, lines, last, sample FROM parked WHERE source = ifnull(?, source) "
            "ORDER BY lines DESC",
            (source,),
        )
        there = {path.parent.name for path in (self._folder / "parked").glob("*/*.parquet")}
        found = [
            Parked(source, of, why, lines, datetime.fromtimestamp(last / 1e9, UTC), sample)
            for source, of, why, lines, last, sample in rows
            if source in there
        ]
        return [one for one in found if one.unread is None or one.unread.exists()]

    def forget_parked(self, source: str) -> None:
        """Nothing is parked of a source any longer."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM parked WHERE source = ?", (source,))

    def forget_samples(self, source: str, mentioned: re.Pattern[str], remove: bool) -> int:
        """How many samples of parked lines a text is `mentioned` in; and `remove` these samples, not what is told
        beside them."""
        with self._database.transaction() as db:
            rows = db.execute("SELECT measurement, reason, sample FROM parked WHERE source = ?", (source,)).fetchall()
            found = [(source, of, why) for of, why, sample in rows if mentioned.search(sample)]
            if remove:
                db.execute("PRAGMA secure_delete = ON")
                db.executemany(
                    "UPDATE parked SET sample = '' WHERE source = ? AND measurement = ? AND reason = ?", found
                )
        return len(found)

    def refuse(self, found: Sequence[Refusals]) -> None:
        """Count requests that were refused; those of more than a week ago are forgotten."""
        with self._database.transaction(durable=False) as db:
            db.execute("DELETE FROM refused WHERE last < ?", (time.time_ns() - _TOLD_FOR,))
            db.executemany(
                "INSERT INTO refused VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "requests = requests + excluded.requests, last = excluded.last, reason = excluded.reason",
                [
                    (one.source, one.status, one.requests, int(one.last.timestamp() * 1e9), one.reason[:_REASON])
                    for one in found
                ],
            )

    def refused(self) -> list[Refusals]:
        """Requests that were refused, the last of each kind within a week, the latest first."""
        rows = self._database.read(
            "SELECT source, status, requests, last, reason FROM refused WHERE last > ? ORDER BY last DESC",
            (time.time_ns() - _TOLD_FOR,),
        )
        return [
            Refusals(source, status, requests, datetime.fromtimestamp(last / 1e9, UTC), reason)
            for source, status, requests, last, reason in rows
        ]

    def left_out(self, source: str, readings: int) -> None:
        """Count further readings of a source that had something beside their value, which was not taken."""
        with self._database.transaction(durable=False) as db:
            db.execute(
                "INSERT INTO left_out VALUES (?, ?) ON CONFLICT DO UPDATE SET readings = readings + excluded.readings",
                (source, readings),
            )

    def without_more(self) -> list[tuple[str, int]]:
        """Sources, and how many of their readings had something beside their value."""
        rows = self._database.read("SELECT source, readings FROM left_out ORDER BY source")
        return [(str(source), int(readings)) for source, readings in rows]

    def accept(self, source: str) -> None:
        """Whatever is parked of a source is to be looked at again by the next door."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM looked WHERE source = ?", (source,))

    def looked_at(self, source: str) -> str | None:
        """The digest of the mapping by which what is parked of a source was looked at last."""
        rows = self._database.read("SELECT mapping FROM looked WHERE source = ?", (source,))
        return str(rows[0][0]) if rows else None

    def taken_again(self, source: str, mapping: str, unread: Mapping[Path, BaseException]) -> None:
        """What was parked of a source, but for the files that could not be read, is in the journal again, to be looked
        at by the mapping of this digest."""
        now = time.time_ns()
        told = [(source, "", f"{path}{_UNREAD}{error})"[:_REASON], 1, now, "") for path, error in unread.items()]
        with self._database.transaction() as db:
            db.execute("INSERT OR REPLACE INTO looked VALUES (?, ?)", (source, mapping))
            db.execute("DELETE FROM parked WHERE source = ?", (source,))
            db.executemany("INSERT INTO parked VALUES (?, ?, ?, ?, ?, ?)", told)
