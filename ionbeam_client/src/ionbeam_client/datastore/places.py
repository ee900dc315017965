"""So many requests of an endpoint at once, over all threads and tasks of this process.

Belongs here: waiting for a place, and giving it back. Does not belong here: what is done in it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from ionbeam_client.datastore import constants
from ionbeam_client.datastore.errors import APIConcurrencyLimitError


class Places:
    """The places of one endpoint. Both ways to take one raise APIConcurrencyLimitError if none becomes free."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._takers: list[object] = []
        self._wake: list[Callable[[], Any]] = []

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a place and have it."""
        taker = threading.current_thread()
        free = threading.Event()
        deadline = time.monotonic() + constants.SECONDS_FOR_A_PLACE
        while not self._take(taker, free.set):
            if not free.wait(deadline - time.monotonic()):
                raise self._full(f"none became free within {constants.SECONDS_FOR_A_PLACE:g} s")
            free.clear()
        try:
            yield
        finally:
            self._give_back(taker)

    @asynccontextmanager
    async def ataken(self) -> AsyncIterator[None]:
        """`taken`, for asyncio."""
        taker = asyncio.current_task()
        loop = asyncio.get_running_loop()
        free = asyncio.Event()
        try:
            async with asyncio.timeout(constants.SECONDS_FOR_A_PLACE):
                while not self._take(taker, lambda: loop.call_soon_threadsafe(free.set)):
                    await free.wait()
                    free.clear()
        except TimeoutError:
            raise self._full(f"none became free within {constants.SECONDS_FOR_A_PLACE:g} s") from None
        try:
            yield
        finally:
            self._give_back(taker)

    def _take(self, taker: object, wake: Callable[[], Any]) -> bool:
        with self._lock:
            if len(self._takers) < constants.REQUESTS_AT_ONCE:
                self._takers.append(taker)
                return True
            if all(other is taker for other in self._takers):
                raise self._full("this thread or task has them all: read one of its streams to the end, or close it")
            self._wake.append(wake)
            return False

    def _give_back(self, taker: object) -> None:
        with self._lock:
            self._takers.remove(taker)
            waiting, self._wake = self._wake, []
        for wake in waiting:
            with suppress(RuntimeError):  # its event loop has been closed meanwhile
                wake()

    def _full(self, why: str) -> APIConcurrencyLimitError:
        return APIConcurrencyLimitError(f"{constants.REQUESTS_AT_ONCE} requests of {self._endpoint} are open; {why}")


_ALL: dict[tuple[str, str], Places] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ALL.clear)  # the requests that are open are the parent's


def places_of(host: str, endpoint: str) -> Places:
    return _ALL.setdefault((host, endpoint), Places(endpoint))
