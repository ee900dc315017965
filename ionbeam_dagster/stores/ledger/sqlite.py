"""The ledger in one SQLite file: the default, which needs no server and is shared by many processes (WAL)."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from threading import RLock
from typing import Any
from zlib import crc32

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.lateness import lateness_of
from ionbeam_dagster.domain.records import (
    BuiltRevision,
    Claim,
    ExportFacts,
    ExportRecord,
    Lateness,
    RawPartition,
    Revision,
    RevisionFacts,
)
from ionbeam_dagster.domain.windows import EPOCH, HOUR, Window, window_of
from ionbeam_dagster.stores.ledger import Change, LedgerError, Recover, feed_begins
from ionbeam_dagster.stores.ledger.attempts import SCHEMA as ATTEMPTS_SCHEMA
from ionbeam_dagster.stores.ledger.attempts import SqliteAttempts
from ionbeam_dagster.stores.publish import locked

_LOG = logging.getLogger(__name__)
_LOCKS = 256  # files; windows that share one wait for each other
_SCHEMA = """
CREATE TABLE IF NOT EXISTS arrivals (arrival INTEGER PRIMARY KEY AUTOINCREMENT, ingestion TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS raw (
    source TEXT, start INTEGER, end INTEGER, ingestion TEXT, path TEXT, rows INTEGER, signature TEXT,
    PRIMARY KEY (source, start, end)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent (
    ingestion TEXT PRIMARY KEY, source TEXT, start INTEGER, end INTEGER, path TEXT, rows INTEGER, signature TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent_into (
    source TEXT, start INTEGER, end INTEGER, ingestion TEXT, PRIMARY KEY (source, start, end, ingestion)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sent_by_ingestion ON sent_into (ingestion);
CREATE TABLE IF NOT EXISTS swept (ingestion TEXT PRIMARY KEY, at INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unclaimed (ingestion TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS readings (hash TEXT PRIMARY KEY, metadata TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
    id TEXT PRIMARY KEY, source TEXT, dataset TEXT, start INTEGER, end INTEGER, arrival INTEGER, rows INTEGER,
    quarantined INTEGER, strays TEXT, reading TEXT, arrived_at INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS touched (
    dataset TEXT, start INTEGER, end INTEGER, claim TEXT, rows INTEGER, PRIMARY KEY (dataset, start, end, claim)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS touched_by_claim ON touched (claim);
CREATE TABLE IF NOT EXISTS due (
    dataset TEXT, start INTEGER, end INTEGER, until INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (dataset, start, end)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lateness (
    source TEXT, hour INTEGER, late INTEGER, count INTEGER, PRIMARY KEY (source, hour, late)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS versions (
    source TEXT, version INTEGER, reading TEXT, PRIMARY KEY (source, version)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revisions (
    dataset TEXT, start INTEGER, end INTEGER, number INTEGER, inputs TEXT, intact INTEGER, path TEXT, built_at INTEGER,
    facts TEXT, PRIMARY KEY (dataset, start, end, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sealed (
    dataset TEXT, start INTEGER, end INTEGER, at INTEGER, PRIMARY KEY (dataset, start, end)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS exports (
    dataset TEXT, start INTEGER, end INTEGER, format TEXT, number INTEGER, path TEXT, facts TEXT,
    made_by TEXT NOT NULL DEFAULT '', PRIMARY KEY (dataset, start, end, format)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recoveries (at INTEGER, told TEXT);
CREATE TABLE IF NOT EXISTS feed (
    number INTEGER PRIMARY KEY AUTOINCREMENT, claim TEXT, dataset TEXT, start INTEGER, end INTEGER, revision INTEGER
);
"""
_SETTLED = 1  # of the file's user_version: what was known of the past is in it
_FEED_BEGINS = (
    "INSERT INTO sqlite_sequence SELECT 'feed', ?1 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'feed')"
)
_ARRIVAL = "INSERT OR IGNORE INTO arrivals (ingestion) VALUES (?)"
_COLLECTED = (
    "SELECT r.ingestion, r.source, r.start, r.end, r.path, r.rows, r.signature, w.at "
    "FROM raw r LEFT JOIN swept w USING (ingestion)"
)
_ADDED = [
    ("claims", "arrived_at", "INTEGER"), ("touched", "rows", "INTEGER"), ("due", "until", "INTEGER NOT NULL DEFAULT 0"),
    ("exports", "made_by", "TEXT NOT NULL DEFAULT ''"),
]  # fmt: skip
"""Columns that ledgers of earlier versions lack."""
_NEVER = 2**62
_CLAIM = "SELECT id, source, dataset, start, end, arrival, rows, quarantined, strays, arrived_at FROM claims"
_REVISION = "SELECT dataset, start, end, number, inputs, intact, path, built_at, facts FROM revisions"


class SqliteLedger:
    """A `Ledger` in the SQLite file `path`, safe across threads and processes.

    Connections are kept: closing the last one makes SQLite empty its log, which takes longer than a transaction. A
    commit waits until the disk has it. Methods raise LedgerError when the file cannot be used.
    """

    def __init__(self, path: Path, recover: Recover = lambda: None) -> None:
        self._path = path
        self._recover = recover
        self.attempts = SqliteAttempts(self._reading, self._writing)
        self._settling = RLock()
        self._settled: int | None = None  # the file that has what is known of the past
        self._filling: int | None = None  # the file that is getting it, by the thread that settles
        self._idle: dict[tuple[int, int], list[sqlite3.Connection]] = {}  # of a process and a file; forks inherit none

    def __del__(self) -> None:
        for (process, _), connections in self._idle.items():
            for connection in connections if process == os.getpid() else []:
                connection.close()

    def recovered(self) -> tuple[datetime, str] | None:
        with self._reading() as db:
            row = db.execute("SELECT at, told FROM recoveries ORDER BY at DESC LIMIT 1").fetchone()
        return (_moment(row[0]), row[1]) if row else None

    def note_recovery(self, told: str) -> None:
        with self._writing() as db:
            db.execute("INSERT INTO recoveries VALUES (?, ?)", (_micros(datetime.now(UTC)), told))

    def restore_arrivals(self, arrivals: Mapping[str, int]) -> None:
        with self._writing() as db:
            db.executemany(
                "INSERT OR IGNORE INTO arrivals (arrival, ingestion) VALUES (?, ?)",
                [(place, ingestion) for ingestion, place in arrivals.items()],
            )

    def arrival_of(self, ingestion: str) -> int:
        known = "SELECT arrival FROM arrivals WHERE ingestion = ?"
        with self._reading() as db:
            row = db.execute(known, (ingestion,)).fetchone()
        if row is None:
            with self._writing() as db:
                db.execute(_ARRIVAL, (ingestion,))
                row = db.execute(known, (ingestion,)).fetchone()
        return int(row[0])

    def record_raw(self, raw: RawPartition) -> None:
        with self._writing() as db:
            db.execute(_ARRIVAL, (raw.ingestion,))
            db.execute(
                "INSERT OR REPLACE INTO raw VALUES (?, ?, ?, ?, ?, ?, ?)",
                (raw.source, *_range(raw.window), raw.ingestion, raw.path, raw.rows, raw.signature),
            )
            db.execute("DELETE FROM swept WHERE ingestion = ?", (raw.ingestion,))

    def raw(self, source: str, window: Window) -> RawPartition | None:
        with self._reading() as db:
            row = db.execute(
                f"{_COLLECTED} WHERE r.source = ? AND r.start = ? AND r.end = ?", (source, *_range(window))
            ).fetchone()
        return _raw(row) if row else None

    def record_sent(self, raws: Sequence[tuple[RawPartition, Sequence[Window]]]) -> None:
        with self._writing() as db:
            db.executemany(_ARRIVAL, [(raw.ingestion,) for raw, _ in raws])
            db.executemany(
                "INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(r.ingestion, r.source, *_range(r.window), r.path, r.rows, r.signature) for r, _ in raws],
            )
            db.executemany(
                "INSERT OR IGNORE INTO sent_into VALUES (?, ?, ?, ?)",
                [(r.source, *_range(window), r.ingestion) for r, touched in raws for window in touched],
            )
            db.executemany("DELETE FROM swept WHERE ingestion = ?", [(r.ingestion,) for r, _ in raws])
            db.executemany(
                "INSERT OR IGNORE INTO unclaimed SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM claims WHERE id = ?1)",
                [(raw.ingestion,) for raw, _ in raws],
            )

    def sent(self, source: str, window: Window) -> list[RawPartition]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT r.ingestion, r.source, r.start, r.end, r.path, r.rows, r.signature, w.at "
                "FROM sent_into i JOIN sent r USING (ingestion) JOIN arrivals a USING (ingestion) "
                "LEFT JOIN swept w USING (ingestion) "
                "WHERE i.source = ? AND i.start = ? AND i.end = ? ORDER BY a.arrival",
                (source, *_range(window)),
            ).fetchall()
        return [_raw(row) for row in rows]

    def waiting(self, source: str) -> list[Window]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT DISTINCT i.start, i.end FROM unclaimed u JOIN sent_into i USING (ingestion) "
                "WHERE i.source = ? ORDER BY i.start",
                (source,),
            ).fetchall()
        return [_window(*row) for row in rows]

    def raws(self, source: str, before: datetime) -> list[RawPartition]:
        kept = "WHERE r.source = ? AND r.end <= ? AND w.at IS NULL"
        with self._reading() as db:
            rows = db.execute(
                f"{_COLLECTED} {kept} UNION ALL {_COLLECTED.replace('FROM raw', 'FROM sent')} {kept} ORDER BY 3, 4",
                (source, _micros(before)) * 2,
            ).fetchall()
        return [_raw(row) for row in rows]

    def record_purged(self, raw: RawPartition, at: datetime) -> None:
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO swept VALUES (?, ?)", (raw.ingestion, _micros(at)))

    def record_claim(
        self, claim: Claim, metadata: IngestionMetadata, touched: Mapping[Window, int], replaces: Sequence[str] = ()
    ) -> None:
        text = metadata.model_dump_json()
        reading = sha256(text.encode()).hexdigest()
        strays = json.dumps([_range(window) for window in claim.stray_windows])
        arrived_at = None if claim.arrived_at is None else _micros(claim.arrived_at)
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO readings VALUES (?, ?)", (reading, text))
            db.execute("INSERT OR IGNORE INTO versions VALUES (?, ?, ?)", (claim.source, metadata.version, reading))
            known = db.execute("SELECT 1 FROM claims WHERE id = ?", (claim.id,)).fetchone()
            db.execute(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (claim.id, claim.source, claim.dataset, *_range(claim.collected), claim.arrival, claim.rows,
                 claim.quarantined, strays, reading, arrived_at),
            )  # fmt: skip
            db.execute("DELETE FROM unclaimed WHERE ingestion = ?", (claim.id,))
            ranges = [(claim.dataset, *_range(window)) for window in touched]
            db.executemany(
                "INSERT OR REPLACE INTO touched VALUES (?, ?, ?, ?, ?)",
                [(*place, claim.id, rows) for place, rows in zip(ranges, touched.values(), strict=True)],
            )
            for ingestion in replaces:
                _forget_claim(db, ingestion)
                db.execute("DELETE FROM arrivals WHERE ingestion = ?", (ingestion,))
                db.execute("DELETE FROM sent_into WHERE ingestion = ?", (ingestion,))
                db.execute("DELETE FROM unclaimed WHERE ingestion = ?", (ingestion,))
            if not known:
                db.executemany("INSERT OR REPLACE INTO due (dataset, start, end) VALUES (?, ?, ?)", ranges)
                db.execute("INSERT INTO feed (claim) VALUES (?)", (claim.id,))
                if claim.arrived_at is not None:
                    db.execute(
                        "INSERT INTO lateness VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
                        (claim.source, _micros(window_of(claim.arrived_at, HOUR).start),
                         lateness_of(claim) // timedelta(seconds=1)),
                    )  # fmt: skip

    def lateness(self, source: str, start: datetime, end: datetime) -> list[Lateness]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT hour, late, count FROM lateness WHERE source = ? AND hour >= ? AND hour < ? ORDER BY 1, 2",
                (source, _micros(start), _micros(end)),
            ).fetchall()
        return [Lateness(_moment(hour), timedelta(seconds=late), count) for hour, late, count in rows]

    def metadata_of_version(self, source: str, version: int) -> IngestionMetadata | None:
        with self._reading() as db:
            row = db.execute(
                "SELECT r.metadata FROM versions v JOIN readings r ON r.hash = v.reading "
                "WHERE v.source = ? AND v.version = ?",
                (source, version),
            ).fetchone()
        return IngestionMetadata.model_validate_json(row[0]) if row else None

    def rows_in(self, dataset: str, window: Window) -> int | None:
        with self._reading() as db:
            rows, unknown = db.execute(
                "SELECT COALESCE(SUM(rows), 0), COUNT(*) - COUNT(rows) FROM touched "
                "WHERE dataset = ? AND start = ? AND end = ?",
                (dataset, *_range(window)),
            ).fetchone()
        return None if unknown else int(rows)

    def span_of(self, dataset: str) -> timedelta | None:
        newest = "SELECT start, end FROM touched WHERE dataset = ? ORDER BY start DESC LIMIT 1"
        with self._reading() as db:
            row = db.execute(newest, (dataset,)).fetchone()
        return _window(*row).span if row else None

    def claims(self, dataset: str, window: Window) -> list[Claim]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT c.id, c.source, c.dataset, c.start, c.end, c.arrival, c.rows, c.quarantined, c.strays, "
                "c.arrived_at "
                "FROM touched t JOIN claims c ON c.id = t.claim "
                "WHERE t.dataset = ? AND t.start = ? AND t.end = ? ORDER BY c.arrival",
                (dataset, *_range(window)),
            ).fetchall()
        return [_claim(row) for row in rows]

    def claims_between(self, dataset: str, start: datetime, end: datetime) -> list[Claim]:
        with self._reading() as db:
            rows = db.execute(
                f"{_CLAIM} WHERE id IN (SELECT claim FROM touched WHERE dataset = ? AND start >= ? AND start < ?) "
                "ORDER BY arrival",
                (dataset, _micros(start), _micros(end)),
            ).fetchall()
        return [_claim(row) for row in rows]

    def claims_of(self, ingestions: Sequence[str]) -> list[Claim]:
        with self._reading() as db:
            found = [db.execute(f"{_CLAIM} WHERE id = ?", (ingestion,)).fetchone() for ingestion in ingestions]
        return sorted((_claim(row) for row in found if row), key=lambda claim: claim.arrival)

    def metadata_of(self, claims: Sequence[Claim]) -> list[IngestionMetadata]:
        found: dict[str, IngestionMetadata] = {}
        with self._reading() as db:
            for claim in claims:
                reading, text = db.execute(
                    "SELECT r.hash, r.metadata FROM claims c JOIN readings r ON r.hash = c.reading WHERE c.id = ?",
                    (claim.id,),
                ).fetchone()
                if reading not in found:
                    found[reading] = IngestionMetadata.model_validate_json(text)
        return list(found.values())

    def withdraw_claim(self, ingestion: str) -> None:
        with self._writing() as db:
            _forget_claim(db, ingestion)
            db.execute("INSERT OR IGNORE INTO unclaimed SELECT ingestion FROM sent WHERE ingestion = ?", (ingestion,))

    @contextmanager
    def holding(self, dataset: str, window: Window) -> Iterator[None]:
        one_of_many = crc32(f"{dataset} {window.key}".encode()) % _LOCKS
        with locked(self._path.with_suffix(".locks") / f"{one_of_many}"):
            yield

    def record_revision(self, built: BuiltRevision, made_of: Sequence[Claim]) -> None:
        revision = built.revision
        place = (revision.dataset, *_range(revision.window))
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*place, revision.number, revision.inputs, revision.intact, built.path, _micros(built.built_at),
                 json.dumps(built.facts.to_json())),
            )  # fmt: skip
            db.execute(
                "INSERT INTO feed (dataset, start, end, revision) VALUES (?, ?, ?, ?)", (*place, revision.number)
            )
            if _touching(db, place) == {claim.id for claim in made_of}:
                db.execute("DELETE FROM due WHERE dataset = ? AND start = ? AND end = ?", place)

    def latest_revision(self, dataset: str, window: Window) -> BuiltRevision | None:
        with self._reading() as db:
            row = db.execute(
                f"{_REVISION} WHERE dataset = ? AND start = ? AND end = ? ORDER BY number DESC LIMIT 1",
                (dataset, *_range(window)),
            ).fetchone()
        return _built(row) if row else None

    def revisions(self, dataset: str, start: datetime, end: datetime) -> list[BuiltRevision]:
        with self._reading() as db:
            rows = db.execute(
                f"{_REVISION} WHERE dataset = ? AND start >= ? AND start < ? ORDER BY start, end, number",
                (dataset, _micros(start), _micros(end)),
            ).fetchall()
        return list({(row[1], row[2]): _built(row) for row in rows}.values())

    def revisions_of(self, dataset: str, window: Window) -> list[BuiltRevision]:
        with self._reading() as db:
            rows = db.execute(
                f"{_REVISION} WHERE dataset = ? AND start = ? AND end = ? ORDER BY number", (dataset, *_range(window))
            ).fetchall()
        return list(map(_built, rows))

    def superseded(self, dataset: str, before: datetime) -> list[BuiltRevision]:
        following = "dataset = r.dataset AND start = r.start AND end = r.end AND number > r.number AND built_at <= ?"
        with self._reading() as db:
            rows = db.execute(
                f"{_REVISION} r WHERE dataset = ? AND EXISTS (SELECT 1 FROM revisions WHERE {following}) "
                "ORDER BY start, end, number",
                (dataset, _micros(before)),
            ).fetchall()
        return [_built(row) for row in rows]

    def forget_revision(self, revision: Revision) -> None:
        with self._writing() as db:
            db.execute(
                "DELETE FROM revisions AS r WHERE dataset = ? AND start = ? AND end = ? AND number = ? AND number < "
                "(SELECT max(number) FROM revisions WHERE dataset = r.dataset AND start = r.start AND end = r.end)",
                (revision.dataset, *_range(revision.window), revision.number),
            )

    def seal(self, dataset: str, windows: Sequence[Window], at: datetime) -> None:
        with self._writing() as db:
            db.executemany(
                "INSERT OR IGNORE INTO sealed VALUES (?, ?, ?, ?)",
                [(dataset, *_range(window), _micros(at)) for window in windows],
            )

    def unseal(self, dataset: str, windows: Sequence[Window]) -> None:
        with self._writing() as db:
            for window in windows:
                place = (dataset, *_range(window))
                gone = db.execute("DELETE FROM sealed WHERE dataset = ? AND start = ? AND end = ?", place)
                if gone.rowcount:
                    db.execute("INSERT OR REPLACE INTO due (dataset, start, end) VALUES (?, ?, ?)", place)

    def sealed(self, dataset: str, window: Window) -> datetime | None:
        with self._reading() as db:
            row = db.execute(
                "SELECT at FROM sealed WHERE dataset = ? AND start = ? AND end = ?", (dataset, *_range(window))
            ).fetchone()
        return _moment(row[0]) if row else None

    def due(self, dataset: str, now: datetime | None = None) -> list[Window]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT start, end FROM due WHERE dataset = ? AND until <= ? ORDER BY start",
                (dataset, _NEVER if now is None else _micros(now)),
            ).fetchall()
        return [_window(*row) for row in rows]

    def postpone(self, dataset: str, window: Window, seen: Sequence[Claim], until: datetime | None) -> None:
        place = (dataset, *_range(window))
        with self._writing() as db:
            if _touching(db, place) == {claim.id for claim in seen}:
                db.execute(
                    "UPDATE due SET until = ? WHERE dataset = ? AND start = ? AND end = ?",
                    (_NEVER if until is None else _micros(until), *place),
                )

    def record_export(self, export: ExportRecord) -> None:
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO exports VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (export.dataset, *_range(export.window), export.format, export.number,
                 export.path, json.dumps(export.facts.to_json()), export.made_by),
            )  # fmt: skip

    def export(self, dataset: str, window: Window, format: str) -> ExportRecord | None:
        with self._reading() as db:
            row = db.execute(
                "SELECT number, path, facts, made_by FROM exports "
                "WHERE dataset = ? AND start = ? AND end = ? AND format = ?",
                (dataset, *_range(window), format),
            ).fetchone()
        if not row:
            return None
        return ExportRecord(dataset, window, format, row[0], row[1], ExportFacts.from_json(json.loads(row[2])), row[3])

    def changes(self, after: int, limit: int) -> list[Change]:
        changed = []
        with self._reading() as db:
            entries = db.execute(
                "SELECT number, claim, dataset, start, end, revision FROM feed WHERE number > ? ORDER BY number "
                "LIMIT ?",
                (after, limit),
            ).fetchall()
            for number, claim, *place in entries:
                if claim is not None:
                    row = db.execute(f"{_CLAIM} WHERE id = ?", (claim,)).fetchone()
                    changed.append(Change(number, claim=_claim(row) if row else None))
                else:
                    row = db.execute(
                        f"{_REVISION} WHERE dataset = ? AND start = ? AND end = ? AND number = ?", place
                    ).fetchone()
                    changed.append(Change(number, built=_built(row) if row else None))
        return changed

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._transaction("BEGIN") as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        db: sqlite3.Connection | None = None
        try:
            idle = self._kept()
            db = idle.pop() if idle else self._open()
            db.execute(begin)
            yield db
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise LedgerError(f"{self._path}: {error}; {_what_to_do(error)}") from error
        else:
            idle.append(db)
            db = None
        finally:
            if db is not None:  # with whatever it had begun
                db.close()

    def _kept(self) -> list[sqlite3.Connection]:
        """The idle connections of this process to the file that is there now."""
        try:
            file = self._path.stat().st_ino
        except FileNotFoundError:
            self._open().close()
            file = self._path.stat().st_ino
        if file != self._settled:
            self._settle(file)
        return self._idle.setdefault((os.getpid(), file), [])

    def _settle(self, file: int) -> None:
        """Have a new file filled with what is known of the past; its filling comes here again, and goes on."""
        with self._settling:
            if file in (self._settled, self._filling):
                return
            db = self._open()
            try:
                self._filling = file
                if db.execute("PRAGMA user_version").fetchone()[0] < _SETTLED:
                    db.execute(_FEED_BEGINS, (feed_begins(),))
                    if found := self._recover():
                        _LOG.warning("%s was new, and made again from the other stores: %s", self._path, found)
                        self.note_recovery(str(found))
                    db.execute(f"PRAGMA user_version = {_SETTLED}")
                self._settled = file
            finally:
                self._filling = None
                db.close()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(_SCHEMA + ATTEMPTS_SCHEMA)
        _add_columns(db)
        return db


def _what_to_do(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return "the disk is full: make room"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return "give this user permission to write it and its folder"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "another process holds it for too long; find and end that process"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "it is damaged: move it away, and it is made again from the stores"
    return "nothing was changed; try again"


def _add_columns(db: sqlite3.Connection) -> None:
    """Bring a ledger of an earlier version up to this one."""
    for table, column, kind in _ADDED:
        if not _has_column(db, table, column):
            db.execute("BEGIN IMMEDIATE")
            if not _has_column(db, table, column):  # another process may have been quicker
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
            db.execute("COMMIT")
    db.execute("CREATE INDEX IF NOT EXISTS due_by_time ON due (dataset, until)")


def _has_column(db: sqlite3.Connection, table: str, column: str) -> bool:
    return column in {row[1] for row in db.execute(f"PRAGMA table_info({table})")}


def _touching(db: sqlite3.Connection, place: tuple[str, int, int]) -> set[str]:
    found = db.execute("SELECT claim FROM touched WHERE dataset = ? AND start = ? AND end = ?", place)
    return {row[0] for row in found}


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


def _micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _moment(micros: int) -> datetime:
    return (EPOCH + timedelta(microseconds=micros)).astimezone(UTC)


def _range(window: Window) -> tuple[int, int]:
    return _micros(window.start), _micros(window.end)


def _window(start: int, end: int) -> Window:
    return Window(_moment(start), _moment(end))


def _raw(row: tuple[Any, ...]) -> RawPartition:
    purged = _moment(row[7]) if row[7] is not None else None
    return RawPartition(row[0], row[1], _window(row[2], row[3]), row[4], row[5], row[6], purged)


def _claim(row: tuple[Any, ...]) -> Claim:
    strays = tuple(_window(*ends) for ends in json.loads(row[8]))
    arrived_at = None if row[9] is None else _moment(row[9])
    return Claim(row[0], row[1], row[2], _window(row[3], row[4]), row[5], row[6], row[7], strays, arrived_at)


def _built(row: tuple[Any, ...]) -> BuiltRevision:
    revision = Revision(row[0], _window(row[1], row[2]), row[3], row[4], bool(row[5]))
    return BuiltRevision(revision, row[6], _moment(row[7]), RevisionFacts.from_json(json.loads(row[8])))
