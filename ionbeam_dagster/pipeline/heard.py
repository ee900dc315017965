"""What was heard of stations, brought up to date from what arrived and was built since it was last looked at.

Belongs here: which hours are summed again, and the files that hold them. Does not belong here: the sums
(domain/heard.py), what follows from them (domain/silence.py), or what is known of stations for longer (stations.py).

Nothing that takes observations in waits for this, and nothing is lost with its files. It may be killed at any moment:
an hour that is summed again is the same. Several at once, on whichever machine, take turns.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from time import monotonic, sleep

import polars as pl
import pyarrow as pa

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.config import DatasetSettings, SourceSettings
from ionbeam_dagster.domain.canonical import STATION, TimeBounds, columns_of, quality_column
from ionbeam_dagster.domain.heard import STATION_KEY, TIME, Week, hour_of, seconds_late, sums_of, verdicts_of
from ionbeam_dagster.domain.raw_values import CanonicalError, as_text
from ionbeam_dagster.domain.records import BuiltRevision, Claim, RawPartition
from ionbeam_dagster.domain.silence import Told, told
from ionbeam_dagster.domain.station_entries import Entries, canonical_rows
from ionbeam_dagster.domain.windows import DAY, EPOCH, FOREVER, HOUR, WEEK, Window, window_of
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline.ingest import time_bounds
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.raw_files import raw_of, whole
from ionbeam_dagster.stores.damage import UNREADABLE, is_of_one_file
from ionbeam_dagster.stores.quarantine import REASON

_LOG = logging.getLogger(__name__)
_PAGE = 1_000
_NAMED = 20
_TURN = 0.2
"""Seconds until it is asked again whether another, who sums for minutes, is done."""
_ROWS = 8_000_000
"""Rows that are summed at once, where the hours can be taken apart."""
_KEPT_EVERY = 60.0  # seconds
_QUOTED = re.compile(r": [^;]*")


def up_to_date(platform: Platform, source: str) -> Told | None:
    """What is to be told of a source with all that was taken in until now; None: nothing was.

    Raises StoreError where a store cannot be used; what was summed until then need not be summed again.
    """
    with in_turn(platform, source):
        return _Source(platform, platform.source(source)).brought_up_to_date()


@contextmanager
def in_turn(platform: Platform, source: str) -> Iterator[None]:
    """Keep every other process from changing what was heard of a source.

    It is a lock of its own: windows of datasets share theirs, and builds would wait while a first week is summed.
    """
    job = platform.ledger.job(f"heard {source}")
    while not job.acquire():
        sleep(_TURN)
    try:
        yield
    finally:
        job.close()


def silent_in_words(found: Told) -> str:
    """How many stations fell silent, with the names of the first of them."""
    named = found.silent[STATION_KEY].head(_NAMED)
    more = f" and {found.silent.height - _NAMED:,} more" if found.silent.height > _NAMED else ""
    return f"{found.silent.height:,} of {found.heard:,} stations fell silent: {', '.join(named)}{more}"


class _Source:
    def __init__(self, platform: Platform, source: SourceSettings) -> None:
        self.platform, self.source = platform, source
        self.dataset: DatasetSettings = platform.dataset(source.dataset)
        self.week: Week = platform.heard.week(source.name)
        self._entries = platform.stations.entries().of(source.name)
        self._kept_at = monotonic()

    def brought_up_to_date(self) -> Told | None:
        before = self.week.mark
        self._look_what_is_due()
        worked = bool(self.week.due or self.week.unjudged)
        for hours in self._portions(self.week.due, self.source.window_size):
            self.week.due -= set(hours) - self._hear(hours)
            self._keep_now_and_then()
        for hours in self._portions(self.week.unjudged, self.dataset.span):
            self.week.unjudged -= set(hours) - self._judge(hours)
            self._keep_now_and_then()
        known = self.platform.heard.told(self.source.name)
        if not worked and known is not None:
            if self.week.mark - before > _PAGE:
                self.platform.heard.keep_week(self.source.name, self.week)
            return known
        if self.week.reached is None or self.week.stations.is_empty():
            return None
        found = told(self.week, self._until())
        self.platform.heard.keep_told(self.source.name, found)
        self.platform.heard.keep_week(self.source.name, self.week)
        return found

    def _until(self) -> datetime:
        """The newest moment of which anything was heard: what stands still as a whole has no silent stations."""
        newest = self.week.stations["last"].max()
        reached = min(self.week.reached or FOREVER, self.platform.now())
        return min(newest, reached) if isinstance(newest, datetime) else reached

    def _look_what_is_due(self) -> None:
        """Note the hours of all that was claimed and built since, and let go what is too old."""
        week = self.week
        while changes := self.platform.ledger.changes(week.mark, _PAGE):
            for change in changes:
                claim = change.claim
                if claim is not None and claim.source == self.source.name and (claim.rows or claim.quarantined):
                    end = min(claim.collected.end, claim.arrived_at or FOREVER)
                    week.reached = end if week.reached is None else max(week.reached, end)
                    for window in (claim.collected, *claim.stray_windows):
                        week.due |= set(self._hours(window, WEEK))
                if change.built is not None and change.built.revision.dataset == self.dataset.name:
                    week.unjudged |= set(self._hours(change.built.revision.window, DAY))
            week.mark = changes[-1].number
            if week.reached is not None:
                week.forget(min(week.reached, self.platform.now()))

    def _hours(self, window: Window, most: timedelta) -> Iterator[datetime]:
        """The hours of a window, of those that may still be looked at."""
        reached = max(self.week.reached or EPOCH, window.end)
        hour = max(hour_of(window.start), hour_of(min(reached, self.platform.now()) - most))
        while hour < window.end and hour <= self.platform.now():
            yield hour
            hour += HOUR

    def _portions(self, hours: Iterable[datetime], span: timedelta) -> Iterator[list[datetime]]:
        """Hours that are summed together: those of one file, the newest first."""
        together: dict[datetime, list[datetime]] = {}
        for hour in sorted(hours, reverse=True):
            together.setdefault(window_of(hour, max(span, HOUR)).start, []).append(hour)
        for portion in list(together.values()):
            rows = sum(claim.rows for claim in self._claims(portion)) if len(portion) > 1 else 0
            yield from [portion] if rows <= _ROWS else ([hour] for hour in portion)

    def _claims(self, hours: list[datetime]) -> list[Claim]:
        asked = Window(min(hours), max(hours) + HOUR)
        start = window_of(asked.start, self.dataset.span).start
        claims = self.platform.ledger.claims_between(self.dataset.name, start, asked.end)
        reach = ((claim, (claim.collected, *claim.stray_windows)) for claim in claims)
        return [
            claim
            for claim, windows in reach
            if claim.source == self.source.name and any(window.overlaps(asked) for window in windows)
        ]

    def _keep_now_and_then(self) -> None:
        if monotonic() - self._kept_at > _KEPT_EVERY:
            self.platform.heard.keep_week(self.source.name, self.week)
            self._kept_at = monotonic()

    # -- rows ----------------------------------------------------------------------------------------------------

    def _hear(self, hours: list[datetime]) -> set[datetime]:
        """Put in what the files of these hours have. Of an hour with a file that cannot be read, what was known holds,
        unless the others have more; it stays due, and is given back here, unless retention purged the file."""
        moments, aside = [], []
        lacking: set[datetime] = set()
        again: set[datetime] = set()
        within = pl.col(TIME).dt.truncate("1h").is_in(hours)
        for claim in self._claims(hours):
            raw = raw_of(self.platform, self.source, claim)
            if raw is None:
                continue
            try:
                found = list(self._moments(raw, claim, within))
            except (*UNREADABLE, CanonicalError, PipelineError) as error:
                if not is_of_one_file(error):
                    raise
                self.week.missed += 1
                _LOG.warning("%s %s: what was heard is not known: %s", self.source.name, raw.window, error)
                touched = _overlapping(hours, claim.collected, *claim.stray_windows)
                lacking |= touched
                if raw.purged is None:
                    again |= touched
                continue
            moments += [heard for heard, _ in found]
            aside += [left_out for _, left_out in found]
        sums = sums_of(pl.concat([_NO_MOMENTS, *moments]))
        kept = {hour for hour in lacking if self.week.rows(hour) >= sums.filter(pl.col("hour") == hour)["rows"].sum()}
        self.week.hear(set(hours) - kept, sums, pl.concat([_NOT_ASIDE, *aside]))
        return again

    def _moments(self, raw: RawPartition, claim: Claim, within: pl.Expr) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        bounds = time_bounds(self.platform, self.source, claim.arrived_at or self.platform.now())
        with whole(self.platform, self.source, raw) as file:
            for batch in file.batches():
                heard, left_out = moments_of(batch, file.metadata, bounds, self._entries, claim)
                yield heard.filter(within), left_out

    # -- verdicts ------------------------------------------------------------------------------------------------

    def _judge(self, hours: list[datetime]) -> set[datetime]:
        """Put in the verdicts of these hours; those of a file that cannot be read stay unjudged, and are given back."""
        asked = Window(min(hours), max(hours) + HOUR)
        start = window_of(asked.start, self.dataset.span).start
        sums, failed = [], []
        again: set[datetime] = set()
        for one in self.platform.ledger.revisions(self.dataset.name, start, asked.end):
            try:
                counted = self._verdicts(one)
            except (*UNREADABLE, CanonicalError) as error:
                if not is_of_one_file(error):
                    raise
                self.week.missed += 1
                _LOG.warning("%s %s: verdicts are not known: %s", self.dataset.name, one.revision.window, error)
                again |= _overlapping(hours, one.revision.window)
                continue
            sums.append(counted[0])
            failed.append(counted[1])
        if not sums:
            return again
        key = [STATION_KEY, "hour"]
        self.week.judge(
            set(hours) - again,
            pl.concat(sums).group_by(key).agg(pl.col("judged", "doubted").sum()),
            pl.concat(failed).group_by(*key, "what").agg(pl.col("rows").sum()),
        )
        return again

    def _verdicts(self, one: BuiltRevision) -> tuple[pl.DataFrame, pl.DataFrame]:
        with self.platform.files.parquet(one.path) as file:
            schema = file.schema_arrow
            kinds = [
                (quality_column(schema, name, "flag"), quality_column(schema, name, "tests_failed"))
                for name in columns_of(schema, "variable")
            ]
            verdicts = [(flag, tests) for flag, tests in kinds if flag is not None and tests is not None]
            where = [STATION] if STATION in schema.names else ["lat", "lon"]
            read = [*where, TIME, *(name for both in verdicts for name in both)]
            rows = _with_key(pl.DataFrame(pl.from_arrow(file.read(read))))
        prefix = self.source.station_prefix
        ours = rows.filter(pl.col(STATION_KEY).str.starts_with(prefix))
        return verdicts_of(ours.with_columns(pl.col(STATION_KEY).str.strip_prefix(prefix)), verdicts)


_NO_MOMENTS = pl.DataFrame(
    schema={STATION_KEY: pl.String, TIME: pl.Datetime("us", "UTC"), "lat": pl.Float64, "lon": pl.Float64,
            "late": pl.UInt32}
)  # fmt: skip
_NOT_ASIDE = pl.DataFrame(
    schema={STATION_KEY: pl.String, "hour": pl.Datetime("us", "UTC"), "what": pl.String, "rows": pl.UInt32}
)
NAMELESS = "(no station)"
"""Whose rows they are that were set aside and name none."""


def moments_of(
    batch: pa.RecordBatch, metadata: IngestionMetadata, bounds: TimeBounds, entries: Entries, claim: Claim
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """When stations were heard, and the rows that were set aside, counted by station and reason.

    A time behind its arrival is that of a clock that is ahead: it was heard when it arrived.
    """
    done = canonical_rows(batch, metadata, bounds, entries)
    heard = _with_key(done.rows).select(
        STATION_KEY, pl.min_horizontal(TIME, pl.lit(claim.arrived_at, pl.Datetime("us", "UTC"))).alias(TIME),
        "lat", "lon", seconds_late(claim.arrived_at).alias("late"),
    )  # fmt: skip
    rejected = done.rejected
    has_names = STATION in rejected.columns
    named = pl.lit(as_text(rejected[STATION])).fill_null(NAMELESS) if has_names else pl.lit(NAMELESS)
    counted = rejected.select(
        named.alias(STATION_KEY), pl.col(REASON).str.replace_all(_QUOTED.pattern, "").alias("what")
    )
    aside = counted.group_by(STATION_KEY, "what").agg(pl.len().cast(pl.UInt32).alias("rows"))
    hour = pl.lit(hour_of(claim.collected.start)).cast(pl.Datetime("us", "UTC")).alias("hour")
    return heard, aside.select(STATION_KEY, hour, "what", "rows")


def _with_key(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with ``station``: their id, or their place, where they have none."""
    if STATION in rows.columns:
        return rows.rename({STATION: STATION_KEY})
    place = [(pl.col(axis).round(5) + 0.0).cast(pl.String) for axis in ("lat", "lon")]
    return rows.with_columns(pl.concat_str(place, separator="_").alias(STATION_KEY))


def _overlapping(hours: Iterable[datetime], *windows: Window) -> set[datetime]:
    return {hour for hour in hours if any(one.overlaps(Window(hour, hour + HOUR)) for one in windows)}
