"""Which raw partitions are to be ingested.

Belongs here: what was collected or sent, and has no claim. Does not belong here: what becomes of the rows
(pipeline/ingest.py).
"""

from __future__ import annotations

from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.agenda.work import Work
from ionbeam_dagster.pipeline.platform import Platform


def to_ingest(platform: Platform, source: str, window: Window) -> Work | None:
    """The ingestion of a window's raw partition (of several that were sent, the last), if it is still to be done."""
    if platform.source(source).sent:
        raw = next(reversed(_waiting_raws(platform, source, window)), None)
    else:
        known = platform.ledger.raw(source, window)
        raw = known if known is not None and not platform.ledger.claims_of([known.ingestion]) else None
    if raw is None:
        return None
    return Work("ingest", source, window, raw.ingestion, "its raw partition is not ingested as it is now")


def _waiting_raws(platform: Platform, source: str, window: Window) -> list[RawPartition]:
    """What clients sent for a window of `source` and is not ingested yet, in order of arrival."""
    sent = platform.ledger.sent(source, window)
    claimed = {claim.id for claim in platform.ledger.claims_of([raw.ingestion for raw in sent])}
    return [raw for raw in sent if raw.ingestion not in claimed]
