"""A service with as many one-second items as one likes, which breaks off where one likes; for soaks and benchmarks.

Belongs here: much data from little memory, at a speed that is no limit. Does not belong here: any other resource.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
_DAY = 86_400
_DATE = b"2000-00-00"  # stands where the date of a day goes


def _item(second: int) -> bytes:
    hours, rest = divmod(second, 3600)
    return (
        b'{"time": "%sT%02d:%02d:%02dZ", "slurry_flow": %05.2f, "proppant": %05d, "treating_pressure": %07.1f, '
        b'"stage": "frac"}, ' % (_DATE, hours, *divmod(rest, 60), 10 + second % 8999 / 100, 10_000 + second,
                                10_000 + second % 7919 / 10)
    )  # fmt: skip


class LongService:
    """Serves `count` items from 2025-01-01 on for whatever data are asked for; breaks off after each number of items
    in `cuts`, counted from the first item of all."""

    def __init__(self, count: int, cuts: tuple[int, ...] = ()) -> None:
        self.count = count
        self._cuts = sorted(cuts)
        self.requests = 0
        self._width = len(_item(0))
        self._template = b"".join(map(_item, range(_DAY)))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LongService:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def pieces(self, start: datetime):
        """The array from `start` on; an empty piece is where the connection breaks."""
        self.requests += 1
        first = max(0, int((start - FIRST).total_seconds()))
        until = self._cuts.pop(0) if self._cuts else self.count
        yield b"["
        while first < until:
            day, second = divmod(first, _DAY)
            last = min(until, (day + 1) * _DAY)
            date = f"{FIRST + timedelta(days=day):%Y-%m-%d}".encode()
            items = self._template[second * self._width : (second + last - first) * self._width]
            items = items.replace(_DATE, date)
            first = last
            for at in range(0, len(items), 1 << 16):
                piece = items[at : at + (1 << 16)]
                yield piece[:-2] if first == self.count and at + (1 << 16) >= len(items) else piece
        yield b"]" if until == self.count else b""


def _handler(service: LongService):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            asked = query.get("start_datetime", [f"{FIRST:%Y-%m-%d %H:%M:%S}"])[0]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with suppress(ConnectionError):
                for piece in service.pieces(datetime.fromisoformat(asked).replace(tzinfo=UTC)):
                    if not piece:
                        self.close_connection = True
                        return
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")

    return Handler
