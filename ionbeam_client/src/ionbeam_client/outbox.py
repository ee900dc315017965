"""The outbox: what is to be sent, kept on disk until the broker has confirmed it.

Belongs here: the table of waiting messages and its bound. Does not belong here: the connection, or when to send
(engine.py).

An ingestion is written as a draft while its rows arrive, and becomes messages all at once when it is sealed: one that
was interrupted is never sent by half.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from ionbeam_client import wire
from ionbeam_client.errors import OutboxFullError
from ionbeam_client.models import IngestDataCommand, Returned
from ionbeam_client.state import Database

LONGEST_PAUSE = 300.0
KEEPS_PLACE = 5
DRAFTS_ARE_KEPT = 86_400.0
RETURNED_KEPT = 1_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  thing TEXT NOT NULL, message_id TEXT UNIQUE, queue TEXT NOT NULL, head BLOB, bytes INTEGER NOT NULL,
  rows INTEGER NOT NULL, created REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0,
  error TEXT);
CREATE INDEX IF NOT EXISTS sizes ON messages(message_id IS NULL, bytes);
CREATE INDEX IF NOT EXISTS things ON messages(thing);
CREATE INDEX IF NOT EXISTS next ON messages(due) WHERE message_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS bodies(seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS refused(seq INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS me(name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS returned(
  message_id TEXT PRIMARY KEY, queue TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS trouble(one INTEGER PRIMARY KEY CHECK (one = 1), since REAL NOT NULL, reason TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Since when (seconds since 1970, UTC) nothing could be sent, and the last reason."""

    since: float
    reason: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A message that the platform could not take: why, since when (seconds since 1970, UTC), and in which queue's dead
    queue it is."""

    message_id: str
    queue: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message of the outbox. `thing` is the id of what it belongs to, `error` why it was not sent so far.

    `refused` when that was the broker's own word, which time alone will not change.
    """

    seq: int
    thing: str
    message_id: str
    queue: str
    bytes: int
    rows: int
    created: float
    attempts: int
    error: str | None
    refused: bool = False


class Outbox:
    """Messages that wait for the broker, in the order in which they were put in; at most `max_bytes` of them."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._db = Database(folder / "outbox.sqlite", _SCHEMA)
        self._drop_old_drafts()

    @property
    def name(self) -> str:
        """What this outbox is called among all others; made once."""
        with self._db.transaction() as db:
            db.execute("INSERT INTO me SELECT ? WHERE NOT EXISTS (SELECT 1 FROM me)", (uuid4().hex,))
            return str(db.execute("SELECT name FROM me").fetchone()["name"])

    def draft(self) -> Draft:
        """Begin an ingestion."""
        return Draft(self)

    def put(self, queue: wire.Queue, message: wire.Message) -> None:
        """Keep a message without rows; one that already waits is not kept twice."""
        body = wire.json_body(message)
        with self._db.transaction() as db:
            known = db.execute("SELECT 1 FROM messages WHERE message_id = ?", (wire.message_id(message),)).fetchone()
            if known is None:
                seq = _insert(db, str(message.id), queue, body, 0)
                db.execute("UPDATE messages SET message_id = ? WHERE seq = ?", (wire.message_id(message), seq))

    def size(self) -> int:
        """Bytes that wait, drafts included."""
        return int(self._db.read("SELECT coalesce(sum(bytes), 0) AS n FROM messages")[0]["n"])

    def count(self, *, refused: bool = True) -> int:
        """How many messages wait; without `refused` only those that the broker did not refuse."""
        query = "SELECT count(*) AS n FROM messages WHERE message_id IS NOT NULL"
        query += "" if refused else " AND seq NOT IN (SELECT seq FROM refused)"
        return int(self._db.read(query)[0]["n"])

    def note_trouble(self, reason: str | None) -> None:
        """Remember since when nothing can be sent, and why; None: something could."""
        known = self.trouble()
        if (known.reason if known else None) == reason:
            return
        with self._db.transaction(durable=False) as db:
            db.execute("DELETE FROM trouble")
            if reason is not None:
                db.execute("INSERT INTO trouble VALUES (1, ?, ?)", (known.since if known else time.time(), reason))

    def trouble(self) -> Trouble | None:
        """What keeps messages from being sent, if something does."""
        rows = self._db.read("SELECT since, reason FROM trouble")
        return Trouble(rows[0]["since"], rows[0]["reason"]) if rows else None

    def due(self, now: float, *, limit: int, max_bytes: int) -> list[Waiting]:
        """The next messages to send: at least one if any is due, then as many as the bounds allow.

        One that failed before goes alone: a broker that closes the channel over it would take the others along, again
        and again.
        """
        found = self._waiting("AND due <= ? ORDER BY seq LIMIT ?", (now, limit))
        total = 0
        chosen: list[Waiting] = []
        for one in found:
            total += one.bytes
            if chosen and (total > max_bytes or one.attempts or chosen[0].attempts):
                break
            chosen.append(one)
        return chosen

    def all(self) -> list[Waiting]:
        return self._waiting("ORDER BY seq", ())

    def body(self, seq: int) -> bytes:
        """The body of a message, as it goes out."""
        query = "SELECT head, body FROM messages JOIN bodies USING (seq) WHERE seq = ?"
        [row] = self._db.read(query, (seq,))
        return bytes(row["body"]) if row["head"] is None else wire.sealed(row["head"], row["body"])

    def confirmed(self, seqs: Sequence[int]) -> None:
        """Forget messages that the broker has."""
        with self._db.transaction(durable=False) as db:
            for table in ("messages", "bodies", "refused"):
                db.executemany(f"DELETE FROM {table} WHERE seq = ?", [(seq,) for seq in seqs])  # noqa: S608 (names of our own)

    def failed(self, seq: int, error: str, *, keep_place: bool, refused: bool = False) -> None:
        """Try a message again: after 1, 2, 4, ... seconds, at most five minutes, while later ones go ahead.

        With `keep_place` its first attempts do not let others go ahead: what is ingested later must arrive later.
        """
        patience = KEEPS_PLACE if keep_place else 0
        with self._db.transaction(durable=False) as db:
            db.execute(
                "UPDATE messages SET attempts = attempts + 1, error = ?, "
                "due = CASE WHEN attempts < ? THEN 0 ELSE ? + min(?, 1 << min(attempts, 20)) END WHERE seq = ?",
                (error, patience, time.time(), LONGEST_PAUSE, seq),
            )
            db.execute("DELETE FROM refused WHERE seq = ?", (seq,))
            if refused:
                db.execute("INSERT INTO refused VALUES (?)", (seq,))

    def returned(self, told: Returned) -> None:
        """Remember what became of a message; the newest thousand are kept."""
        with self._db.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO returned VALUES (?, ?, ?, ?)",
                (told.message_id, told.queue, told.reason, time.time()),
            )
            db.execute(
                "DELETE FROM returned WHERE message_id NOT IN "
                "(SELECT message_id FROM returned ORDER BY at DESC LIMIT ?)",
                (RETURNED_KEPT,),
            )

    def parked(self) -> list[Parked]:
        """The messages that the platform could not take, the oldest first."""
        rows = self._db.read("SELECT message_id, queue, reason, at FROM returned ORDER BY at")
        return [Parked(**dict(row)) for row in rows]

    def forget_parked(self, message_id: str | None) -> int:
        """Forget one of them, or all; returns how many."""
        with self._db.transaction() as db:
            return db.execute("DELETE FROM returned WHERE message_id = ifnull(?, message_id)", (message_id,)).rowcount

    def retry_now(self) -> None:
        """Let no message wait for its next attempt."""
        with self._db.transaction() as db:
            db.execute("UPDATE messages SET due = 0")
            db.execute("DELETE FROM refused")

    def close(self) -> None:
        self._db.close()

    def _waiting(self, rest: str, values: tuple[object, ...]) -> list[Waiting]:
        columns = "seq, thing, message_id, queue, bytes, rows, created, attempts, error"
        query = f"SELECT {columns} FROM messages WHERE message_id IS NOT NULL {rest}"  # noqa: S608 (names of our own)
        refused = {row["seq"] for row in self._db.read("SELECT seq FROM refused")}
        rows = self._db.read(query, values)
        return [Waiting(**dict(row), refused=row["seq"] in refused) for row in rows]

    def _drop_old_drafts(self) -> None:
        """Drafts of processes that died. One that still grows is not touched."""
        with self._db.transaction() as db:
            db.execute(
                "DELETE FROM messages WHERE message_id IS NULL AND thing IN "
                "(SELECT thing FROM messages WHERE message_id IS NULL GROUP BY thing HAVING max(created) < ?)",
                (time.time() - DRAFTS_ARE_KEPT,),
            )
            db.execute("DELETE FROM bodies WHERE seq NOT IN (SELECT seq FROM messages)")


class Draft:
    """An ingestion whose rows are still arriving, part by part, on disk."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._db = outbox._db
        self._thing = f"draft-{uuid4()}"
        self.bytes = self.rows = self.parts = 0

    def add(self, part: bytes, rows: int) -> None:
        """Keep a part that more parts follow. Raises OutboxFullError when the draft alone is larger than the outbox."""
        with self._db.transaction() as db:
            self._insert(db, part, rows)

    def seal(self, command: IngestDataCommand, schema: pa.Schema, last: tuple[bytes, int]) -> None:
        """Keep the last part, and make messages of all of them. Does nothing when the same ingestion already waits."""
        with self._db.transaction() as db:
            self._insert(db, *last)
            seqs = [
                row["seq"]
                for row in db.execute("SELECT seq FROM messages WHERE thing = ? ORDER BY seq", (self._thing,))
            ]
            if len(seqs) != self.parts:
                raise OutboxFullError(
                    f"parts of an ingestion that took longer than {DRAFTS_ARE_KEPT:.0f} s were removed"
                )
            if db.execute("SELECT 1 FROM messages WHERE thing = ?", (str(command.id),)).fetchone():
                self._delete(db)
                return
            for number, seq in enumerate(seqs, start=1):
                part = command.model_copy(update={"part": number, "parts": len(seqs)})
                head = wire.head(part, schema)
                db.execute(
                    "UPDATE messages SET thing = ?, message_id = ?, head = ?, bytes = bytes + ? WHERE seq = ?",
                    (str(command.id), wire.message_id(part), head, len(head), seq),
                )

    def seal_payload(self, command: IngestDataCommand) -> None:
        """Send a command whose rows are in the payload store instead of the parts."""
        self.discard()
        self._outbox.put(wire.INGESTION, command)

    def discard(self) -> None:
        with self._db.transaction() as db:
            self._delete(db)

    def _insert(self, db: sqlite3.Connection, part: bytes, rows: int) -> None:
        self.bytes += len(part)
        self.rows += rows
        self.parts += 1
        if self.bytes > self._outbox.max_bytes:
            raise OutboxFullError(
                f"this ingestion has more than {self._outbox.max_bytes} bytes, the whole outbox; "
                "give it a larger outbox_max_bytes, or send shorter ranges"
            )
        _insert(db, self._thing, wire.INGESTION, part, rows)

    def _delete(self, db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM bodies WHERE seq IN (SELECT seq FROM messages WHERE thing = ?)", (self._thing,))
        db.execute("DELETE FROM messages WHERE thing = ?", (self._thing,))


def _insert(db: sqlite3.Connection, thing: str, queue: wire.Queue, body: bytes, rows: int) -> int:
    cursor = db.execute(
        "INSERT INTO messages(thing, queue, bytes, rows, created) VALUES (?, ?, ?, ?, ?)",
        (thing, queue.name, len(body), rows, time.time()),
    )
    db.execute("INSERT INTO bodies(seq, body) VALUES (?, ?)", (cursor.lastrowid, body))
    return int(cursor.lastrowid or 0)
