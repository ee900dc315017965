"""Who may write: a token is one source's. How much it may bring in a second.

Belongs here: reading credentials out of requests, and the rate of each token. Does not belong here: what is written.
Tokens come from the environment by the YAML, and stand in no message and no log.
"""

from __future__ import annotations

import base64
import hmac
import threading
import time
from collections.abc import Mapping

from ionbeam_dagster.sources.door import Door

_BURST = 60.0  # seconds' worth that may come at once


class Tokens:
    """The tokens of the sources that are written to the door."""

    def __init__(self, sources: Mapping[str, Door]) -> None:
        self._tokens = {name: source.config.token.get_secret_value().encode() for name, source in sources.items()}

    def source_of(self, token: str | None) -> str | None:
        """The source whose token it is; all are compared, in the same time whichever it is."""
        given = (token or "").encode("utf-8", "surrogatepass")
        found = [name for name, own in self._tokens.items() if hmac.compare_digest(own, given)]
        return found[0] if found else None


def token_of(authorization: str, query: Mapping[str, str]) -> str | None:
    """The token of a request: after ``Token``, ``Bearer`` or ``jwt``, else the password of ``Basic``, or ``p``."""
    kind, _, word = authorization.strip().partition(" ")
    if kind.lower() in ("token", "bearer", "jwt"):
        token = word.strip()
        return token.partition(":")[2] if kind.lower() == "token" and ":" in token else token
    if kind.lower() == "basic":
        try:
            return base64.b64decode(word.strip(), validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, or no UTF-8
            return None
    return query.get("p")


class Rate:
    """How many lines each source's token may still bring, of `a_second` in the long run; None is no limit."""

    def __init__(self, a_second: int | None) -> None:
        self._a_second = a_second
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, source: str, lines: int) -> int:
        """Count lines in; or returns after how many seconds they may come, when that is not now.

        More than may come at once may come when nothing came for a while.
        """
        if self._a_second is None:
            return 0
        most, now = self._a_second * _BURST, time.monotonic()
        with self._lock:
            left, then = self._left.get(source, (most, now))
            left = min(most, left + (now - then) * self._a_second)
            needed = min(float(lines), most)
            if left < needed:
                self._left[source] = left, now
                return int((needed - left) / self._a_second) + 1
            self._left[source] = left - lines, now
        return 0
