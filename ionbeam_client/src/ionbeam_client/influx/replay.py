"""Bringing files back into servers: JSON lines, annotated CSV and line protocol, resumable.

Belongs here: reading such a file, and how far it is. Does not belong here: the grammars (lines.py, annotated.py) and
what an answer leads to (delivery.py).
"""

from __future__ import annotations

import gzip
import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from random import random
from threading import Event
from typing import BinaryIO

import orjson

from ionbeam_client.influx import annotated, lines
from ionbeam_client.influx.config import Config, Server
from ionbeam_client.influx.delivery import Chunk, Delivery, pause_before
from ionbeam_client.influx.errors import InfluxError
from ionbeam_client.influx.fast_lines import Converter
from ionbeam_client.influx.log import Position, Schemas
from ionbeam_client.influx.sender import refused_lines
from ionbeam_client.influx.state import Refusal, State
from ionbeam_client.influx.targets import InfluxServer, Later, RecordedFile

Tell = Callable[[str], None]


@dataclass
class Replayed:
    """What became of a file at one server."""

    target: str
    delivered: int = 0
    refused: int = 0
    resumed_at: int = 0
    complete: bool = False


@dataclass(frozen=True)
class File:
    """A file to be replayed, and which of its rows: those with `start` <= time < `stop` (ns since 1970)."""

    path: Path
    start: int | None = None
    stop: int | None = None

    @property
    def refused_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.refused.jsonl")

    def key(self) -> str:
        """The same for the same file, even when it has grown."""
        with _open(self.path) as file:
            begin = file.readline()
        return f"replay {blake2b(begin, digest_size=8).hexdigest()} {self.path.resolve()} {self.start} {self.stop}"

    def schema(self) -> dict[str, dict[str, str]]:
        """What the schema beside the file, or beside the log that it was once, says."""
        name = self.path.name
        while name:
            beside = self.path.with_name(f"{name}.schema.json")
            if beside.exists():
                return Schemas(beside).read()
            name = name.rpartition(".")[0]
        return {}

    def chunks(self, rows: int, skip: int) -> Iterator[Chunk]:
        """The rows after the first `skip`, a request's worth at a time. Positions count rows."""
        with _open(self.path) as file:
            kind = self._kind(file)
            if kind == "csv":
                yield from self._csv(file, rows, skip)
                return
            given = file if kind == "jsonl" else _lines_of(file)
            converter, done = Converter(self.schema()), skip
            given = islice(given, skip, None)
            while raw := list(islice(given, rows)):
                ends = [Position(0, done + number) for number in range(1, len(raw) + 1)]
                made, reasons = converter.convert(raw) if kind == "jsonl" else (list(raw), {})
                done += len(raw)
                yield self._checked(raw if kind == "jsonl" else [_as_json(line) for line in raw], ends, made, reasons)

    def _csv(self, file: BinaryIO, rows: int, skip: int) -> Iterator[Chunk]:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        found, done = islice(annotated.read_lines(text), skip, None), skip
        while some := list(islice(found, rows)):
            ends = [Position(0, done + number) for number in range(1, len(some) + 1)]
            made = [None if line is None else line.encode() for _, line, _ in some]
            reasons = {
                place: f"{self.path}, line {number}: {reason}"
                for place, (number, line, reason) in enumerate(some)
                if line is None
            }
            raw = [_as_json(line or f"line {number}".encode()) for line, (number, _, _) in zip(made, some, strict=True)]
            done += len(some)
            yield self._checked(raw, ends, made, reasons)

    def _kind(self, file: BinaryIO) -> str:
        names = set(self.path.name.split(".")[1:])
        begin = file.read(4096).lstrip()[:1]
        file.seek(0)
        if "jsonl" in names or begin == b"{":
            return "jsonl"
        return "lines" if names & {"lp", "line"} else "csv"

    def _checked(
        self, raw: list[bytes], ends: list[Position], made: list[bytes | None], reasons: dict[int, str]
    ) -> Chunk:
        """Without the rows of other times, and with those refused that have no time: the server would make one up."""
        kept = []
        for place, line in enumerate(made):
            moment = _time_of(line)
            if line is not None and moment is None:
                made[place], reasons[place] = None, "it has no time"
            if moment is None or (self.start or moment) <= moment < (self.stop or moment + 1):
                kept.append(place)
        places = {place: number for number, place in enumerate(kept)}
        chunk = Chunk(
            [raw[place] for place in kept], [ends[place] for place in kept], [made[place] for place in kept],
            {places[place]: reason for place, reason in reasons.items() if place in places},
        )  # fmt: skip
        chunk.end = ends[-1]
        return chunk


def replay(file: File, servers: list[Server], config: Config, state: State, tell: Tell, stop: Event) -> list[Replayed]:
    """Bring a file into servers, all at the same time; a replay that was interrupted goes on where it was.

    Refused rows go into a file beside it. What a server says is told; a server that is away is waited for until `stop`.
    """
    if not file.path.is_file():
        raise InfluxError(f"{file.path}: there is no such file")
    refused = RecordedFile(file.refused_path, state)
    with ThreadPoolExecutor(len(servers)) as pool:
        jobs = [pool.submit(_replay_to, file, server, config, state, refused, tell, stop) for server in servers]
        return [job.result() for job in jobs]


def _replay_to(
    file: File, server: Server, config: Config, state: State, refused: RecordedFile, tell: Tell, stop: Event
) -> Replayed:
    key = f"{file.key()} to {server.name}"
    begin = state.target(key).position
    result = Replayed(server.name, resumed_at=begin.offset if begin else 0)
    target, last = InfluxServer(server, config.timeout), ""

    def commit(position: Position, delivered: int, refusals: list[Refusal]) -> None:
        if refusals:
            refused.prepare()
        with state.change() as connection:
            if refusals:
                refused.append(connection, refused_lines(server.name, refusals))
            state.advance(connection, key, position, delivered, [], time.time())
        result.delivered += delivered
        result.refused += len(refusals)
        for refusal in refusals[:1]:
            tell(f"{server.name}: {len(refusals)} rows refused, the first because: {refusal.reason}")

    def later(answer: Later, attempt: int) -> bool:
        nonlocal last
        if answer.reason != last:
            last = answer.reason
            tell(f"{server.name}: {answer.reason}; trying again")
        stop.wait(pause_before(attempt, answer, config.retry_wait_max, random))
        return not stop.is_set()

    delivery = Delivery(target, commit, later, config.retry_deadline)
    try:
        for chunk in file.chunks(config.batch_rows, result.resumed_at):
            if stop.is_set() or not delivery.run(chunk):
                return result
            commit(chunk.end or chunk.ends[-1], 0, [])
        state.forget(key)
        result.complete = True
        return result
    finally:
        target.close()


def _open(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file of line protocol; a line break inside a text does not end one."""
    begun = b""
    for part in file:
        begun += part
        if lines.is_whole(begun.decode()):
            yield from (line.encode() for line in lines.split_lines(begun.decode()))
            begun = b""
    yield from (line.encode() for line in lines.split_lines(begun.decode()))


def _as_json(line: bytes) -> bytes:
    return orjson.dumps({"line": line.decode("utf-8", "replace")})


def _time_of(line: bytes | None) -> int | None:
    if line is None:
        return None
    try:
        return int(line.rpartition(b" ")[2])
    except ValueError:
        return None
