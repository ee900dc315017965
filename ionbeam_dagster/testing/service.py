"""A web service on the loopback interface that misbehaves on demand.

Belongs here: real HTTP, and the faults that any service may have. Does not belong here: what one service answers (a
subclass of `Service`, in a module of its own).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

HTML = b"<!DOCTYPE html><html><body><h1>We are moving our servers. Please come back later.</h1></body></html>"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """In lower case."""
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    body: bytes = b""
    status: int = 200
    type: str = "text/plain"
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Break the connection off after so many bytes of the body."""
    pause: float = 0.0
    """Seconds to wait in the middle of the body."""

    @classmethod
    def of_json(cls, content: Any, status: int = 200) -> Reply:
        return cls(json.dumps(content, ensure_ascii=False).encode(), status, "application/json")


Fault = Callable[[Reply], Reply]
"""Turns the right reply into what a service gives that is not well."""


def status(code: int, **headers: str) -> Fault:
    """Another status, with `headers` (``retry_after="1"``)."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    return lambda reply: Reply(b"not now", code, headers=named)


def truncated(reply: Reply) -> Reply:
    return replace(reply, cut=len(reply.body) // 2)


def slow(seconds: float) -> Fault:
    return lambda reply: replace(reply, pause=seconds)


def empty(reply: Reply) -> Reply:
    return replace(reply, body=b"")


def html(reply: Reply) -> Reply:
    return Reply(HTML, 200, "text/html; charset=utf-8")


def not_utf8(reply: Reply) -> Reply:
    return replace(reply, body=reply.body[:-1] + b"\xff\xfe" + reply.body[-1:])


def latin1(reply: Reply) -> Reply:
    """Text in another charset than it is said to have."""
    return replace(reply, body=reply.body.decode().encode("latin-1"))


def utf16(reply: Reply) -> Reply:
    return replace(reply, body=reply.body.decode().encode("utf-16"))


def mislabelled(reply: Reply) -> Reply:
    """The right bytes, said to be in another charset."""
    return replace(reply, type=f"{reply.type.partition(';')[0]}; charset=utf-16")


def redirected(address: str) -> Fault:
    return lambda reply: Reply(b"", 302, headers={"Location": address})


@dataclass
class _Planned:
    pattern: re.Pattern[str]
    fault: Fault
    times: float


class Service:
    """A server that answers with `answer`, which subclasses write; a context manager. `seen` is what it was asked."""

    host = "127.0.0.1"

    def __init__(self, port: int = 0) -> None:
        self.seen: list[Request] = []
        self._faults: list[_Planned] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((self.host, port), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self._server.server_port}"

    def break_(self, path: str, fault: Fault, times: float = 1) -> None:
        """Let the next `times` answers to addresses (path and query) that match `path` have a fault."""
        with self._lock:
            self._faults.append(_Planned(re.compile(path), fault, times))

    def repair(self) -> None:
        """From now on, no fault."""
        with self._lock:
            self._faults.clear()

    def paths(self, pattern: str = "") -> list[str]:
        """The paths that were asked for so far, in order, as far as they match."""
        return [request.path for request in self.seen if re.search(pattern, request.path)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply(self, request: Request, address: str) -> Reply:
        self.seen.append(request)
        reply = self.answer(request)
        with self._lock:
            for planned in self._faults:
                if planned.times > 0 and planned.pattern.search(address):
                    planned.times -= 1
                    return planned.fault(reply)
        return reply


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # whoever asked has gone
                super().handle()

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            split = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, split.path, dict(parse_qsl(split.query)), headers, body)
            self._send(service.reply(request, self.path))

        def _send(self, reply: Reply) -> None:
            self.send_response_only(reply.status)
            usual = {"Date": self.date_time_string(), "Content-Type": reply.type}
            for name, value in (usual | reply.headers).items():
                self.send_header(name, value)
            if reply.status != 304:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            half = len(reply.body) // 2 if reply.pause else len(reply.body)
            try:
                self.wfile.write(reply.body[: half if reply.cut is None else reply.cut])
                if reply.cut is not None:
                    self.close_connection = True
                elif reply.pause:
                    self.wfile.flush()
                    threading.Event().wait(reply.pause)
                    self.wfile.write(reply.body[half:])
            except ConnectionError:
                self.close_connection = True

    return Handler
