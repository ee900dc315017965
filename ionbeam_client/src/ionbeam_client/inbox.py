"""The inbox: what came for the handlers, kept on disk until it is done, and remembered afterwards.

Belongs here: the table of deliveries: what is due, in which order, how often it was tried. Does not belong here: the
connection, or calling the handlers (engine.py).

A message is acknowledged once it is in here. That frees the broker (and its time limit on unacknowledged messages) from
handlers that take hours, and lets a message be retried for long without holding up the ones behind it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ionbeam_client.state import Database

REMEMBERED = 90 * 86_400.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS deliveries(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  queue TEXT NOT NULL, id TEXT NOT NULL, parts INTEGER NOT NULL, subject TEXT NOT NULL, revision INTEGER NOT NULL,
  state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, requeues INTEGER NOT NULL DEFAULT 0,
  due REAL NOT NULL DEFAULT 0, changed REAL NOT NULL, error TEXT, UNIQUE(queue, id));
CREATE INDEX IF NOT EXISTS waiting ON deliveries(queue, due) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS subjects ON deliveries(queue, subject, revision);
CREATE TABLE IF NOT EXISTS bodies(
  delivery INTEGER NOT NULL, part INTEGER NOT NULL, message_id TEXT NOT NULL, content_type TEXT NOT NULL,
  body BLOB NOT NULL, PRIMARY KEY(delivery, part));
CREATE TABLE IF NOT EXISTS asked(id TEXT PRIMARY KEY);
"""
# state: partial (parts are missing), waiting (for its handler), done, superseded (a later revision was done), parked


_SUPERSEDE = """
UPDATE deliveries SET state = 'superseded', changed = ?
WHERE queue = ? AND state = 'waiting' AND EXISTS (
  SELECT 1 FROM deliveries AS later
  WHERE later.queue = deliveries.queue AND later.subject = deliveries.subject
    AND later.revision > deliveries.revision AND later.state = 'done')
"""
_FORGET_SUPERSEDED = "DELETE FROM bodies WHERE delivery IN (SELECT seq FROM deliveries WHERE state = 'superseded')"
_NEXT = """
SELECT seq, id, parts, attempts, requeues, error FROM deliveries
WHERE queue = ? AND due <= ? AND state = 'waiting' AND NOT EXISTS (
  SELECT 1 FROM deliveries AS earlier
  WHERE earlier.queue = deliveries.queue AND earlier.subject = deliveries.subject AND earlier.state = 'waiting'
    AND (earlier.revision, earlier.seq) < (deliveries.revision, deliveries.seq))
ORDER BY seq LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message for the inbox. Of one `subject` (a dataset window) revisions are handled in order."""

    queue: str
    id: str
    subject: str
    revision: int
    part: int
    parts: int
    requeues: int
    message_id: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """A delivery whose turn it is; `attempts` counts the calls before this one."""

    seq: int
    id: str
    parts: int
    attempts: int
    requeues: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Part:
    """One message of a delivery."""

    message_id: str
    content_type: str
    body: bytes


class Inbox:
    """Deliveries of every handler of this client."""

    def __init__(self, folder: Path) -> None:
        self._db = Database(folder / "inbox.sqlite", _SCHEMA)
        with self._db.transaction() as db:
            db.execute(
                "DELETE FROM deliveries WHERE state IN ('done', 'superseded', 'parked') AND changed < ?",
                (time.time() - REMEMBERED,),
            )

    def put(self, message: Incoming) -> bool:
        """Keep a message; False when its delivery was seen before and is done or parked.

        A parked one counts as new when a person has sent it back since.
        """
        with self._db.transaction() as db:
            key = (message.queue, message.id)
            db.execute(
                "INSERT OR IGNORE INTO deliveries(queue, id, parts, subject, revision, state, requeues, changed) "
                "VALUES (?, ?, ?, ?, ?, 'partial', ?, ?)",
                (*key, message.parts, message.subject, message.revision, message.requeues, time.time()),
            )
            row = db.execute(
                "SELECT seq, parts, state, requeues FROM deliveries WHERE queue = ? AND id = ?", key
            ).fetchone()
            if row["state"] == "parked" and message.requeues > row["requeues"]:
                db.execute(
                    "UPDATE deliveries SET state = 'partial', attempts = 0, due = 0, requeues = ? WHERE seq = ?",
                    (message.requeues, row["seq"]),
                )
            elif row["state"] != "partial":
                return bool(row["state"] == "waiting")
            db.execute(
                "INSERT OR IGNORE INTO bodies(delivery, part, message_id, content_type, body) VALUES (?, ?, ?, ?, ?)",
                (row["seq"], message.part, message.message_id, message.content_type, message.body),
            )
            there = db.execute("SELECT count(*) FROM bodies WHERE delivery = ?", (row["seq"],)).fetchone()[0]
            if there == row["parts"]:
                db.execute("UPDATE deliveries SET state = 'waiting' WHERE seq = ?", (row["seq"],))
            return True

    def next(self, queue: str, now: float) -> Job | None:
        """The delivery whose turn it is: due, and none of an earlier revision of its subject still waits.

        Deliveries whose subject has meanwhile got a later revision (they were sent back from the dead queue, or came
        out of order) are put aside: handing them over would undo the later one.
        """
        with self._db.transaction(durable=False) as db:
            db.execute(_SUPERSEDE, (now, queue))
            if db.execute("SELECT changes()").fetchone()[0]:
                db.execute(_FORGET_SUPERSEDED)
            row = db.execute(_NEXT, (queue, now)).fetchone()
            return Job(**dict(row)) if row else None

    def next_due(self, queue: str, now: float) -> float | None:
        """When the next delivery becomes due after `now`; None when none does."""
        query = "SELECT min(due) AS at FROM deliveries WHERE queue = ? AND state = 'waiting' AND due > ?"
        found: float | None = self._db.read(query, (queue, now))[0]["at"]
        return found

    def waiting_bytes(self, queue: str) -> int:
        """The size of what waits for a handler and is complete."""
        query = (
            "SELECT coalesce(sum(length(body)), 0) AS n FROM bodies WHERE delivery IN "
            "(SELECT seq FROM deliveries WHERE queue = ? AND state = 'waiting')"
        )
        return int(self._db.read(query, (queue,))[0]["n"])

    def parts(self, job: Job) -> Iterator[Part]:
        """The messages of a delivery in order, one in memory at a time."""
        query = "SELECT message_id, content_type, body FROM bodies WHERE delivery = ? AND part = ?"
        for number in range(1, job.parts + 1):
            [row] = self._db.read(query, (job.seq, number))
            yield Part(**dict(row))

    def begun(self, job: Job) -> None:
        """Count the call before it is made: a handler that kills its process must not be called for ever."""
        self._change(job, "attempts = attempts + 1, error = 'the process died in the handler'")

    def interrupted(self, job: Job) -> None:
        """The call was broken off by our own stop and does not count."""
        self._change(job, "attempts = ?, error = ?", job.attempts, job.error)

    def failed(self, job: Job, error: str, due: float) -> None:
        """Try again at `due`."""
        self._change(job, "due = ?, error = ?", due, error)

    def done(self, job: Job) -> None:
        self._finish(job, "done", None)

    def parked(self, job: Job, error: str) -> None:
        """It is in the dead queue now."""
        self._finish(job, "parked", error)

    def was_asked(self, id: str) -> bool:
        """Whether a replay was asked for before."""
        return bool(self._db.read("SELECT 1 FROM asked WHERE id = ?", (id,)))

    def asked(self, id: str) -> None:
        with self._db.transaction() as db:
            db.execute("INSERT OR IGNORE INTO asked(id) VALUES (?)", (id,))

    def busy(self) -> bool:
        """Whether a delivery waits for its handler, or is not complete."""
        return bool(self._db.read("SELECT 1 FROM deliveries WHERE state IN ('partial', 'waiting') LIMIT 1"))

    def counts(self) -> dict[str, dict[str, int]]:
        """How many deliveries each queue has in each state."""
        found: dict[str, dict[str, int]] = {}
        for row in self._db.read(
            "SELECT queue, state, count(*) AS n FROM deliveries GROUP BY queue, state ORDER BY queue"
        ):
            found.setdefault(row["queue"], {})[row["state"]] = row["n"]
        return found

    def close(self) -> None:
        self._db.close()

    def _change(self, job: Job, assignments: str, *values: object) -> None:
        with self._db.transaction(durable=False) as db:
            query = f"UPDATE deliveries SET {assignments}, changed = ? WHERE seq = ?"  # noqa: S608 (names of our own)
            db.execute(query, (*values, time.time(), job.seq))

    def _finish(self, job: Job, state: str, error: str | None) -> None:
        with self._db.transaction(durable=False) as db:
            db.execute(
                "UPDATE deliveries SET state = ?, error = ?, changed = ? WHERE seq = ?",
                (state, error, time.time(), job.seq),
            )
            db.execute("DELETE FROM bodies WHERE delivery = ?", (job.seq,))
