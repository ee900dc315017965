"""Requests that were refused: how many, of whom, and why, for the people who run the door.

Belongs here: counting them, what the log says of them, and what helps. Does not belong here: what is refused (app.py),
or where the counts are kept (memory.py).

Who sends has the reason in the answer, but many clients lose it without a word, and their lines with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ionbeam_client.text import visible

log = logging.getLogger(__name__)

AGAIN = 3600.0
"""Seconds after which the log has the number of those that followed; where none did, the next one begins anew."""
_LONGEST = 500  # characters of a line of the log

_REMEDIES = {
    400: "correct what its clients send",
    401: "a station that should write needs the token of its source (sources.<name>.token)",
    413: "let its clients send smaller batches, or raise the limits at receive in the YAML",
    415: "let its clients pack with gzip, or not at all",
    429: "let its clients send less, or raise receive.lines_a_second in the YAML",
}


@dataclass(frozen=True, slots=True)
class Refusals:
    """Requests with the token of `source` (empty: of none) that were refused with `status`, the `last` for `reason`."""

    source: str
    status: int
    requests: int
    last: datetime
    reason: str

    @property
    def remedy(self) -> str:
        return _REMEDIES[self.status]

    def in_words(self) -> str:
        whose = f"{self.source}: " if self.source else ""
        return (
            f"{whose}{self.requests:,} requests were refused with {self.status}, the last at "
            f"{self.last:%Y-%m-%d %H:%M}: {self.reason}"
        )


class Counted:
    """Refusals that are not kept yet. Safe across threads.

    The log has a line of each source and status as it begins, and one with the number of the others now and then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, int], Refusals] = {}
        self._told: dict[tuple[str, int], float] = {}
        self._more: dict[tuple[str, int], Refusals] = {}

    def add(self, source: str, status: int, reason: str) -> None:
        """One more; those of a kind that nobody can put right are not counted."""
        if status not in _REMEDIES:
            return
        one = Refusals(source, status, 1, datetime.now(UTC), reason)
        key = source, status
        with self._lock:
            _count(self._found, one)
            is_new = key not in self._told
            if is_new:
                self._told[key] = time.monotonic()
            else:
                _count(self._more, one)
        if is_new:
            whose = f"{source}: " if source else ""
            log.warning("%s", visible(f"{whose}requests are refused with {status}: {reason} ({one.remedy})", _LONGEST))

    def keep(self, write: Callable[[Sequence[Refusals]], object]) -> None:
        """Have `write` keep what was counted since the last time, and tell what is to be told again."""
        for one in self._again():
            log.warning("%s", visible(f"again {one.in_words()} ({one.remedy})", _LONGEST))
        with self._lock:
            found, self._found = self._found, {}
        if not found:
            return
        try:
            write([*found.values()])
        except BaseException:
            with self._lock:
                for one in found.values():
                    _count(self._found, one)
            raise

    def _again(self) -> list[Refusals]:
        now = time.monotonic()
        with self._lock:
            over = [key for key, told in self._told.items() if now - told >= AGAIN]
            for key in over:
                del self._told[key]
            found = [self._more.pop(key) for key in over if key in self._more]
            self._told.update(((one.source, one.status), now) for one in found)
        return found


def _count(found: dict[tuple[str, int], Refusals], one: Refusals) -> None:
    key = one.source, one.status
    before = found.get(key)
    latest = max(filter(None, (before, one)), key=lambda some: some.last)
    many = one.requests + (before.requests if before else 0)
    found[key] = Refusals(*key, many, latest.last, latest.reason)
