"""The heartbeat of a run: whoever executes it says every few seconds in the ledger that it still does.

Belongs here: the beating. Does not belong here: what is thought of somebody who is silent (dead_runs.py).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Event, Thread

from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.pipeline.platform import Platform

EVERY = 5.0
"""Seconds between two heartbeats."""


@cache
def this_host() -> str:
    """Where a process number means this process: the host since it was started and, in a container, its numbers.

    A name alone does not tell machines apart: clones have one name.
    """
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {started} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


@contextmanager
def beating(platform: Platform, holder: str, doing: str) -> Iterator[None]:
    """Beat for `holder` until the end; a ledger that is away meanwhile stops nothing, one that is away at the beginning
    does: a lease counts from the first beat on. Raises StoreError."""
    done = Event()

    def beat() -> None:
        platform.ledger.workers.beat(holder, this_host(), os.getpid(), doing)

    def keep() -> None:
        while not done.wait(EVERY):
            with suppress(StoreError, OSError):
                beat()
        with suppress(StoreError, OSError):
            platform.ledger.workers.leave(holder)

    beat()
    keeper = Thread(target=keep, name="heartbeat", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()


def is_alive(process: int) -> bool:
    """Whether a process of this host goes on."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
