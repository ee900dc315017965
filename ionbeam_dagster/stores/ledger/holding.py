"""Locks of dataset windows in the ledger.

Belongs here: how one process keeps a window from all others. Does not belong here: locks of one machine
(stores/locks.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Thread
from typing import Protocol
from zlib import crc32

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.keys import place_of
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite
from ionbeam_dagster.stores.locks import locked


class Holding(Protocol):
    """Keeps two processes from working on one window."""

    def holding(self, dataset: str, window: Window) -> AbstractContextManager[None]:
        """Keep every other thread, process and machine from holding the window; waits for one that does.

        A holder that dies no longer holds it: on SQLite at once, on Redis within a minute.
        """
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------

_LOCKS = 256  # files; windows that share one wait for each other


class SqliteHolding(OnSqlite):
    @contextmanager
    def holding(self, dataset: str, window: Window) -> Iterator[None]:
        one_of_many = crc32(f"{dataset} {window.key}".encode()) % _LOCKS
        with locked(self._file.path.with_suffix(".locks") / f"{one_of_many}"):
            yield


# --- Redis ------------------------------------------------------------------------------------------------------------


HELD_FOR = 60.0  # seconds after which a window is free whose holder is silent


class RedisHolding(OnRedis):
    @contextmanager
    def holding(self, dataset: str, window: Window) -> Iterator[None]:
        lock = self._server.client.lock(f"ionbeam:holding:{dataset}:{place_of(window)}", HELD_FOR, thread_local=False)
        done = Event()

        def keep() -> None:
            while not done.wait(HELD_FOR / 4):
                with self._server.tolerated():  # it is held for a minute from the last time
                    lock.reacquire()

        with self._server.asked():
            lock.acquire()
        keeper = Thread(target=keep, daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()
            with self._server.tolerated():  # it ends by itself
                lock.release()
