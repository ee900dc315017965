"""Locks in the ledger: of dataset windows, and of jobs that one process anywhere may do at a time.

Belongs here: how one process keeps a window or a job from all others, on whichever machine. Does not belong here:
locks of one machine (stores/locks.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.keys import place_of
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite
from ionbeam_dagster.stores.locks import JobLock, locked

if TYPE_CHECKING:
    from redis.lock import Lock

    from ionbeam_dagster.stores.ledger.redis_server import RedisServer


class Job(Protocol):
    """The lock of a job. Whoever holds it asks `is_ours` before each thing that no other may do meanwhile."""

    @property
    def is_ours(self) -> bool:
        """Whether this process holds it, also after it stood still."""
        ...

    @property
    def left(self) -> float:
        """Seconds for which nobody else can take it, whatever happens to this process: 0 when it is not ours."""
        ...

    def acquire(self) -> bool:
        """Take it if it is free; True when it is ours."""
        ...

    def close(self) -> None:
        """Give it back, if it is ours."""
        ...


class Holding(Protocol):
    """Keeps two processes from working on one window, or doing one job."""

    def holding(self, dataset: str, window: Window) -> AbstractContextManager[None]:
        """Keep every other thread, process and machine from holding the window; waits for one that does.

        A holder that dies no longer holds it: on SQLite at once, on Redis within a minute.
        """
        ...

    def job(self, name: str, held_for: float | None = None) -> Job:
        """The lock of a job. One that dies, or is silent on Redis for so many seconds, a minute if none are given, no
        longer holds it."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------

_LOCKS = 256  # files; windows that share one wait for each other


class SqliteHolding(OnSqlite):
    @contextmanager
    def holding(self, dataset: str, window: Window) -> Iterator[None]:
        one_of_many = crc32(f"{dataset} {window.key}".encode()) % _LOCKS
        with locked(self._file.path.with_suffix(".locks") / f"{one_of_many}"):
            yield

    def job(self, name: str, held_for: float | None = None) -> Job:
        return JobLock(self._file.path.with_suffix(".locks") / f"{name}.job")


# --- Redis ------------------------------------------------------------------------------------------------------------

# ionbeam:holding:<dataset>:<window>            whoever holds a window
# ionbeam:job:<name>                            whoever does a job

HELD_FOR = 60.0  # seconds after which a window or a job is free whose holder is silent


class RedisHolding(OnRedis):
    @contextmanager
    def holding(self, dataset: str, window: Window) -> Iterator[None]:
        lease = _Lease(self._server, f"ionbeam:holding:{dataset}:{place_of(window)}")
        lease.acquire(wait=True)
        try:
            yield
        finally:
            lease.close()

    def job(self, name: str, held_for: float | None = None) -> Job:
        return _Lease(self._server, f"ionbeam:job:{name}", held_for)


class _Lease:
    """A lock that ends by itself, and is renewed by a thread of its holder."""

    def __init__(self, server: RedisServer, name: str, held_for: float | None = None) -> None:
        self._server = server
        self._name = name
        self._held_for = held_for or HELD_FOR
        self._lock: Lock | None = None
        self._until = 0.0
        self._done = Event()
        self._keeper = Thread()

    @property
    def is_ours(self) -> bool:
        return self.left > 0

    @property
    def left(self) -> float:
        return max(self._until - time.monotonic(), 0.0) if self._lock is not None else 0.0

    def acquire(self, wait: bool = False) -> bool:
        if self.is_ours:
            return True
        self.close()
        lock = self._server.client.lock(self._name, self._held_for, thread_local=False)
        with self._server.asked():
            asked = time.monotonic()
            if not lock.acquire(blocking=wait):
                return False
        self._until = (time.monotonic() if wait else asked) + self._held_for
        self._lock, self._done = lock, Event()
        self._keeper = Thread(target=self._keep, args=(lock, self._done), daemon=True)
        self._keeper.start()
        return True

    def close(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            self._done.set()
            self._keeper.join()
            with self._server.tolerated():  # it ends by itself
                lock.release()

    def _keep(self, lock: Lock, done: Event) -> None:
        from redis.exceptions import LockNotOwnedError

        while not done.wait(self._held_for / 4):
            asked = time.monotonic()
            with self._server.tolerated():  # it is held for as long from the last time
                try:
                    lock.reacquire()
                except LockNotOwnedError:  # this process stood still for too long, or Redis was emptied
                    self._until = 0.0
                    return
                self._until = asked + self._held_for
