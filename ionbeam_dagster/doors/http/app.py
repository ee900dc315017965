"""The requests of the HTTP door, as a WSGI application: InfluxDB's of writing, and those of a device's report.

Belongs here: paths, headers, bodies, statuses. The order is always: token, limits, read, journal, answer. Does not
belong here: what a line or a report is (lines.py, reports.py), or what becomes of the journal (flush.py).
"""

from __future__ import annotations

import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import polars as pl
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from ionbeam_client.archfx.utils.slugs import ArchFxDeviceSlug, ArchFxStreamerSlug
from ionbeam_client.text import visible
from ionbeam_dagster.config.sections import ReceiveSettings
from ionbeam_dagster.doors.http.journal import Frame, Journal
from ionbeam_dagster.doors.http.lines import SCALES, BadLines, Limits, Lines, read_lines
from ionbeam_dagster.doors.http.mapping import Mapping as LineMapping
from ionbeam_dagster.doors.http.refusals import Counted
from ionbeam_dagster.doors.http.reports import BadReport, Once, read_report
from ionbeam_dagster.doors.http.tokens import Rate, Tokens, token_of
from ionbeam_dagster.errors import IonbeamError
from ionbeam_dagster.matters import Matter

log = logging.getLogger(__name__)

_WRITES = ("/api/v2/write", "/write")
_API = "/api/v1/"
_LOGINS, _REPORT = (["auth", "login"], ["auth", "api-jwt-refresh"]), ["streamer", "report"]
_LONGEST_LOGIN = 10_000  # bytes
_TRY_AGAIN = 10  # seconds
_SMALL_BYTES = 1_000_000
_LARGE_AT_ONCE = 2  # larger bodies that are read at the same time: each takes a multiple of its size
_LARGE_WAITING = 8  # that wait for it, or are read: fewer than the threads, so that small ones are answered meanwhile
_MOST_LINES = 500_000  # of one request: each takes memory and time, an empty one too
_MOST_MEMBERS = 1_000  # gzip streams, one after the other, of one body


@dataclass
class Refused(Exception):
    """A request that is not taken: its status, the reason, and what else its answer has."""

    status: int
    reason: str
    headers: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


class Application:
    """The door, for any WSGI server. Safe across threads."""

    def __init__(
        self,
        settings: ReceiveSettings,
        tokens: Tokens,
        journal: Journal,
        once: Once,
        strict: Mapping[str, Callable[[], LineMapping]],
        pages: Mapping[str, Callable[[], tuple[int, str, bytes]]],
    ) -> None:
        """`pages` are further ones by their paths, each giving status, type and body."""
        self._settings = settings
        self._strict = strict
        self._pages = pages
        self._limits = Limits(settings.longest_line, settings.most_tags)
        self._tokens = tokens
        self._journal = journal
        self._once = once
        self._rate = Rate(settings.lines_a_second)
        self._large = threading.BoundedSemaphore(_LARGE_AT_ONCE)
        self._waiting = threading.BoundedSemaphore(_LARGE_WAITING)
        self._version = version("ionbeam-dagster")
        self._matter = Matter(log)
        self.refusals = Counted()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        try:
            response = self._answer(request)
        except (Refused, HTTPException) as error:  # werkzeug's own: a form that is none, a body that is too long
            refused = error if isinstance(error, Refused) else Refused(error.code or 400, error.name)
            self.refusals.add(self._whose(request) or "", refused.status, refused.reason)
            response = _refusal(request, refused)
        except (OSError, IonbeamError) as error:
            of = error.errno if isinstance(error, OSError) else str(error)
            self._matter.goes_wrong(of, f"nothing can be taken now ({error}); clients are told to come again")
            why = "the disk of the door failed" if isinstance(error, OSError) else "for a reason that is in its log"
            response = _refusal(request, Refused(503, f"nothing was taken: {why}", {"Retry-After": str(_TRY_AGAIN)}))
        except (Exception, pl.exceptions.PanicException) as error:
            kind = type(error).__name__, str(error)
            self._matter.goes_wrong(kind, f"a request to {visible(request.path, 100)} failed", error)
            response = _refusal(request, Refused(500, "nothing was taken, for a reason that is in the door's log"))
        return response(environ, start_response)

    def largest_body(self, environ: dict[str, Any]) -> int:
        """How many bytes of a request's body are looked at, as its head has it: none without a token, but to get one.

        What has a larger body, or any where none is looked at, is answered by its head alone.
        """
        request = Request(environ)
        parts = _resource(request.path)
        if request.method != "POST":
            return 0
        if parts in _LOGINS:
            return _LONGEST_LOGIN
        takes = request.path in _WRITES or parts == _REPORT
        return self._settings.most_bytes if takes and self._whose(request) else 0

    def _whose(self, request: Request) -> str | None:
        """The source whose token a request has, if it has one."""
        try:
            return self._tokens.source_of(_token(request))
        except Refused:
            return None

    def _answer(self, request: Request) -> Response:
        path, method = request.path, request.method
        if path == "/ping" and method in ("GET", "HEAD"):
            return Response(status=204, headers={"X-Influxdb-Version": f"ionbeam-{self._version}"})
        if path in self._pages and method in ("GET", "HEAD"):
            status, type, body = self._pages[path]()
            return Response(body, status, content_type=type)
        if path == "/health" and method in ("GET", "HEAD"):
            return _json({"name": "ionbeam", "status": "pass", "message": "ready", "version": self._version})
        if path in _WRITES:
            _only(method, "POST")
            return self._write(request)
        if path.startswith(_API):
            return self._of_device(request, _resource(path))
        raise Refused(404, "there is no such page; lines are written to /api/v2/write")

    def _source(self, request: Request) -> str:
        source = self._tokens.source_of(_token(request))
        if source is None:
            raise Refused(401, "no source has this token", {"WWW-Authenticate": 'Token realm="ionbeam"'})
        return source

    def _lines(self, request: Request, precision: str) -> Lines:
        """The lines of the body, and never more of it unpacked than is allowed; few bytes do not wait for many."""
        if (request.content_length or 0) > self._settings.most_bytes:
            raise Refused(413, f"the request has more than {self._settings.most_bytes} bytes; send smaller batches")
        encoding = request.headers.get("Content-Encoding", "").strip().lower() or "identity"
        if encoding not in ("gzip", "identity"):
            raise Refused(415, f"the encoding {encoding[:20]!r} is not known; use gzip")
        is_large = (request.content_length or 0) > _SMALL_BYTES
        with self._room(is_large):
            body = request.get_data(cache=False)
            if encoding == "identity":
                return self._read(body, precision)
            if is_large:
                return self._read(_unpacked(body, self._settings.most_unpacked_bytes), precision)
        with self._room(_unpacks_to_more(body, _SMALL_BYTES)):
            return self._read(_unpacked(body, self._settings.most_unpacked_bytes), precision)

    def _read(self, body: bytes, precision: str) -> Lines:
        if body.count(b"\n", 0, -1) >= _MOST_LINES:  # the last one ends a line, and begins none
            raise Refused(413, f"the request has more than {_MOST_LINES} lines; send smaller batches")
        return read_lines(body, precision, self._limits)

    @contextmanager
    def _room(self, is_large: bool) -> Iterator[None]:
        """Wait until there is room for a large body. Raises Refused where many wait."""
        if not is_large:
            yield
            return
        if not self._waiting.acquire(blocking=False):
            raise Refused(503, "other large requests are read now; nothing was taken", {"Retry-After": str(_TRY_AGAIN)})
        try:
            with self._large:
                yield
        finally:
            self._waiting.release()

    def _allow(self, source: str, lines: int) -> None:
        if seconds := self._rate.wait(source, lines):
            raise Refused(
                429, f"more than {self._settings.lines_a_second} lines a second", {"Retry-After": str(seconds)}
            )

    def _refuse_unmapped(self, source: str, lines: pl.Series) -> None:
        """Where the block of a source says so, what it does not map is refused."""
        mapping = self._strict.get(source)
        if mapping is not None and (reason := mapping().unmapped(lines)):
            raise Refused(400, f"{reason}; nothing of the request was taken")

    # -- line protocol -------------------------------------------------------------------------------------------

    def _write(self, request: Request) -> Response:
        source = self._source(request)
        precision = _query(request).get("precision", "ns")
        if precision not in SCALES:
            raise Refused(400, f"the precision {precision[:20]!r} is not known; use {', '.join(SCALES)}")
        try:
            lines = self._lines(request, precision)
        except BadLines as error:
            more = {} if error.line is None else {"line": error.line}
            raise Refused(400, f"unable to parse: {error}; nothing of the request was taken", more=more) from error
        if lines.count:
            self._refuse_unmapped(source, pl.Series(lines.text.decode().split("\n")))
            self._allow(source, lines.count)
            self._journal.add(Frame(source, time.time_ns(), lines.count, SCALES[precision], body=lines.text))
            self._matter.goes_well("lines and reports are taken again")
        return Response(status=204, headers={"X-Influxdb-Version": f"ionbeam-{self._version}"})

    # -- devices -------------------------------------------------------------------------------------------------

    def _of_device(self, request: Request, parts: list[str]) -> Response:
        match parts:
            case ["auth", "login"]:
                _only(request.method, "POST")
                return self._login(request)
            case ["auth", "api-jwt-refresh"]:
                _only(request.method, "POST")
                token = _json_object(request).get("refresh")
                return _json({"access": self._known(token)})
            case ["auth", "logout"]:
                self._source(request)
                return Response(status=204)
            case ["auth", "user-info"]:
                return _json({"username": self._source(request)})
            case ["streamer", "report"]:
                _only(request.method, "POST")
                return self._report(request)
            case ["streamer", slug]:
                _only(request.method, "GET")
                return self._streamer(self._source(request), slug)
        raise Refused(404, "there is no such resource at this door; reports are posted to /api/v1/streamer/report/")

    def _login(self, request: Request) -> Response:
        """The password is the source's token; whoever has it gets it as both tokens of the answer."""
        token = self._known(_json_object(request).get("password"))
        return _json({"username": self._tokens.source_of(token), "jwt": token, "jwt_refresh_token": token})

    def _known(self, token: object) -> str:
        if not isinstance(token, str) or self._tokens.source_of(token) is None:
            raise Refused(401, "no source has this password or token")
        return token

    def _report(self, request: Request) -> Response:
        source = self._source(request)
        if (request.content_length or 0) > self._settings.most_bytes:
            raise Refused(413, f"the request has more than {self._settings.most_bytes} bytes; send smaller reports")
        request.max_form_parts = 10
        file = request.files.get("file")
        if file is None:
            raise Refused(400, "the request has no part called file")
        try:
            with self._room((request.content_length or 0) > _SMALL_BYTES):
                report = read_report(file.read())
        except BadReport as error:
            raise Refused(400, f"the report {error}; nothing of it was taken") from error
        self._refuse_unmapped(source, report.lines)
        self._allow(source, len(report.numbers))
        count = self._once.take(source, report)
        self._matter.goes_well("lines and reports are taken again")
        return _json({"count": count}, 201)

    def _streamer(self, source: str, slug: str) -> Response:
        try:
            device, _, index = slug.removeprefix("t--").rpartition("--")
            streamer = int(index, 16)
            found = ArchFxStreamerSlug(ArchFxDeviceSlug(f"d--{device}"), streamer)
            number = ArchFxDeviceSlug(found.get_device()).get_id()
        except ValueError as error:
            raise Refused(404, f"{slug[:60]!r} is no streamer") from error
        highest = self._once.highest(source, number, streamer)
        return _json({"slug": str(found), "device": str(found.get_device()), "index": streamer, "last_id": highest})


def _resource(path: str) -> list[str]:
    """The parts of a path of devices; none of another."""
    return path.removeprefix(_API).strip("/").split("/") if path.startswith(_API) else []


def _token(request: Request) -> str | None:
    return token_of(request.headers.get("Authorization", ""), _query(request))


def _query(request: Request) -> Mapping[str, str]:
    try:
        return request.args
    except UnicodeDecodeError as error:
        raise Refused(400, "the query of the address is no UTF-8 text") from error


def _only(method: str, allowed: str) -> None:
    if method != allowed:
        raise Refused(405, f"use {allowed}", {"Allow": allowed})


def _unpacks_to_more(body: bytes, bytes: int) -> bool:
    """Whether packed data may have more bytes than these. What is no gzip has none."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        return len(unpacker.decompress(body, bytes + 1)) > bytes or bool(unpacker.unused_data)
    except zlib.error:
        return False


def _unpacked(body: bytes, most: int) -> bytes:
    unpacked = b""
    try:
        for _ in range(_MOST_MEMBERS):
            if not body:
                return unpacked
            unpacker = zlib.decompressobj(wbits=31)
            unpacked += unpacker.decompress(body, most + 1 - len(unpacked))
            if len(unpacked) > most:
                raise Refused(413, f"the request has more than {most} bytes unpacked; send smaller batches")
            if not unpacker.eof:
                raise Refused(400, "the gzip data end too early")
            body = unpacker.unused_data
    except zlib.error as error:
        raise Refused(400, f"the body is no gzip: {error}") from error
    raise Refused(413, f"the body is more than {_MOST_MEMBERS} gzip streams; pack it as one")


def _json_object(request: Request) -> dict[str, Any]:
    if (request.content_length or 0) > _LONGEST_LOGIN:
        raise Refused(413, "the request is too long")
    try:
        found = json.loads(request.get_data(cache=False))
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the body is no JSON") from error
    if not isinstance(found, dict):
        raise Refused(400, "the body is no JSON object")
    return found


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(content), status, mimetype="application/json")


_CODES = {400: "invalid", 401: "unauthorized", 404: "not found", 413: "request too large", 429: "too many requests",
          503: "unavailable"}  # fmt: skip


def _refusal(request: Request, refused: Refused) -> Response:
    """The reason, under the names by which clients of InfluxDB 2, of InfluxDB 1 and of ArchFX look for it."""
    if request.path.startswith(_API):
        content: dict[str, Any] = {"detail": refused.reason}
    else:
        code = _CODES.get(refused.status, "internal error" if refused.status >= 500 else "invalid")
        content = {"code": code, "message": refused.reason, "error": refused.reason, **refused.more}
    response = _json(content, refused.status)
    response.headers.update(refused.headers)
    return response
