"""A ledger that is new, or was lost while it was used, is filled with what is known of the past before anything else.

Belongs here: when that is done, once, whoever comes first. Does not belong here: what is known of the past
(pipeline/recovery.py), or how a ledger is told from another (sqlite_file.py, redis_server.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import RLock, get_ident

_LOG = logging.getLogger(__name__)

Recover = Callable[[], object]
"""Puts into a new ledger what is known of the past; what it returns is false when that is nothing."""


TakeOver = Callable[[], object]
"""Puts into a ledger what an earlier version kept beside it, if that was not done yet."""


class Past:
    """Has a ledger filled by `recover` when it finds itself new; `note` then remembers what was found.

    Before a process uses a ledger, `take_over` is called, too. Both use the ledger itself, and come here again: they
    go on, while other threads wait.
    """

    def __init__(self, place: str, recover: Recover, note: Callable[[str], None], take_over: TakeOver) -> None:
        self._place = place
        self._recover = recover
        self._note = note
        self._take_over = take_over
        self._lock = RLock()
        self._settled: object = None
        self._filling: object = None
        self._filler: int | None = None
        self.fillings = 0
        """How often a ledger was filled or found whole: it is not the one that it was before, where this grew."""

    @property
    def is_filling(self) -> bool:
        """Whether this thread fills the ledger: it alone may use it meanwhile."""
        return self._filler == get_ident()

    def alone(self) -> AbstractContextManager[object]:
        """Keeps all other threads from filling it; waits for one that does."""
        return self._lock

    def settle(
        self,
        ledger: object,
        begin: Callable[[], bool],
        finish: Callable[[], None],
        is_unmarked: Callable[[], bool] = lambda: True,
    ) -> None:
        """Fill `ledger`, unless that was done. `begin` says whether it is new, and prepares it; `finish` marks it, and
        `is_unmarked` says whether no other process did meanwhile."""
        if ledger == self._settled:
            return
        with self._lock:
            if ledger in (self._settled, self._filling):
                return
            try:
                self._filling, self._filler = ledger, get_ident()
                is_new = begin()
                self._take_over()
                if is_new:
                    if found := self._recover():
                        _LOG.warning("%s was new, and made again from the other stores: %s", self._place, found)
                        if is_unmarked():  # else another process has noted all, and this found what it left
                            self._note(str(found))
                    finish()
                self._settled = ledger
                self.fillings += 1
            finally:
                self._filling = self._filler = None

    def was_lost(self) -> None:
        self._settled = None
