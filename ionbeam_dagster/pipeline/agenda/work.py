"""Work: one line of the agenda, and what the ledger remembers of open work.

Belongs here: `Work`, and the notes of work that was found or begun. Does not belong here: what is work (a module a
stage), or what may begin now (now.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ionbeam_dagster.domain.windows import EPOCH, Window
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.attempts import Attempt

Stage = Literal["collect", "ingest", "build", "export", "export_cycle"]


@dataclass(frozen=True, slots=True)
class Work:
    """One line of the agenda: what is to be done of a window, and why.

    `of` is a source, a dataset, or ``<dataset>/<format>``. `token` says from what it would be made: it stays the same
    while the work does.
    """

    stage: str
    of: str
    window: Window
    token: str
    reason: str


Step = list[tuple[Work, datetime | None]]
"""Work, each with the moment from which it may begin (None: at once)."""
Steps = Iterator[Step]


def note(platform: Platform, found: Collection[Work], now: datetime, begin_from: datetime | None = None) -> None:
    """Remember work that nothing in the ledger tells of by itself; it may begin from `begin_from` on (None: at once,
    also by a clock that is put back)."""
    platform.ledger.attempts.note([_opened(work, now, begin_from or EPOCH) for work in found])


def note_unless_open(platform: Platform, found: Step, now: datetime) -> list[Work]:
    """The same of windows that have no open work yet; the others are left as they are. Returns what was noted."""
    works = {(work.stage, work.of, work.window): work for work, _ in found}
    noted = platform.ledger.attempts.note_unless_open(
        [_opened(work, now, begin_from or EPOCH) for work, begin_from in found]
    )
    return [works[one.stage, one.product, one.window] for one in noted]


def begin(platform: Platform, begun: Collection[Work], now: datetime) -> None:
    """Remember that somebody begins work: it is not given out again before it can have failed."""
    platform.ledger.attempts.begin([_opened(work, now, now) for work in begun], now)


def _opened(work: Work, now: datetime, begin_from: datetime) -> Attempt:
    return Attempt(work.stage, work.of, work.window, work.token, work.reason, 0, now, begin_from)
