"""Sources that do not answer in time, and what is asked of them until they do.

Belongs here: when a source counts as silent, and the one window that it is asked for then. Does not belong here: the
counts (stores/ledger/silences.py), or how long a window may take (orchestration/deadlines.py).
"""

from __future__ import annotations

from datetime import datetime

from ionbeam_dagster.pipeline.agenda.work import Stage, Work
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.silences import Silence

SILENT_AFTER = 2
"""Windows of a source in a row that took longer than they may, after which it is asked for one window at a time."""


def note_silence(platform: Platform, stage: Stage, of: str, now: datetime) -> None:
    """Remember that a window of a product took longer than it may: of a source that is asked, it does not answer."""
    if stage == "collect":
        platform.ledger.silences.add(of, 1, now)


def end_silence(platform: Platform, source: str) -> None:
    """Remember that a source answered."""
    platform.ledger.silences.end(source)


def silent(platform: Platform) -> dict[str, Silence]:
    """The sources that do not answer, and so are asked for one window at a time."""
    return {name: one for name, one in platform.ledger.silences.all().items() if one.windows >= SILENT_AFTER}


def probed(platform: Platform, stage: Stage, of: str, work: list[Work]) -> list[Work]:
    """Of work that may begin, what is worth beginning: of a source that does not answer, one window."""
    return work[:1] if stage == "collect" and of in silent(platform) else work
