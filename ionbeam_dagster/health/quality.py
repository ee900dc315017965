"""Whether most values of a variable are doubted of late: a unit that changed at its source doubts all of them at once.

Belongs here: what follows from the flags of the newest windows. Does not belong here: the flags (domain/quality), or
the check of each window that Dagster shows (orchestration/checks.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from ionbeam_client.text import visible
from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.pipeline.platform import Platform

SUBJECT = "quality"
_MOST = 0.5
_FEWEST = 50
"""Values that were judged: of fewer, a share says nothing."""
_WINDOWS, _LATE = 3, timedelta(hours=6)
"""How many windows are looked at together, and how old they may be."""


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
    counts: dict[str, Counter[str]] = {}
    for one in built:
        for variable, flags in one.facts.flags.items():
            counts.setdefault(variable, Counter()).update(flags)
    for variable, flags in counts.items():
        doubted, judged = flags["suspect"] + flags["fail"], flags["suspect"] + flags["fail"] + flags["pass"]
        if judged >= _FEWEST and doubted > _MOST * judged:
            since = f"since {built[0].revision.window.start:%Y-%m-%d %H:%M}"
            name = visible(variable.partition("__")[0])
            words = f"{dataset.name}: quality control doubts {doubted / judged:.0%} of {name} {since}"
            sources = " or ".join(dataset.sources)
            remedy = (
                f"see whether {sources} changed a unit or a column; `ionbeam qc explain STATION TIME` says of a value "
                "why it is doubted"
            )
            yield Finding(SUBJECT, "warning", words, remedy)
