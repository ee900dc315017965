"""The HTTP server of the door and of the web service: waitress, in which half a request takes no honest one's place.

Belongs here: connections, who of them has to go, and what they may take of memory and files. Does not belong here: what
is answered (doors/http/app.py, edr/server.py).

A connection takes a place. When all are taken, the next one gets the place of one that does not bring its request to an
end: of those that have not sent a whole one yet, or else of all that wait, the one that waits the longest. A request
that is whole is always answered, unless its sender does not read the answer.

A body that the application does not want is not kept: the answer goes out at once, and what comes of the body is passed
over up to a bound before the connection ends, since who is reset while sending does not see the answer.
"""

from __future__ import annotations

import logging
import resource
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from weakref import proxy

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher, WSGITask
from waitress.utilities import BadRequest, Error

from ionbeam_dagster.matters import Matter

WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
LargestBody = Callable[[dict[str, Any]], int]

_PLACES = 1_000
_BEYOND = 100  # further connections, while all those places have whole requests
_HEAD_SECONDS = 10
"""How long the head of a request may take, and a new connection until it says something."""
_IDLE_SECONDS = 30
"""How long a body may stand still, and a connection wait for its next request."""
_UNREAD_SECONDS = 60
"""How long an answer may wait for who reads nothing of it. The system takes more of it only when about a megabyte was
read: it is no shorter, so that slow readers have theirs."""
_IN_MEMORY = 65_536  # bytes of a body; more of it goes into a file
_LONGEST_FRAMING = 8_192  # bytes of what stands around one chunk of a body
_UNWANTED = 40_000_000
"""Bytes that are passed over after an answer that did not wait for its body."""
_AT_A_TIME = 65_536  # of them
_AT_ONCE = 64  # connections that are accepted in a row
_OTHER_FILES = 200  # of everything else in the process


class _NoRoom(Error):  # type: ignore[misc]
    code, reason = 503, "Service Unavailable"

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        status, headers, body = super().to_response(ident)
        return status, [*headers, ("Retry-After", "10")], body


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    matter = Matter(logging.getLogger(__name__))
    body_rcv: Any
    error: Any
    path = ""  # of a head that could not be read; waitress tells it of who goes before the answer
    passed_over = False  # whether there may be more of its body, which nobody waits for
    _wanted: int | None = None  # bytes of its body, once its head is there

    def __init__(self, adj: Adjustments, channel: Any) -> None:
        super().__init__(adj)
        self._channel = channel

    def parse_header(self, header_plus: bytes) -> None:
        """Refuse what does not say where the body ends: a proxy in front could see its end elsewhere."""
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # more digits than Python reads
            raise ParsingError("Content-Length is invalid") from error
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("Content-Length and Transfer-Encoding cannot stand together")
        if self.version != "1.1" and "TRANSFER_ENCODING" in self.headers:
            raise ParsingError("Transfer-Encoding needs HTTP/1.1")

    def received(self, data: bytes) -> int:
        try:
            consumed = int(super().received(data))
        except OSError as error:  # of a large body, which lies in a file
            self.matter.goes_wrong(
                error.errno, f"bodies of requests cannot be kept ({error}); clients are to come again"
            )
            consumed, self.error, self.completed = len(data), _NoRoom("nothing was taken: no room for the body"), True
        if self.body_rcv is not None and not self.error:
            self._look_at_body()
        if self.completed and self.body_rcv is not None and not self.error:
            self.matter.goes_well("bodies of requests can be kept again")
        if self.error:
            self.passed_over, self.expect_continue = True, False
        return len(data) if self.passed_over else consumed

    def _look_at_body(self) -> None:
        if self._wanted is None:
            self._wanted = self._channel.largest_body(self)
        length = len(self.body_rcv) if self.chunked else self.content_length
        if not self._wanted or length > self._wanted:
            self.passed_over, self.completed, self.expect_continue = True, True, False
            self.close()
            self.body_rcv = None
            self.headers |= {"CONTENT_LENGTH": str(length), "CONNECTION": "close"}
        elif self.chunked and len(self.body_rcv.control_line) + len(self.body_rcv.trailer) > _LONGEST_FRAMING:
            self.error, self.completed = BadRequest("Chunk not properly framed"), True


class _Task(WSGITask):  # type: ignore[misc]
    def set_close_on_finish(self) -> None:
        """Go on after an answer without a body, which waitress takes for one that only the end of a connection ends."""
        if self.has_body or self.version != "1.1" or self.request.headers.get("CONNECTION", "").lower() == "close":
            super().set_close_on_finish()


class _Channel(HTTPChannel):  # type: ignore[misc]
    """One connection."""

    task_class = _Task
    close_when_flushed: bool
    _begun = 0.0  # when the first byte of the request came that is not whole yet
    _served = False  # whether a whole one came before
    _ends_early = False  # whether it was answered before its body came
    _left: int | None = None  # how much more is passed over, once that answer is out

    def __init__(self, *of: Any, **more: Any) -> None:
        super().__init__(*of, **more)
        self.parser_class = partial(_Parser, channel=proxy(self))  # no cycle: what it holds goes as it is closed

    def largest_body(self, request: HTTPRequestParser) -> int:
        return int(self.server.largest_body(self.task_class(self, request).get_environment()))

    def received(self, data: bytes) -> bool:
        before = self.request
        took = bool(super().received(data))
        if self.request is not before:
            self._begun = time.time()
        return took

    def service(self) -> None:
        self._served = True
        self._ends_early = self.requests[0].passed_over
        super().service()

    def handle_write(self) -> None:
        if not (self._ends_early and self.close_when_flushed) or self.will_close:
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if not self.connected or self.total_outbufs_len:
            return
        self.close_when_flushed, self._left = False, _UNWANTED
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:  # it is gone
            self.handle_close()

    def handle_read(self) -> None:
        if self._left is None:
            super().handle_read()
            return
        try:
            self._left -= len(self.recv(_AT_A_TIME))  # closes it at its end
        except OSError:
            self._left = -1
        self.last_activity = time.time()
        if self._left < 0:
            self.handle_close()

    def waits(self) -> tuple[bool, float] | None:
        """Whether it ever sent a whole request, and since when it lets us wait; None while one is being answered."""
        if self.requests:
            return None
        if self._left is not None:
            return False, self._begun
        return self._served, self.last_activity if self.request is None else self._begun

    def is_late(self, now: float) -> bool:
        """Whether it has not got as far as the end of a head in time."""
        if self.requests or (self.request is None and self._served):
            return False
        head_came = self.request is not None and self.request.headers_finished
        since = self.creation_time if self.request is None else self._begun
        return not head_came and now - since > _HEAD_SECONDS

    def end_unread(self, now: float) -> None:
        """Close it where an answer waits and nobody reads: a thread may wait with it (`handle_close` wakes that)."""
        if not self.total_outbufs_len or now - self.last_activity <= _UNREAD_SECONDS:
            return
        if not self.outbuf_lock.acquire(blocking=False):
            return  # a thread adds to it right now; the next look tells
        try:
            if self.total_outbufs_len and now - self.last_activity > _UNREAD_SECONDS:
                self.handle_close()
        finally:
            self.outbuf_lock.release()


class _Server(TcpWSGIServer):  # type: ignore[misc]
    channel_class = _Channel
    largest_body: LargestBody

    def handle_accept(self) -> None:
        for _ in range(_AT_ONCE):
            known = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) <= known:
                return
            if known >= self.adj.connection_limit - _BEYOND:
                self._make_room()

    def _make_room(self) -> None:
        waiting = [(since, one) for one in self.active_channels.values() if (since := one.waits())]
        if waiting:
            min(waiting, key=lambda pair: pair[0])[1].handle_close()

    def maintenance(self, now: float) -> None:
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            if channel.is_late(now):
                channel.will_close = True
            else:
                channel.end_unread(now)


class HttpServer:
    """Serves a WSGI application at an address from when it is made. Raises OSError where that cannot be listened at."""

    def __init__(
        self, application: WsgiApplication, host: str, port: int, threads: int, largest_body: LargestBody
    ) -> None:
        """`threads` requests are answered at a time. `largest_body` tells by a request's environment, without its body,
        how many bytes of that the application wants; where there are more, it gets none, and their number as length.
        """
        settings = Adjustments(
            host=host, port=port, threads=threads, connection_limit=_places() + _BEYOND, channel_timeout=_IDLE_SECONDS,
            cleanup_interval=1, asyncore_use_poll=True, inbuf_overflow=_IN_MEMORY, max_request_body_size=1 << 62,
            max_request_header_size=16_384, ident="ionbeam",
        )  # fmt: skip
        self._sockets: dict[int, object] = {}
        self._threads = ThreadedTaskDispatcher()
        try:
            servers = [
                _Server(application, self._sockets, dispatcher=self._threads, adj=settings, sockinfo=one)
                for one in settings.listen
            ]
            for one in servers:
                one.largest_body = largest_body
        except OSError:
            wasyncore.close_all(self._sockets)
            raise
        self.port = int(servers[0].effective_port)
        self._threads.set_thread_count(threads)

    def turn(self, seconds: float) -> None:
        """Do what is to be done now, or wait for it for so long."""
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._sockets, count=1)

    def close(self, seconds: float) -> None:
        """End, once what is being answered is answered, or after so long."""
        self._threads.shutdown(timeout=seconds)
        wasyncore.close_all(self._sockets)


def _places() -> int:
    """How many connections there may be: each needs a file, and a second one for a large body."""
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * (_PLACES + _BEYOND) + _OTHER_FILES
    if most != resource.RLIM_INFINITY and most < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return max(10, min(_PLACES, (most - _OTHER_FILES) // 2 - _BEYOND))
    return _PLACES
