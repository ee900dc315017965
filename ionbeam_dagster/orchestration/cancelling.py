"""A run that a process of ours executes ends when a person terminates it in the UI.

Belongs here: noticing that, and interrupting the run. Does not belong here: how Dagster is told (launcher.py), or what
a run that was interrupted leaves behind: its windows stay due, and what it held is free.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dagster as dg

_LOOKED_EVERY = 2.0
END_AFTER = 15.0
"""Seconds after which a process is ended whose run cannot be interrupted."""
_CANCELLED = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


@contextmanager
def interrupted_when_cancelled(instance: dg.DagsterInstance, run_id: str, may_end_process: bool) -> Iterator[None]:
    """Interrupt the main thread, which executes the run inside, when the run is to end; where that does not help and
    it may, the process ends, and whoever watches processes records the run as cancelled."""
    done = threading.Event()

    def is_cancelled() -> bool:
        with suppress(Exception):  # Dagster's storage is away: whatever library says so
            run = instance.get_run_by_id(run_id)
            return run is not None and run.status in _CANCELLED
        return False

    def look() -> None:
        while not done.wait(_LOOKED_EVERY):
            if is_cancelled():
                os.kill(os.getpid(), signal.SIGINT)
                if may_end_process and not done.wait(END_AFTER):
                    os._exit(1)
                return

    threading.Thread(target=look, name="cancelling", daemon=True).start()
    try:
        yield
    finally:
        done.set()
