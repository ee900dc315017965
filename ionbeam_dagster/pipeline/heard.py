"""What was heard of the stations of a dataset, read from its windows.

Belongs here: which files are read, and of which columns. Does not belong here: the sums (domain/heard.py), or what is
known of stations for longer (stations.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl
import pyarrow as pa

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.canonical import CanonicalError, columns_of, point_key, quality_column
from ionbeam_dagster.domain.heard import TIME, Heard
from ionbeam_dagster.domain.lateness import usual_lateness
from ionbeam_dagster.domain.windows import EPOCH, FOREVER, WEEK
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.damage import UNREADABLE


@dataclass(frozen=True, slots=True)
class StationsHeard:
    """What was heard in [start, until), which ends with the newest window: `stations` (domain/heard.py), and
    `unread` windows whose file is gone or damaged."""

    start: datetime
    until: datetime
    stations: pl.DataFrame
    unread: int


@dataclass(frozen=True, slots=True)
class Lately:
    """Of a source within a time: its rows, those set aside, and how late half, and 19 of 20, of it came in a week."""

    source: str
    rows: int
    set_aside: int
    late: timedelta
    latest: timedelta


def heard(platform: Platform, dataset: DatasetSettings, last: timedelta) -> StationsHeard | None:
    """What was heard in the time `last` before the end of the newest window; None: nothing was built."""
    built = platform.ledger.revisions(dataset.name, platform.now() - WEEK - last, FOREVER)
    built = built or platform.ledger.revisions(dataset.name, EPOCH, FOREVER)
    if not built:
        return None
    until = max(one.revision.window.end for one in built)
    start = until - last
    within = sorted((one for one in built if one.revision.window.end > start), key=lambda one: one.revision.window)
    sums: Heard | None = None
    key: list[str] = []
    unread = 0
    for one in within:
        try:
            with platform.files.parquet(one.path) as file:
                schema = file.schema_arrow
                known = key or point_key(schema)
                columns = [*known, TIME, *(name for name in _flags(schema) if name not in known)]
                if not set(known) <= set(schema.names):
                    unread += 1
                    continue
                rows = pl.DataFrame(pl.from_arrow(file.read(columns)))
            if sums is None:
                key, sums = known, Heard(known, _flags(schema))
            sums.add(rows.filter(pl.col(TIME) >= start))
        except (*UNREADABLE, CanonicalError):
            unread += 1
    stations = sums.told(start, until) if sums is not None else pl.DataFrame()
    return StationsHeard(start, until, stations, unread)


def lately(platform: Platform, dataset: DatasetSettings, start: datetime, until: datetime) -> list[Lately]:
    """What came of each source of a dataset for windows in [start, until)."""
    claims = platform.ledger.claims_between(dataset.name, start, until)
    found = []
    for source in dataset.sources:
        own = [one for one in claims if one.source == source]
        measured = platform.ledger.lateness(source, until - WEEK, max(until, platform.now()))
        found.append(
            Lately(
                source,
                sum(one.rows for one in own),
                sum(one.quarantined for one in own),
                usual_lateness(measured, 0.5),
                usual_lateness(measured, 0.95),
            )
        )
    return found


def _flags(schema: pa.Schema) -> list[str]:
    found = (quality_column(schema, name, "flag") for name in columns_of(schema, "variable"))
    return [name for name in found if name is not None]
