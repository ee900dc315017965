"""Whether most values of a variable are doubted of late: a unit that changed at its source doubts all of them at once.

Belongs here: what follows from the flags of the newest windows. Does not belong here: the flags (domain/quality), or
the check of each window that Dagster shows (orchestration/checks.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from ionbeam_client.text import visible
from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.records import BuiltRevision
from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.pipeline.platform import Platform

SUBJECT = "quality"
_MOST = 0.5
_FEWEST = 50
"""Values that were judged: of fewer, a share says nothing."""
_WINDOWS, _LATE = 3, timedelta(hours=6)
"""How many windows are looked at together, where one has too few values, and how old they may be."""


def quality(platform: Platform) -> Iterator[Finding]:
    """Variables of which quality control doubts more than half, in the newest windows that were built."""
    if not can_ask_ledger(platform):
        return
    for dataset in platform.config.datasets.values():
        yield from _of_dataset(platform, dataset)
    yield Finding(SUBJECT, "well", f"values of {len(platform.config.datasets)} datasets were looked at")


def _of_dataset(platform: Platform, dataset: DatasetSettings) -> Iterator[Finding]:
    now = platform.now()
    built = platform.ledger.revisions(dataset.name, now - max(_LATE, 2 * dataset.span), now)[-_WINDOWS:]
    for variable in dict.fromkeys(name for one in built for name in one.facts.flags):
        since, doubted, judged = _newest(variable, built)
        if judged >= _FEWEST and doubted > _MOST * judged:
            what = f"{doubted / judged:.0%} of {visible(variable.partition('__')[0])} since {since:%Y-%m-%d %H:%M}"
            remedy = (
                f"see whether {' or '.join(dataset.sources)} changed a unit or a column; `ionbeam qc explain STATION "
                "TIME` says of a value why it is doubted"
            )
            yield Finding(SUBJECT, "warning", f"{dataset.name}: quality control doubts {what}", remedy)


def _newest(variable: str, built: Sequence[BuiltRevision]) -> tuple[datetime, int, int]:
    """Since when, of as few of the newest windows as have enough values, how many are doubted, and were judged."""
    since, doubted, judged = built[-1].revision.window.start, 0, 0
    for one in reversed(built):
        if judged < _FEWEST:
            flags = one.facts.flags.get(variable, {})
            found = flags.get("suspect", 0) + flags.get("fail", 0)
            doubted, judged = doubted + found, judged + found + flags.get("pass", 0)
            since = one.revision.window.start
    return since, doubted, judged
