"""Ingest: raw partitions into canonical points in the time-series store, with their claims.

Belongs here: what becomes of the rows of a raw partition, and of what an earlier one gave for the same range. Does not
belong here: how a row becomes canonical (domain/canonical.py).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile

import polars as pl
import pyarrow as pa

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.config import DatasetSettings, SourceSettings
from ionbeam_dagster.domain.canonical import STATION, TimeBounds, canonical_schema, point_key
from ionbeam_dagster.domain.forgotten import Forgotten
from ionbeam_dagster.domain.raw_values import CanonicalError
from ionbeam_dagster.domain.records import Claim, RawPartition
from ionbeam_dagster.domain.station_entries import Entries, canonical_rows
from ionbeam_dagster.domain.windows import WEEK, Window, window_of
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline import raw_files, removals
from ionbeam_dagster.pipeline.collect import claims_within
from ionbeam_dagster.pipeline.platform import Platform, remedy_of
from ionbeam_dagster.pipeline.raw_files import raw_of
from ionbeam_dagster.stores.quarantine import QuarantineWriter
from ionbeam_dagster.stores.raw import RawFile
from ionbeam_dagster.stores.timeseries import Refused

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a raw partition's rows; `reasons` counts why rows are in the file `quarantine`."""

    claim: Claim
    metadata: IngestionMetadata
    quarantine: str | None
    reasons: dict[str, int]

    @property
    def rows(self) -> int:
        return self.claim.rows

    @property
    def quarantined(self) -> int:
        return self.claim.quarantined


def ingest(platform: Platform, source: SourceSettings, window: Window) -> Ingested:
    """Convert a raw partition to canonical points, store them and record the claim.

    Of a source that clients send, all raw files that touch the window and have no claim yet are taken, in order of
    arrival. Rows that cannot be used go to a quarantine file with their reasons. Raises PipelineError when a raw
    partition is missing, damaged or lacks a declared column.
    """
    if source.sent:
        return _ingest_sent(platform, source, window)
    raw = platform.ledger.raw(source.name, window)
    if raw is None:
        raise PipelineError(f"{source.name} {window}: nothing was collected; materialise {source.name}/raw first")
    return ingest_raw(platform, source, raw)


def _ingest_sent(platform: Platform, source: SourceSettings, window: Window) -> Ingested:
    """Ingest what was sent for a window and is not in the store; what is told is the sum of all that touches it."""
    sent = platform.ledger.sent(source.name, window)
    if not sent:
        asks = source.kind == "external"
        then = (
            f"materialise {source.name}/request to ask for it" if asks else "it is there once a client has brought it"
        )
        raise PipelineError(f"{source.name} {window}: no client sent anything; {then}")
    known = platform.ledger.claims_of([raw.ingestion for raw in sent])
    whole = {claim.id for claim in known if claim.rows}
    whole -= {*platform.series.lacking(source.dataset, sorted(whole))}
    whole |= {claim.id for claim in known if not claim.rows}
    done, failed = [], []
    for raw in sent:
        if raw.ingestion in whole:
            continue
        try:
            done.append(ingest_raw(platform, source, raw))
        except PipelineError as error:  # those that were sent after it do not wait for it
            failed.append(str(error))
    if failed:
        raise PipelineError("; ".join(failed))
    claims = platform.ledger.claims_of([raw.ingestion for raw in sent])
    reached = Window(min(claim.collected.start for claim in claims), max(claim.collected.end for claim in claims))
    together = replace(
        claims[-1],
        collected=reached,
        rows=sum(claim.rows for claim in claims),
        quarantined=sum(claim.quarantined for claim in claims),
        stray_windows=tuple(sorted({stray for claim in claims for stray in claim.stray_windows})),
    )
    reasons = sum((Counter(one.reasons) for one in done), Counter[str]())
    quarantined = [one.quarantine for one in done if one.quarantine]
    metadata = platform.ledger.metadata_of(claims)[-1]
    return Ingested(together, metadata, quarantined[-1] if quarantined else None, dict(reasons))


def ingest_raw(
    platform: Platform, source: SourceSettings, raw: RawPartition, arrived_at: datetime | None = None
) -> Ingested:
    dataset = platform.dataset(source.dataset)
    file = raw_files.opened(platform, source, raw)
    kept_at = platform.quarantine.path(source.name, raw.window, raw.ingestion if source.sent else "")
    platform.check_span(dataset)
    platform.check_schema(source, file.metadata)
    schema = canonical_schema([file.metadata])
    known = platform.ledger.claims_of([raw.ingestion])
    arrived_at = known[0].arrived_at if known else arrived_at or platform.now()
    arrival = platform.ledger.arrival_of(raw.ingestion)
    collected = file.collected
    if source.sent:
        collected = platform.reach(source, collected) or collected
    bounds = time_bounds(platform, source, arrived_at or platform.now())
    told = platform.stations.entries().of(source.name)
    refused_at = platform.quarantine.refused_path(dataset.name, raw.ingestion)
    try:
        with (
            raw_files.whole(platform, source, raw) as file,
            platform.quarantine.writing(kept_at) as quarantine,
            platform.quarantine.writing(refused_at) as refused,
        ):
            forgotten = platform.privacy.forgotten(source.name)
            seen = _Rows(file, dataset, collected, bounds, told, source.station_prefix, forgotten)
            rows = platform.series.write(
                dataset.name, raw.ingestion, arrival, seen.canonical_frames(quarantine), point_key(schema),
                seen.refusing(refused),
            )  # fmt: skip
    except (CanonicalError, pa.ArrowInvalid) as error:
        raise PipelineError(f"{raw.path}: {error}") from error
    except OSError as error:
        raise PipelineError(
            f"{raw.path}: cannot be ingested ({error}); what there was before is untouched. "
            f"{remedy_of(error)}, and materialise the window again"
        ) from error
    replaced = _replaced(platform, source, raw, file, arrival)
    for ingestion in replaced:
        platform.series.withdraw(dataset.name, ingestion)
    for kept, why in ((quarantine, "could not be used"), (refused, "were refused by the time-series server")):
        if kept.rows:
            _LOG.warning("%s %s: %d rows %s; the first: %s", source.name, raw.window, kept.rows, why, kept.first)
    aside = quarantine.rows + refused.rows
    strays = tuple(sorted(seen.strays))
    claim = Claim(raw.ingestion, source.name, dataset.name, collected, arrival, rows, aside, strays, arrived_at)
    touched = dict.fromkeys(platform.touched(claim), 0)
    record = partial(platform.ledger.record_claim, claim, file.metadata, touched | seen.rows, list(replaced))
    # of what was sent also the files go, which a ledger that is made again would take up
    gone = [RawPartition(id, source.name, raw.window, path, 0) for id, path in replaced.items()] if source.sent else []
    removals.remove(platform, gone, record)
    reasons = dict(quarantine.reasons + refused.reasons)
    place = kept_at if quarantine.rows else refused_at if refused.rows else None
    return Ingested(claim, file.metadata, place, reasons)


def time_bounds(platform: Platform, source: SourceSettings, arrived_at: datetime) -> TimeBounds:
    """The times that rows of `source` may have that arrived then: those of its windows, and little in the future."""
    start, end = platform.range_of(source)
    return TimeBounds(start, end, latest=arrived_at + source.config.future_tolerance)


def _replaced(
    platform: Platform, source: SourceSettings, raw: RawPartition, file: RawFile, arrival: int
) -> dict[str, str]:
    """The ingestions that one takes the place of, with their files: what its source gave before for parts of its own.

    Of what the platform itself collects, a raw partition holds what its window's earlier ones held (collect.py), but
    for those that stay beside it. What clients send adds to what they sent before, unless they say that it replaces
    that; then also what still waits. What another sender sent stays.
    """
    if not source.sent:
        whole = platform.sources[source.name].answers_whole(raw.window)
        return {
            claim.id: _file_of(platform, source, claim)
            for claim in claims_within(platform, source, file.collected)
            if claim.id not in (raw.ingestion, *raw.beside)
            and (whole or window_of(claim.collected.start, source.window_size) == raw.window)
        }
    if not file.replaces:
        return {}
    reach = platform.reach(source, file.collected)
    if reach is None:
        return {}
    dataset = platform.dataset(source.dataset)
    first = window_of(reach.start, dataset.span).start
    covered = [
        claim
        for claim in platform.ledger.claims_between(dataset.name, first, reach.end)
        if claim.source == source.name and file.collected.covers(claim.collected) and claim.arrival < arrival
    ]
    others = {claim.id for claim in covered if _is_anothers(_sender_of(platform, source, claim), file.sender)}
    if others:
        _LOG.info(
            "%s %s: %d ingestions of other senders, or of nobody knows whom, stay", source.name, raw.window, len(others)
        )
    claimed = {claim.id: _file_of(platform, source, claim) for claim in covered if claim.id not in others}
    return claimed | _waiting_before(platform, raw, file.sender)


def _sender_of(platform: Platform, source: SourceSettings, claim: Claim) -> str | None:
    """Who sent what a claim was made of, empty where nobody noted it; None where that is not known any longer."""
    raw = raw_of(platform, source, claim)
    if raw is not None:
        return raw.sender
    try:  # windows of the source had another length when it was sent
        return platform.raws(source).open(_file_of(platform, source, claim)).sender
    except (OSError, pa.ArrowInvalid):
        return None


def _is_anothers(sender: str | None, ours: str) -> bool:
    return sender not in ("", ours)


def _file_of(platform: Platform, source: SourceSettings, claim: Claim) -> str:
    raw = raw_of(platform, source, claim)
    return platform.raws(source).sent_path(source.name, claim.id, claim.collected) if raw is None else raw.path


def _waiting_before(platform: Platform, raw: RawPartition, sender: str) -> dict[str, str]:
    """What `sender` sent before `raw` for ranges that lie in its range, and is not ingested yet."""
    found: dict[str, str] = {}
    for window in platform.ledger.waiting(raw.source):
        if not window.overlaps(raw.window):
            continue
        sent = platform.ledger.sent(raw.source, window)
        before = list(takewhile(lambda one: one.ingestion != raw.ingestion, sent))
        theirs = [one for one in before if raw.window.covers(one.window) and not _is_anothers(one.sender, sender)]
        covered = {one.ingestion: one.path for one in theirs}
        claimed = {claim.id for claim in platform.ledger.claims_of(list(covered))}
        found |= {ingestion: path for ingestion, path in covered.items() if ingestion not in claimed}
    return found


def is_purged(platform: Platform, dataset: DatasetSettings, claims: Sequence[Claim]) -> bool:
    """Whether rows of these claims are gone: from the time-series store, and with their raw partition, too."""
    known = [claim for claim in claims if claim.rows and claim.source in platform.config.sources]
    gone = [claim.id for claim in known if _has_no_raw(platform, claim)]
    return bool(gone and platform.series.lacking(dataset.name, gone))


def _has_no_raw(platform: Platform, claim: Claim) -> bool:
    """Whether retention removed the raw partition of a claim, or another one of its window took its place."""
    source = platform.source(claim.source)
    raw = raw_of(platform, source, claim)
    return raw.purged is not None if raw else not source.sent


def restore(platform: Platform, dataset: DatasetSettings, claims: Sequence[Claim]) -> None:
    """Ingest again what the time-series store lost, or retention purged, of these claims.

    Raises PipelineError where the raw partition is gone, too.
    """
    with_rows = {claim.id: claim for claim in claims if claim.rows}
    lacking = platform.series.lacking(dataset.name, list(with_rows))
    if lacking:
        lost = "1 ingestion is" if len(lacking) == 1 else f"{len(lacking):,} ingestions are"
        _LOG.warning(
            "%s: %s no longer in the time-series store, the first of %s; ingested again from their raw files",
            dataset.name, lost, with_rows[lacking[0]].collected,
        )  # fmt: skip
    for ingestion in lacking:
        claim = with_rows[ingestion]
        source = platform.source(claim.source)
        raw = raw_of(platform, source, claim)
        if raw is None:
            raise PipelineError(
                f"{dataset.name}: the {claim.rows} rows of {source.name} {claim.collected} are not in the time-series "
                f"store, and their raw partition is not known; materialise {source.name}/raw and /observations first"
            )
        ingest_raw(platform, source, raw)


class _Rows:
    """The rows of a raw file on their way into the store.

    `rows` counts them by dataset window; `strays` are the windows into which rows outside the range `collected` fell.
    """

    def __init__(
        self,
        file: RawFile,
        dataset: DatasetSettings,
        collected: Window,
        bounds: TimeBounds,
        told: Entries,
        station_prefix: str,
        forgotten: Forgotten,
    ) -> None:
        self._file = file
        self._entries = told
        self._prefix = station_prefix
        self._forgotten = forgotten
        self._collected = collected
        self._bounds = bounds
        self._span = dataset.span
        self.strays: set[Window] = set()
        self.rows: Counter[Window] = Counter()

    def canonical_frames(self, quarantine: QuarantineWriter) -> Iterator[pl.DataFrame]:
        offset = 0
        for batch in self._file.batches():
            canonical = canonical_rows(batch, self._file.metadata, self._bounds, self._entries)
            rows, rejected = self._forgotten.left(canonical.rows), self._forgotten.left(canonical.rejected)
            if rejected.height:
                quarantine.add(rejected.with_columns(pl.col("row") + offset))
            offset += batch.num_rows
            self._count(rows)
            if rows.height:
                yield self._in_the_dataset(rows)

    def _in_the_dataset(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows with the ids that the source's stations have among those of other sources."""
        if not self._prefix or STATION not in rows.columns:
            return rows
        return rows.with_columns(pl.concat_str(pl.lit(self._prefix), STATION).alias(STATION))

    def refusing(self, refused: QuarantineWriter) -> Refused:
        """What takes rows that the store refuses: they are in no window."""

        def take(rows: pl.DataFrame) -> None:
            refused.add(rows)
            for window, _, count in self._counted(rows):
                self.rows[window] -= count

        return take

    def _count(self, rows: pl.DataFrame) -> None:
        for window, is_outside, count in self._counted(rows):
            self.rows[window] += count
            if is_outside:
                self.strays.add(window)

    def _counted(self, rows: pl.DataFrame) -> Iterator[tuple[Window, bool, int]]:
        """How many of `rows` are in which dataset window, and whether out of the range that was collected."""
        collected, time = self._collected, pl.col("datetime")
        outside = (time < collected.start) | (time >= collected.end)
        every = "1w" if self._span == WEEK else f"{self._span // timedelta(minutes=1)}m"  # weeks begin on Monday
        counted = rows.group_by(time.dt.truncate(every), outside.alias("outside")).len()
        for start, is_outside, count in counted.iter_rows():
            yield Window(start, start + self._span), is_outside, count
