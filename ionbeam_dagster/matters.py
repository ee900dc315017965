"""What goes wrong again and again, in few lines of a log: one as it begins, and one when it is over.

Belongs here: when it is told. Does not belong here: what is said of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable

QUIET = 60.0
"""Seconds without a failure after which a matter is over: on a disk that is nearly full, every other request fits."""
_KINDS = 20  # of one matter that are told


class Matter:
    """One thing that is done again and again, and may fail. Safe across threads."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._told: set[Hashable] = set()
        self._times = 0
        self._last = 0.0

    def goes_wrong(self, kind: Hashable, words: str, error: BaseException | None = None) -> None:
        """It failed. `words` are told at the first time of each `kind`, with the traceback of `error`."""
        with self._lock:
            self._times += 1
            self._last = time.monotonic()
            is_new = kind not in self._told and len(self._told) < _KINDS
            if is_new:
                self._told.add(kind)
        if is_new:
            self._log.error("%s", words, exc_info=error)

    def goes_well(self, words: str) -> None:
        """It did not fail. `words` are told, with how often it failed, where it is over by that."""
        if not self._times:
            return
        with self._lock:
            if not self._times or time.monotonic() - self._last < QUIET:
                return
            times, self._times = self._times, 0
            self._told.clear()
        self._log.warning("%s; it went wrong %d times", words, times)
