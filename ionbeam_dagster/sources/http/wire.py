"""What stands between the client and the connection: to whom credentials go, how often, and whom we trust.

Does not belong here: what credentials are (credentials.py).
"""

from __future__ import annotations

import ssl
import threading
import time
from functools import cache

import httpx

AUTHORIZATION = "ionbeam_authorization"
"""The extension of a request that holds its ``Authorization`` header until it leaves."""


@cache
def trusted_authorities() -> ssl.SSLContext:
    """The authorities' certificates, for all clients: to read them takes as long as many requests."""
    return httpx.create_ssl_context()


class AuthorizingTransport(httpx.BaseTransport):
    """Adds the ``Authorization`` header on the way out: to the service's own host alone, and unseen by the cache.

    On the way in it says that what is cached is never used unasked: a file may be published again at any time.
    """

    def __init__(self, wire: httpx.BaseTransport, home: httpx.URL) -> None:
        self._wire = wire
        self._home = (home.scheme, home.host, home.port)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        value = request.extensions.get(AUTHORIZATION)
        if value and (request.url.scheme, request.url.host, request.url.port) == self._home:
            request.headers["Authorization"] = value
        response = self._wire.handle_request(request)
        if "no-store" not in response.headers.get("cache-control", ""):
            response.headers["cache-control"] = "no-cache"
        return response

    def close(self) -> None:
        self._wire.close()


class Pace:
    """Lets at most `per_second` pass in a second, evenly."""

    def __init__(self, per_second: float | None) -> None:
        self._gap = 1.0 / per_second if per_second else 0.0
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            begin, self._next = max(now, self._next), max(now, self._next) + self._gap
        time.sleep(max(0.0, begin - now))
