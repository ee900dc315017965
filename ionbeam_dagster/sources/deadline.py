"""How long a source may take for what it is asked now: the HTTP client ends its requests by it, and so may a source.

Belongs here: the moment until which an answer is of use, in the thread that asks and in those that it hands work to.
Does not belong here: how long a source is given (its configuration), or ending what hangs all the same (orchestration).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from time import monotonic

from ionbeam_dagster.errors import DeadlineExceeded

_until: ContextVar[float | None] = ContextVar("until", default=None)


@contextmanager
def within(limit: timedelta) -> Iterator[None]:
    """What is asked inside is to be answered within `limit`, or sooner where that was said around it."""
    until = monotonic() + limit.total_seconds()
    around = _until.get()
    token = _until.set(until if around is None else min(until, around))
    try:
        yield
    finally:
        _until.reset(token)


def remaining(what: str) -> float | None:
    """Seconds that are left, None where there is no deadline.

    Raises DeadlineExceeded when none are left, with `what` in its message.
    """
    until = _until.get()
    if until is None:
        return None
    left = until - monotonic()
    if left <= 0:
        raise DeadlineExceeded(f"{what}: not answered in the time that it is given; sources.<name>.deadline gives more")
    return left


def at_most(seconds: float, what: str) -> float:
    """`seconds`, or what is left of the deadline, if that is less. Raises DeadlineExceeded when nothing is left."""
    left = remaining(what)
    return seconds if left is None else min(seconds, left)
