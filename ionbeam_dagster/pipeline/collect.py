"""Collect: a window of a source into its raw partition.

Belongs here: asking a source. Does not belong here: whether it has to be asked (agenda.py), what its rows mean
(ingest.py), or how raw files are kept (stores/raw.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline.platform import Platform, written_to


@dataclass(frozen=True, slots=True)
class Collected:
    """A raw partition; `changed` is False when it holds what was there before."""

    source: str
    window: Window
    ingestion: str
    path: str
    rows: int
    bytes: int
    changed: bool
    problems: list[str] = field(default_factory=list)


def collect(platform: Platform, source: str, window: Window, now: datetime, use_cache: bool = False) -> Collected:
    """Fetch a window from a source into its raw partition.

    `use_cache` lets the source use what it downloaded before, where it keeps that. Raises SourceError when the source
    failed, PipelineError for a window that has not begun. A raw partition that was lost and comes back as it was makes
    its dataset windows due again: what they were made of is proved anew. One that retention purged was not lost.
    """
    if window.start >= now:
        raise PipelineError(f"{source} {window}: has not begun yet")
    platform.check_span(platform.source(source).dataset)
    feed, raws, ledger = platform.feed(source, use_cache), platform.raws(source), platform.ledger
    before = ledger.raw(source, window)
    lost = before is not None and before.purged is None and not platform.files.exists(before.path)
    signature = feed.signature(window)
    collected = Window(window.start, min(window.end, now))
    path = raws.path(source, window)
    with written_to(path):
        ingestion, rows = raws.write(source, window, collected, platform.metadata(source), feed.fetch(window))
    same = before is not None and before.ingestion == ingestion
    if lost and same:
        ledger.withdraw_claim(ingestion)
    ledger.record_raw(RawPartition(ingestion, source, window, path, rows, signature))
    changed = lost or not same
    size = platform.files.size(path)
    return Collected(source, window, ingestion, path, rows, size, changed, feed.problems())
