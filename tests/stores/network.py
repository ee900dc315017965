"""A proxy on the loopback interface that does to connections what networks do: cuts them, and keeps them waiting.

Belongs here: faults of TCP for tests of the stores. Does not belong here: any test, or a server.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Loopback:
    """Passes bytes on to `port`; `cut_after` (bytes of an answer, once) breaks a connection, `delay` (s) slows all."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut_after: int | None = None
        self.delay = 0.0
        self.cuts = 0

    def run(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                for source, target, answers in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._pump, args=(source, target, answers), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(4096):
                time.sleep(self.delay)
                if answers and self.cut_after is not None and passed + len(data) > self.cut_after:
                    self.cut_after = None
                    self.cuts += 1
                    break
                target.sendall(data)
                passed += len(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def loopback(url: str) -> Iterator[tuple[Loopback, str]]:
    """A proxy in front of the server at `url` (``scheme://127.0.0.1:port...``), and the address through it."""
    port = int(url.split("127.0.0.1:")[1].split("/")[0])
    proxy = Loopback(port)
    threading.Thread(target=proxy.run, daemon=True).start()
    try:
        yield proxy, url.replace(f"127.0.0.1:{port}", f"127.0.0.1:{proxy.port}")
    finally:
        proxy.close()
