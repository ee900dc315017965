"""The one process that sends: a thread for each target, which takes the log on from the target's own cursor.

Belongs here: who may send, waiting, moving on, and telling what is wrong. Does not belong here: what an answer means
(targets.py), parts of a chunk (delivery.py), and what users call (client.py).
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from ionbeam_client.influx.config import Config
from ionbeam_client.influx.delivery import Chunk, Delivery, pause_before
from ionbeam_client.influx.errors import InfluxError, NotDeliveredError, RefusedRowsError
from ionbeam_client.influx.fast_lines import Converter
from ionbeam_client.influx.lines import Schema
from ionbeam_client.influx.log import Log, OneAtATime, Position, remove_rotated
from ionbeam_client.influx.state import Refusal, State, TargetState
from ionbeam_client.influx.targets import CsvLog, InfluxServer, Later, RecordedFile

POLL = 1.0
"""Seconds after which rows of another process, or its end, are noticed."""

GATHER = 0.2
"""Seconds in which further rows come together after a part that was not full, unless somebody waits for them: a request
and a commit for each row would slow down who writes the next one."""

READ_BYTES = 2**20
_logger = logging.getLogger("ionbeam_client.influx")

OnError = Callable[[str, InfluxError], None]


class Status(NamedTuple):
    """How it stands with one target."""

    target: str
    waiting_bytes: int
    delivered: int
    refused: int
    error: str | None
    failing_since: float | None
    last_success: float | None


class Told:
    """What is wrong, for people: Python's logging, the file of errors, and the program's own function."""

    def __init__(self, config: Config, on_error: OnError | None) -> None:
        self._path = config.errorlogfile
        self._on_error = on_error

    def error(self, target: str, error: InfluxError) -> None:
        self._write(logging.ERROR, f"{target}: {error}")
        if self._on_error is not None:
            try:
                self._on_error(target, error)
            except Exception:
                _logger.exception("on_error failed")

    def good(self, target: str, message: str) -> None:
        self._write(logging.INFO, f"{target}: {message}")

    def _write(self, level: int, message: str) -> None:
        message = " ".join(message.split())
        _logger.log(level, "%s", message)
        if self._path is None:
            return
        with suppress(OSError):  # the disk is full, perhaps: logging has it
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {message}\n")


class Sender:
    """Threads that deliver a log, in whichever process holds the lock."""

    def __init__(self, log: Log, state: State, config: Config, told: Told) -> None:
        self._log, self._state, self._config, self._told = log, state, config, told
        self._lock = OneAtATime(log.folder / "sender.lock")
        self._holding = threading.Lock()
        self._refused = RecordedFile(config.refused_path, state)
        self._stop = threading.Event()
        self._targets = [
            _Server(self, InfluxServer(server, config.timeout), config.retry_deadline) for server in config.servers
        ]
        self._csv: list[_Target] = []
        if config.csvlogfile is not None:
            file = RecordedFile(config.csvlogfile, state, config.rotate_megabytes * 2**20)
            self._csv = [_Csv(self, CsvLog(file))]
        self._threads: list[threading.Thread] = []
        self._process = os.getpid()

    def start(self) -> None:
        """Begin to send, now or as soon as the process that does it ends."""
        if segments := self._log.segments():
            self._log.had_once(segments[-1], self.furthest_in(segments[-1]))
        for target in self._all():
            thread = threading.Thread(target=target.run, name=f"to {target.name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def notify(self) -> None:
        """Rows were added."""
        for target in self._all():
            target.news.set()

    def wait(self, until: Position, timeout: float, servers_only: bool = False) -> list[str]:
        """Wait until every target is at `until`; gives the names of those that are not after `timeout` seconds."""
        end = time.monotonic() + timeout
        targets = self._targets if servers_only else self._all()
        for target in targets:
            target.hurry.set()
        while True:
            late = [target for target in targets if (self._state.target(target.name).position or (0, 0)) < until]
            left = end - time.monotonic()
            if not late or left <= 0:
                return [target.name for target in late]
            late[0].moved.wait(min(left, 0.05))

    def refusals(self, after: Position, until: Position) -> list[str]:
        """What servers refused between two positions, with their names."""
        return [
            f"{target.name}: {reason}"
            for target in self._targets
            for reason in self._state.refusals(target.name, after, until)
        ]

    def status(self) -> list[Status]:
        return status_of(self._log, self._state, self._config)

    def stop(self) -> None:
        """End the threads; a request that is under way is waited for as long as it may take."""
        if self._process != os.getpid():
            return
        self._stop.set()
        for target in self._all():
            target.news.set()
            target.hurry.set()
        for thread in self._threads:
            thread.join(self._config.timeout + 1)
        for target in self._targets:
            target.server.close()
        self._lock.release()

    def after_fork(self) -> None:
        """In a forked child: the parent sends. Its lock is let go of here, so that it ends with the parent."""
        self._lock.release()
        for target in self._all():
            target.news, target.hurry, target.moved = threading.Event(), threading.Event(), threading.Event()

    def may_send(self) -> bool:
        with self._holding:
            return self._lock.hold()

    def furthest_in(self, segment: int) -> int:
        """Up to which byte of a segment there is a target that has it."""
        positions = (self._state.target(target.name).position for target in self._all())
        return max((one.offset for one in positions if one is not None and one.segment == segment), default=0)

    def _all(self) -> list[_Target]:
        return [*self._targets, *self._csv]


class _Target:
    """One target's thread."""

    def __init__(self, sender: Sender, name: str) -> None:
        self.name = name
        self.news, self.hurry, self.moved = threading.Event(), threading.Event(), threading.Event()
        self.log, self.state, self.told = sender._log, sender._state, sender._told
        self.config, self.sender = sender._config, sender
        self._position: Position | None = None
        self._known: int | None = None  # how often the state had begun anew when the position was looked up
        self._begun_anew = 0
        self._failure: str | None = None
        self._pruned = 0
        self._cut = 0

    def run(self) -> None:
        attempt = 0
        while not self.sender._stop.is_set():
            try:
                if not self.sender.may_send():
                    self._known = None  # another process moves on meanwhile
                    self.sender._stop.wait(POLL)
                elif self._step():
                    attempt = 0
                else:
                    self.news.wait(POLL)
                    self.news.clear()
            except Exception as error:  # a thread that ended would be silent for ever
                attempt += 1
                self.failing(Later(f"{type(error).__name__}: {error}"), attempt)

    def _step(self) -> bool:
        """Bring the next rows on; False when there are none, or it has to stop."""
        self._look_up()
        self._notice_a_cut()
        raw, ends = self.log.read(self._position, self.config.batch_rows, READ_BYTES)
        if not raw or not self.deliver(raw, ends):
            return False
        if len(raw) < self.config.batch_rows and sum(map(len, raw)) < READ_BYTES // 2:
            self.hurry.wait(GATHER)
            self.hurry.clear()
        return True

    def _look_up(self) -> None:
        """Where this target is, where that may have changed."""
        if self._known == self.state.begun_anew:
            return
        self._position, self._known = self.state.target(self.name).position, self.state.begun_anew
        if self._begun_anew != self._known:
            self._begun_anew = self._known
            self.told.error(
                self.name,
                InfluxError(
                    f"how far it is was lost in {self.log.folder} (damaged, removed or replaced by somebody else); "
                    "what is in the log's segments is sent again, which changes nothing on a server"
                ),
            )

    def _notice_a_cut(self) -> None:
        """Tell, once, what somebody else cut off the segment that is read now before this target had it."""
        place = self._position or Position(min(self.log.segments(), default=0), 0)
        furthest = self.sender.furthest_in(place.segment)  # before the look: what is sent meanwhile was not cut
        try:
            size, longest = self.log.lengths(place.segment)
        except FileNotFoundError:
            return
        longest = max(longest, furthest)
        if place.offset > size:
            self._position = Position(place.segment, 0)
        if size >= longest or self._cut == place.segment:
            return
        self._cut = place.segment
        if lost := longest - max(size, place.offset):
            self.told.error(
                self.name,
                InfluxError(
                    f"{self.log.path} was cut by somebody else before its last {lost:,} bytes were sent here; the rows "
                    "in them are lost, unless another target has them"
                ),
            )

    def deliver(self, raw: list[bytes], ends: list[Position]) -> bool:
        raise NotImplementedError

    def moved_to(self, position: Position, refusals: list[Refusal]) -> None:
        """After a commit: tell, wake who waits, and let go of what everybody has."""
        self._position = position
        if self._failure is not None:
            self.told.good(self.name, "takes rows again")
            self._failure = None
        if refusals:
            reasons = [refusal.reason for refusal in refusals]
            self.told.error(
                self.name,
                RefusedRowsError(
                    f"{len(refusals)} rows refused, the first because: {reasons[0]}. They are in "
                    f"{self.config.refused_path}; correct them and send them with: eht-influx-client replay",
                    reasons,
                ),
            )
        self.moved.set()
        self.moved.clear()
        if position.segment > self._pruned:
            self._prune()
            self._pruned = position.segment

    def failing(self, answer: Later, attempt: int) -> bool:
        """Tell what is new about it, and wait; False when it has to stop."""
        if answer.reason != self._failure:
            self._failure = answer.reason
            with suppress(Exception):  # the disk may be what fails
                self.state.failing(self.name, answer.reason, time.time())
            self.told.error(
                self.name, NotDeliveredError(f"{answer.reason}; the rows stay in the log and are tried again")
            )
        pause = pause_before(attempt, answer, self.config.retry_wait_max, random.random)
        if answer.seconds is None:
            self.hurry.wait(pause)  # somebody waits for the rows: try at once
            self.hurry.clear()
        else:
            self.sender._stop.wait(pause)  # the server asked for it
        return not self.sender._stop.is_set()

    def _prune(self) -> None:
        positions = [self.state.target(target.name).position for target in self.sender._all()]
        if any(position is None for position in positions):
            return
        segment = min(position.segment for position in positions if position is not None)
        self.log.remove_before(segment)
        self.state.forget_before(segment)
        if self.config.keep_days is not None:
            for path in filter(None, (self.log.path, self.config.csvlogfile)):
                remove_rotated(path, time.time() - self.config.keep_days * 86_400)


class _Server(_Target):
    def __init__(self, sender: Sender, server: InfluxServer, deadline: float | None) -> None:
        super().__init__(sender, server.name)
        self.server = server
        self._delivery = Delivery(server, self._commit, self.failing, deadline)
        self._converter = Converter({})

    def deliver(self, raw: list[bytes], ends: list[Position]) -> bool:
        self._converter = converter_for(self.log.schema(), self._converter)
        lines, reasons = self._converter.convert(raw)
        return self._delivery.run(Chunk(raw, ends, lines, reasons))

    def _commit(self, position: Position, delivered: int, refusals: list[Refusal]) -> None:
        if refusals:
            self.sender._refused.prepare()
        with self.state.change() as connection:
            if refusals:
                self.sender._refused.append(connection, refused_lines(self.name, refusals))
            self.state.advance(connection, self.name, position, delivered, refusals, time.time())
        self.moved_to(position, refusals)


class _Csv(_Target):
    def __init__(self, sender: Sender, csv: CsvLog) -> None:
        super().__init__(sender, csv.name)
        self._csv = csv

    def deliver(self, raw: list[bytes], ends: list[Position]) -> bool:
        schema, rows = self.log.schema(), []
        for line in raw:
            with suppress(ValueError):  # what cannot be read is kept, and told, by the servers' threads
                row = orjson.loads(line)
                if isinstance(row, dict) and {"timestamp", "measurement", "fields"} <= row.keys():
                    rows.append(row)
        if rows:
            self._csv.prepare()
        with self.state.change() as connection:
            if rows:
                self._csv.append(connection, rows, schema)
            self.state.advance(connection, self.name, ends[-1], len(rows), [], time.time())
        self.moved_to(ends[-1], [])
        return True


def converter_for(schema: Schema, last: Converter) -> Converter:
    """The last one, as long as the schema is the same."""
    return last if last.schema == schema else Converter(schema)


def refused_lines(target: str, refusals: list[Refusal]) -> bytes:
    """Refused rows as a file that can be replayed: the row itself, with who refused it and why."""
    made = []
    for refusal in refusals:
        about = {"target": target, "reason": refusal.reason, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        text = refusal.line.strip()
        try:
            row = orjson.loads(text)
            row = row if isinstance(row, dict) else {"text": row}
        except ValueError:
            row = {"text": text.decode("utf-8", "replace")}
        made.append(orjson.dumps(row | {"refused": about}, option=orjson.OPT_APPEND_NEWLINE))
    return b"".join(made)


def status_of(log: Log, state: State, config: Config) -> list[Status]:
    """How it stands with every target, whichever process sends."""
    names = [server.name for server in config.servers]
    if config.csvlogfile is not None:
        names.append(f"file {config.csvlogfile}")
    found: list[TargetState] = [state.target(name) for name in names]
    return [Status(one.name, log.waiting(one.position), *one[2:]) for one in found]
