"""Bringing files back into servers: JSON lines, annotated CSV and line protocol, resumable.

Belongs here: reading such a file, and how far it is. Does not belong here: the grammars (lines.py, annotated.py) and
what an answer leads to (delivery.py).
"""

from __future__ import annotations

import gzip
import io
import time
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from random import random
from threading import Event
from typing import TypeVar

import orjson

from ionbeam_client.influx import annotated, lines
from ionbeam_client.influx.config import Config, Server
from ionbeam_client.influx.delivery import Chunk, Delivery, pause_before
from ionbeam_client.influx.errors import FileError, InfluxError
from ionbeam_client.influx.fast_lines import Converter
from ionbeam_client.influx.log import Position, Schemas
from ionbeam_client.influx.sender import refused_lines
from ionbeam_client.influx.state import Refusal, State
from ionbeam_client.influx.targets import InfluxServer, Later, RecordedFile

Tell = Callable[[str], None]
_Given = TypeVar("_Given")
_Opened = io.BufferedReader | gzip.GzipFile
_KINDS = {"jsonl": "JSON lines", "lines": "line protocol", "csv": "annotated CSV"}
_NOT_UNPACKED = (EOFError, zlib.error, gzip.BadGzipFile)


@dataclass
class Replayed:
    """What became of a file at one server."""

    target: str
    delivered: int = 0
    refused: int = 0
    resumed_at: int = 0
    complete: bool = False
    failure: str | None = None
    """Why it is not complete, where going on would not help."""


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
            (begin,) = next(self._parts(file, 1, 0), [b""])
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
        """The rows after the first `skip`, a request's worth at a time. Positions count rows.

        Raises:
            FileError: it cannot be unpacked, from which row on; or nothing in it is a row, and how it was read.
        """
        with _open(self.path) as file:
            begin = file.peek(1)
            if begin.startswith(BOM_UTF8):
                begin = begin[file.readinto(bytearray(len(BOM_UTF8))) :]
            kind = self._kind(begin)
            done = skip
            for chunk in {"jsonl": self._json, "lines": self._lines, "csv": self._csv}[kind](file, rows, skip):
                done = chunk.end.offset if chunk.end else done
                yield chunk
            if begin.strip() and not done:
                raise FileError(
                    f"{self.path}: there is no row in it; it was read as {_KINDS[kind]}. What a file is is told by its "
                    "name: *.jsonl, *.lp or *.csv, and .gz behind it when it is packed"
                )

    def _json(self, file: _Opened, rows: int, skip: int) -> Iterator[Chunk]:
        converter, done = Converter(self.schema()), skip
        for raw in self._parts(file, rows, skip):
            made, reasons = converter.convert(raw)
            yield self._checked(raw, done, made, reasons)
            done += len(raw)

    def _lines(self, file: _Opened, rows: int, skip: int) -> Iterator[Chunk]:
        done = skip
        for raw in self._parts(_lines_of(file), rows, skip):
            yield self._checked([_as_json(line) for line in raw], done, list(raw), {})
            done += len(raw)

    def _csv(self, file: _Opened, rows: int, skip: int) -> Iterator[Chunk]:
        text, done = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline=""), skip
        for some in self._parts(annotated.read_lines(text), rows, skip):
            made = [None if line is None else line.encode("utf-8", "surrogateescape") for _, line, _ in some]
            reasons = {
                place: f"{self.path}, line {number}: {reason}"
                for place, (number, line, reason) in enumerate(some)
                if line is None
            }
            raw = [_as_json(line or f"line {number}".encode()) for line, (number, _, _) in zip(made, some, strict=True)]
            yield self._checked(raw, done, made, reasons)
            done += len(some)

    def _parts(self, given: Iterable[_Given], rows: int, skip: int) -> Iterator[list[_Given]]:
        """What is given after the first `skip`, some at a time; all of it that is whole, before the FileError."""
        part: list[_Given] = []
        done = 0
        try:
            for one in given:
                done += 1
                if done > skip:
                    part.append(one)
                if len(part) == rows:
                    yield part
                    part = []
        except _NOT_UNPACKED as error:
            if part:
                yield part
            raise FileError(f"{self.path}: after row {done} it is broken off or damaged: {error}") from None
        if part:
            yield part

    def _kind(self, begin: bytes) -> str:
        names = set(self.path.name.split(".")[1:])
        if "jsonl" in names or begin.lstrip().startswith(b"{"):
            return "jsonl"
        return "lines" if names & {"lp", "line"} else "csv"

    def _checked(self, raw: list[bytes], done: int, made: list[bytes | None], reasons: dict[int, str]) -> Chunk:
        """Without the rows of other times, and with those refused that have no time (the server would make one up) or
        are no text. `done` rows of the file are before them."""
        kept = []
        ends = [Position(0, done + number) for number in range(1, len(raw) + 1)]
        for place, line in enumerate(made):
            moment = _time_of(line)
            if line is not None and moment is None:
                made[place], reasons[place] = None, "it has no time"
            elif line is not None and not line.isascii() and not _is_text(line):
                made[place], reasons[place] = None, "it is not UTF-8: write the file anew in that encoding"
            if moment is None or (self.start or moment) <= moment < (self.stop or moment + 1):
                kept.append(place)
        places = {place: number for number, place in enumerate(kept)}
        chunk = Chunk(
            [raw[place] for place in kept], [ends[place] for place in kept], [made[place] for place in kept],
            {places[place]: reason for place, reason in reasons.items() if place in places},
        )  # fmt: skip
        chunk.end = ends[-1]
        return chunk


def must_be_a_file(path: Path) -> None:
    """Raises InfluxError where it is none, or a folder."""
    if path.is_dir():
        raise InfluxError(f"{path}: this is a folder; name a file in it")
    if not path.is_file():
        raise InfluxError(f"{path}: there is no such file")


def replay(file: File, servers: list[Server], config: Config, state: State, tell: Tell, stop: Event) -> list[Replayed]:
    """Bring a file into servers, all at the same time; a replay that was interrupted goes on where it was.

    Refused rows go into a file beside it. What a server says is told; a server that is away is waited for until `stop`.
    """
    must_be_a_file(file.path)
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
    except FileError as error:
        result.failure = str(error)
        return result
    finally:
        target.close()


def _open(path: Path) -> _Opened:
    """Raises FileError where what is named .gz is not gzip."""
    if path.suffix != ".gz":
        return path.open("rb")
    file = gzip.open(path)  # noqa: SIM115 (whoever asked for it closes it)
    try:
        file.peek(1)
    except _NOT_UNPACKED as error:
        file.close()
        raise FileError(f"{path}: it cannot be unpacked, in spite of its name: {error}") from None
    return file


def _lines_of(file: _Opened) -> Iterator[bytes]:
    """The lines of a file of line protocol; a line break inside a text does not end one."""
    begun = b""
    for part in file:
        begun += part
        if lines.is_whole(begun.decode("utf-8", "surrogateescape")):
            yield from _split(begun)
            begun = b""
    yield from _split(begun)


def _split(data: bytes) -> Iterator[bytes]:
    for line in lines.split_lines(data.decode("utf-8", "surrogateescape")):
        yield line.encode("utf-8", "surrogateescape")


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _as_json(line: bytes) -> bytes:
    return orjson.dumps({"line": line.decode("utf-8", "replace")})


def _time_of(line: bytes | None) -> int | None:
    if line is None:
        return None
    try:
        return int(line.rpartition(b" ")[2])
    except ValueError:
        return None
