"""Where rows go: InfluxDB servers over HTTP, and files whose length is remembered with the cursors.

Belongs here: one request and what its answer means; appending to a file so that a crash leaves no half row; the CSV
log. Does not belong here: what is done about an answer (delivery.py), and when (sender.py).
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ionbeam_client.influx import lines as protocol
from ionbeam_client.influx.config import Server
from ionbeam_client.influx.log import free_name, leave_room
from ionbeam_client.influx.state import State

if TYPE_CHECKING:
    import httpx

_logger = logging.getLogger("ionbeam_client.influx")


@dataclass(frozen=True)
class Done:
    """The server has all of it."""


@dataclass(frozen=True)
class Refused:
    """The server will never take this as it is; `bad` has the lines that it named, by their place, with the reason."""

    reason: str
    bad: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Later:
    """Nothing is wrong with the rows: try again, after `seconds` if the server said so."""

    reason: str
    seconds: float | None = None


Answer = Done | Refused | Later


class InfluxServer:
    """The write API of one InfluxDB 2 (or whatever speaks it)."""

    def __init__(self, server: Server, timeout: float) -> None:
        self.name = server.name
        self._server = server
        self._timeout = timeout
        self._client: httpx.Client | None = None

    def send(self, lines: list[bytes]) -> Answer:
        """Write lines in one request. A request without an answer may have been done: repeating it changes nothing."""
        import httpx  # a third of a second, which no import and no write() should wait for

        try:
            answer = self._http().post(
                "/api/v2/write", content=_gzip(b"\n".join(lines)),
                params={"org": self._server.org, "bucket": self._server.bucket, "precision": "ns"},
                headers={"Content-Encoding": "gzip", "Content-Type": "text/plain; charset=utf-8"},
            )  # fmt: skip
        except httpx.TimeoutException:
            return Later(f"no answer within {self._timeout:g} s")
        except httpx.HTTPError as error:
            return Later(f"no answer: {error}")
        return meaning(answer.status_code, answer.headers, answer.content, lines)

    def query(self, flux: str) -> httpx.Response:
        """The answer to a Flux query as annotated CSV, as a stream to be closed by the caller."""
        client = self._http()
        body = {
            "query": flux,
            "type": "flux",
            "dialect": {"annotations": ["datatype", "group", "default"], "header": True},
        }
        request = client.build_request(
            "POST", "/api/v2/query", params={"org": self._server.org}, json=body, headers={"Accept": "application/csv"}
        )
        return client.send(request, stream=True)

    def _http(self) -> httpx.Client:
        import httpx

        if self._client is None:
            self._client = httpx.Client(
                base_url=self._server.url, timeout=self._timeout,
                headers={"Authorization": f"Token {self._server.token}", "User-Agent": "eht-influx-client"},
            )  # fmt: skip
        return self._client

    @property
    def bucket(self) -> str:
        return self._server.bucket

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


_UNPARSED = re.compile(r"unable to parse '(.*)': (.*)")
_DROPPED = re.compile(r"dropped=(\d+)")
_CONFLICT = re.compile(r'input field "(.*?)" on measurement "(.*?)" is type (\w+), already exists as type (\w+)')
_REMEDY = {
    401: "the token is not valid", 403: "the token may not write into this bucket",
    404: "there is no such bucket, organisation or path",
}  # fmt: skip


def meaning(status: int, headers: Mapping[str, str], body: bytes, lines: list[bytes]) -> Answer:
    """What an answer to a write of `lines` means.

    Only an answer in InfluxDB's own form can refuse rows: a 400 of something in between says nothing about them.
    """
    if status in (200, 204):
        return Done()
    said = _json(body)
    message = message_of(body)
    reason = f"{status} {_REMEDY.get(status, '')}: {message}".replace(" :", ":") if message else str(status)
    if status == 413:
        return Refused(f"{reason} (too large for the server or a proxy before it)")
    if (status == 400 and ("code" in said or "error" in said)) or status == 422:
        return Refused(reason, _named(said, message, lines))
    return Later(reason, _retry_after(headers.get("Retry-After")))


def _named(said: Mapping[str, Any], message: str, lines: list[bytes]) -> dict[int, str]:
    bad: dict[int, str] = {}
    for one in said.get("data") or []:
        if isinstance(one, dict) and isinstance(one.get("line_number"), int):
            bad[one["line_number"] - 1] = str(one.get("error_message", message))
    number = said.get("line") or next(iter(re.findall(r"\bline (\d+)", message)), None)
    if not bad and isinstance(number, int | str):
        bad[int(number) - 1] = message
    places: dict[str, list[int]] = {}
    if "unable to parse" in message:
        for place, line in enumerate(lines):
            places.setdefault(line.decode("utf-8", "replace"), []).append(place)
        bad = {}
    for text, why in _UNPARSED.findall(message):
        bad |= dict.fromkeys(places.get(text, []), f"unable to parse: {why}")
    if dropped := _DROPPED.search(message):
        bad = _dropped(int(dropped[1]), message, lines)
    return {place: why for place, why in bad.items() if 0 <= place < len(lines)}


def _dropped(count: int, message: str, lines: list[bytes]) -> dict[int, str]:
    """The lines that a partial write left out, when their number leaves no doubt which they are."""
    if conflict := _CONFLICT.search(message):
        name, measurement, given, exists = conflict.groups()
        message = (
            f"field {name!r} of measurement {measurement!r} is {given}, but {exists} on the server"
            + (f'; if it always is a float, say so in <log>.schema.json: {{"{measurement}": {{"{name}": "float"}}}}'
               if (given, exists) == ("integer", "float") else "")
        )  # fmt: skip
        if count < len(lines):
            found = [place for place, line in enumerate(lines) if _kind_in(line, measurement, name) == given]
            return dict.fromkeys(found, message) if len(found) == count else {}
    return dict.fromkeys(range(len(lines)), message) if count == len(lines) else {}


def _kind_in(line: bytes, measurement: str, name: str) -> str | None:
    try:
        row = protocol.row_of(line.decode())
    except ValueError:
        return None
    if row.measurement != measurement or name not in row.fields:
        return None
    kinds = {bool: "boolean", float: "float", str: "string", int: "integer"}
    return "unsigned" if name in row.unsigned else kinds[type(row.fields[name])]


def message_of(body: bytes) -> str:
    """What a server says of itself, in whichever form."""
    said = _json(body)
    return str(said.get("message") or said.get("error") or body[:300].decode("utf-8", "replace")).strip()


def _json(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _retry_after(value: str | None) -> float | None:
    """Seconds that a server asks to wait, as a number or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        from email.utils import parsedate_to_datetime  # rare, and slow to import
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _gzip(data: bytes) -> bytes:
    pressed = zlib.compressobj(1, zlib.DEFLATED, 31)
    return pressed.compress(data) + pressed.flush()


# -- files -------------------------------------------------------------------------------------------------------------


class RecordedFile:
    """A file whose length is committed with the cursors, so that what a crash left behind is cut off at first."""

    def __init__(self, path: Path, state: State, rotate_bytes: float = float("inf")) -> None:
        self.path = path
        self._state = state
        self._rotate_bytes = rotate_bytes

    def prepare(self) -> bool:
        """Make the file end where it was committed, and known before anything is in it; True when it is empty.

        Not inside of change(). What a crash left is cut off; a file that is not ours, or full, is put aside.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._state.change() as connection:
            file = self._open()
            try:
                about, known = os.fstat(file), self._state.file(self.path)
                ours = known is not None and known[0] == about.st_ino
                if known is not None and not ours:
                    _logger.warning("%s was renamed or removed by somebody else; it begins anew", self.path)
                if known is not None and ours and about.st_size > known[1]:
                    os.ftruncate(file, known[1])
                elif known is not None and ours and about.st_size < known[1]:
                    _logger.warning("%s was cut by somebody else: %d bytes, not %d", self.path, about.st_size, known[1])
                size = os.fstat(file).st_size
                if size and not ours:
                    file = self._begin_anew(file, self.path.with_name(f"{self.path.name}.aside"))
                elif size >= self._rotate_bytes:
                    file = self._begin_anew(file, self.path)
                about = os.fstat(file)
                if (about.st_ino, about.st_size) != known:
                    self._state.wrote(connection, self.path, about.st_ino, about.st_size)
                return about.st_size == 0
            finally:
                os.close(file)

    def append(self, connection: sqlite3.Connection, data: bytes) -> None:
        """Add to the file that was prepared, durably, and remember its length in the transaction of `connection`."""
        file = self._open()
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(file, left) :]
            os.fdatasync(file)
            about = os.fstat(file)
            self._state.wrote(connection, self.path, about.st_ino, about.st_size)
        finally:
            os.close(file)

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def _begin_anew(self, file: int, name: Path) -> int:
        os.close(file)
        self.path.rename(free_name(name, 1))
        return self._open()


class CsvLog:
    """The rows of the log as annotated CSV, which `influx write -f` takes as it is.

    Rows of one shape (the same tags, and fields of the same types) stand under one header; another shape has its own.
    The time is the first column.
    """

    def __init__(self, file: RecordedFile) -> None:
        self.name = f"file {file.path}"
        self._file = file
        self._shape: tuple[Any, ...] | None = None

    def prepare(self) -> None:
        """Before append(), and not inside of change()."""
        if self._file.prepare():
            self._shape = None

    def append(
        self, connection: sqlite3.Connection, rows: Sequence[Mapping[str, Any]], schema: protocol.Schema
    ) -> None:
        """Add rows of the log; within them those of one shape are put together."""
        shapes: dict[tuple[Any, ...], list[str]] = {}
        for row in rows:
            shape, cells = _shape_of(row, schema)
            if shape[1]:
                shapes.setdefault(shape, []).append(",".join(cells))
        if not shapes:
            return
        if self._shape in shapes:  # first, so that it needs no header
            shapes = {self._shape: shapes.pop(self._shape)} | shapes
        text: list[str] = []
        last = self._shape
        for one, body in shapes.items():
            if one != last:
                text.append(_header(one))
            last = one
            text += body
        data = ("\n".join(text) + "\n").encode()
        leave_room(self._file.path, len(data))
        self._shape = None  # until it is on the disk, the file may end anywhere
        self._file.append(connection, data)
        self._shape = last


def _shape_of(row: Mapping[str, Any], schema: protocol.Schema) -> tuple[tuple[Any, ...], list[str]]:
    types = schema.get(row["measurement"], {})
    tags = [(name, value) for name, value in sorted((row.get("tags") or {}).items()) if value]
    given = {name: value for name, value in row["fields"].items() if value is not None}
    for name in [name for name, value in given.items() if value == "" and "|" in name]:
        _logger.warning("the CSV log cannot say that field %r is an empty text, because of the | in its name", name)
        del given[name]
    fields = [(name, *_cell(name, value, types)) for name, value in given.items()]
    shape = (tuple(name for name, _ in tags), tuple((name, kind) for name, kind, _ in fields))
    cells = [str(row["timestamp"]), _quoted(row["measurement"]), *(_quoted(value) for _, value in tags)]
    return shape, cells + [cell for _, _, cell in fields]


def _cell(name: str, value: Any, types: Mapping[str, str]) -> tuple[str, str]:
    """A field's type in the annotation, and its value in the row."""
    if isinstance(value, bool):
        return "boolean", "true" if value else "false"
    if isinstance(value, float):
        return "double", repr(value)
    if isinstance(value, int):
        wanted = types.get(name)
        if wanted == "float" and abs(value) <= protocol.EXACT_AS_FLOAT:
            return "double", f"{value}.0"
        return ("unsignedLong" if wanted == "unsigned" and value >= 0 else "long"), str(value)
    if value == "":
        return "field", '""""""'  # an empty cell would be no value; this one is taken over as it is: ""
    return "string", _quoted(value)


def _header(shape: tuple[Any, ...]) -> str:
    tags, fields = shape
    kinds = ["#datatype dateTime:number", "measurement", *("tag" for _ in tags), *(kind for _, kind in fields)]
    names = ["timestamp", "measurement", *map(_quoted, tags), *(_quoted(name) for name, _ in fields)]
    return f"{','.join(kinds)}\n{','.join(names)}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if re.search(r'[,"\r\n]|^\s|\s$|^#', text) else text
