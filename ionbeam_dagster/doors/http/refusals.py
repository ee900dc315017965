"""Requests that were refused: how many, of whom, and why, for the people who run the door.

Belongs here: counting them, and what helps. Does not belong here: what is refused (app.py), or where the counts are
kept (memory.py).

Who sends has the reason in the answer, but many clients lose it without a word, and their lines with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

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
    """Refusals that are not kept yet. Safe across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, int], Refusals] = {}

    def add(self, source: str, status: int, reason: str) -> None:
        """One more; those of a kind that nobody can put right are not counted."""
        if status in _REMEDIES:
            self._add(Refusals(source, status, 1, datetime.now(UTC), reason))

    def keep(self, write: Callable[[Sequence[Refusals]], object]) -> None:
        """Have `write` keep what was counted since the last time."""
        with self._lock:
            found, self._found = self._found, {}
        if not found:
            return
        try:
            write([*found.values()])
        except BaseException:
            for one in found.values():
                self._add(one)
            raise

    def _add(self, one: Refusals) -> None:
        key = one.source, one.status
        with self._lock:
            before = self._found.get(key)
            latest = max(filter(None, (before, one)), key=lambda some: some.last)
            many = one.requests + (before.requests if before else 0)
            self._found[key] = Refusals(*key, many, latest.last, latest.reason)
