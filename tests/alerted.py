"""A webhook and a mail server for tests, which may be away, or take calls and never answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from aiosmtpd.controller import Controller
from servers import free_port


class Told:
    """A webhook and a mail server, which may be away."""

    def __init__(self, web: int | None = None, mail: int | None = None) -> None:
        self.web, self.mail = web or free_port(), mail or free_port()
        self.posted: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.mailed: list[str] = []
        self._servers: list = []

    def open(self) -> None:
        told = self

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self):
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.posted.append((document["state"], document["subject"]))
                told.texts.append(document["text"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args):
                pass

        class Mailbox:
            async def handle_DATA(self, server, session, envelope):
                told.mailed.append(envelope.content.decode())
                return "250 taken"

        web = ThreadingHTTPServer(("127.0.0.1", self.web), Hook)
        Thread(target=web.serve_forever, daemon=True).start()
        mail = Controller(Mailbox(), hostname="127.0.0.1", port=self.mail)
        mail.start()
        self._servers = [web, mail]

    def close(self) -> None:
        if self._servers:
            self._servers[0].shutdown()
            self._servers[0].server_close()
            self._servers[1].stop()
            self._servers = []


@contextmanager
def hanging(*ports: int) -> Iterator[list[int]]:
    """Servers that take every call and say nothing; gives the ports that were called."""
    calls: list[int] = []
    kept: list[socket.socket] = []

    def take(server: socket.socket, port: int) -> None:
        while True:
            try:
                kept.append(server.accept()[0])
            except OSError:
                return
            calls.append(port)

    with ExitStack() as stack:
        for port in ports:
            server = stack.enter_context(socket.create_server(("127.0.0.1", port)))
            Thread(target=take, args=(server, port), daemon=True).start()
            stack.callback(server.shutdown, socket.SHUT_RDWR)
        yield calls
        for one in kept:
            one.close()
