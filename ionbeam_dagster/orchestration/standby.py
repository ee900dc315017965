"""Dagster's daemon under a lease: of any number that are started, one works and the others stand by.

Two that work at once launch each queued run twice. Belongs here: who may work, and that whoever may no longer ends
before another one begins. Does not belong here: what the daemon does, or how a lease is kept (stores/ledger).
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.holding import Job

LEASE = "dagster-daemon"
HELD_FOR = 15.0
"""Seconds without a sign of life after which another one takes over, where the ledger is on Redis."""
_LOOKED_EVERY = 1.0


Report = Callable[[str], object]


@contextmanager
def alone(platform: Platform, report: Report) -> Iterator[None]:
    """Wait until no other process on any machine is inside, and stay the only one until the end; `report` is told who
    works.

    The system ends this process when the lease does: also one that was stopped meanwhile, before it does anything else.
    """
    lease = platform.ledger.job(LEASE, HELD_FOR)
    _wait_for(lease, report)
    over = threading.Event()
    watching = threading.Thread(target=_watch, args=(lease, over, report), name="lease", daemon=True)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _end_in(lease.left)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
        signal.setitimer(signal.ITIMER_REAL, 0)
        lease.close()


def _wait_for(lease: Job, report: Report) -> None:
    told = ""
    while True:
        try:
            if lease.acquire():
                report("the daemon works here now")
                return
            why = "another daemon works; this one stands by"
        except StoreError as error:
            why = f"the ledger cannot be asked, and nothing is done until it can: {error}"
        if why != told:
            report(why)
        told = why
        time.sleep(_LOOKED_EVERY)


def _watch(lease: Job, over: threading.Event, report: Report) -> None:
    while not over.wait(_LOOKED_EVERY):
        if not lease.is_ours:
            report("the lease is lost; this process ends, and another one may work")
            os._exit(1)
        _end_in(lease.left)


def _end_in(seconds: float) -> None:
    """Have the system end this process, unless it is told a later time before."""
    if seconds != math.inf:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
