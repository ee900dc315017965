"""Ends work that hangs although its own time-outs should have ended it: by an alarm, then with its process.

A source that asks over HTTP ends by itself when its time is up (sources/deadline.py). Belongs here: what is done where
that does not help, since code in the same process cannot be killed. Does not belong here: what becomes of the windows.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from types import FrameType

from ionbeam_dagster.errors import DeadlineExceeded
from ionbeam_dagster.pipeline.agenda import Stage
from ionbeam_dagster.pipeline.platform import Platform

UNASKED = timedelta(minutes=30)
"""How long a window of a step that asks nobody outside may take."""
ALARM_AFTER = 5.0
"""Seconds beyond its time after which a step is interrupted, wherever it waits."""
END_AFTER = 30.0
"""Seconds beyond its time after which its process is ended."""
_TELLING = 10.0

Report = Callable[[str], object]


def deadline_of(platform: Platform, stage: Stage, of: str) -> timedelta:
    """How long one window may take."""
    return platform.source(of).deadline if stage == "collect" else UNASKED


@contextmanager
def ended_in_time(limit: timedelta, end_with: Report | None) -> Iterator[None]:
    """Raise DeadlineExceeded inside when it takes longer than `limit`; in the main thread alone, for only that can be
    interrupted.

    With `end_with`, the process ends when that did not help either, after that was told why.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seconds = limit.total_seconds()
    begun = monotonic()

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise DeadlineExceeded(f"took longer than the {limit} that it may, and was interrupted")

    before = signal.signal(signal.SIGALRM, interrupt)
    timer_before, _ = signal.setitimer(signal.ITIMER_REAL, seconds + ALARM_AFTER)
    last = threading.Timer(seconds + END_AFTER, _end_process, (limit, end_with)) if end_with else None
    if last is not None:
        last.daemon = True
        last.start()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if timer_before:
            signal.setitimer(signal.ITIMER_REAL, max(timer_before - (monotonic() - begun), 0.001))
        if last is not None:
            last.cancel()


def _end_process(limit: timedelta, report: Report) -> None:
    reason = f"took longer than the {limit} that it may, and could not be interrupted: its process was ended"
    telling = threading.Thread(target=report, args=(reason,), daemon=True)  # it may hang as well
    telling.start()
    telling.join(_TELLING)
    os._exit(1)
