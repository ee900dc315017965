"""The registry of stations, brought up to date from the raw partitions that arrived since it was last looked at.

Belongs here: which raw partitions are looked at, and how far. Does not belong here: what their rows say of stations
(domain/stations.py), or where it is kept (stores/stations.py).

Nothing that takes observations in waits for this, and nothing is lost with its files: they are made again from the raw
partitions that there are. It may be killed at any moment: what a raw partition adds is the same, however often it is
looked at. Several at once, on whichever machine, take turns, page by page of the ledger's feed: none writes over what
another found.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.config import DatasetSettings, SourceSettings
from ionbeam_dagster.domain.canonical import STATION, canonical_schema, columns_of
from ionbeam_dagster.domain.raw_values import CanonicalError
from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.station_entries import Entries, canonical_rows
from ionbeam_dagster.domain.stations import Registry, apart_with_one_id, heard_in, heard_together
from ionbeam_dagster.domain.windows import EPOCH, FOREVER, Window
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline.ingest import time_bounds
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.raw_files import raw_of, whole
from ionbeam_dagster.stores.damage import UNREADABLE, is_of_one_file
from ionbeam_dagster.stores.stations import Heard

_LOG = logging.getLogger(__name__)
_PAGE = 1_000
_MOST_NAMED = 10
_ROWS = 500_000
"""Of news that are kept apart before they are put together."""
_ALWAYS = Window(EPOCH, FOREVER)


@dataclass(frozen=True, slots=True)
class SourceStations:
    """What is known of the stations of a source, how many of them are `new`, how many raw partitions were looked at
    for that, and what of how many in all is not known: `missed`; of these, `away` are looked at again each time."""

    registry: Registry
    new: int
    looked_at: int
    missed: int
    away: int


def up_to_date(platform: Platform, sources: Iterable[str]) -> dict[str, SourceStations]:
    """The registry of these sources, with all that was taken in until now.

    Raises StoreError where a store cannot be used; what was looked at until then need not be looked at again.
    """
    known = {source: _Source(platform, platform.source(source)) for source in sources}
    for one in known.values():
        one.look_again()
        while one.look_on():
            pass
    return {source: one.found() for source, one in known.items()}


def in_turn(platform: Platform, source: str) -> AbstractContextManager[None]:
    """Keep every other process from changing the registry of a source."""
    return platform.ledger.holding(f"stations of {source}", _ALWAYS)


def change_entries(platform: Platform, change: Callable[[Entries], Entries]) -> None:
    """Say of stations what `change` makes of what is said of them; nobody else says anything meanwhile.

    Raises StationsError where what is said stands in the YAML, or cannot be used.
    """
    with platform.ledger.holding("what is told of stations", _ALWAYS):
        platform.stations.change_entries(change)


def faults(platform: Platform) -> list[str]:
    """What a person should put right of stations: in what is told of them, and, as far as was looked, of ids that two
    sources of a dataset, or several stations of an export, would share. A sentence each."""
    told = platform.stations.entries()
    found = [platform.stations.trouble] if platform.stations.trouble else []
    found += (
        f"{number} station{'s' * (number != 1)} of {name} began to be forgotten and may still be found: run the same "
        "`ionbeam stations forget` again"
        for name, number in platform.privacy.unfinished().items()
    )
    found += told.faults(platform.config.sources)
    found += (
        f"stations of {name} are told a parent, a tag of what a device reports to the HTTP door, and {name} is "
        "no source of kind door"
        for name, source in platform.config.sources.items()
        if source.config.kind != "door" and told.of(name).parents().height
    )
    for dataset in platform.config.datasets.values():
        heard = {name: _as_in_the_dataset(platform, name, told.of(name)) for name in dataset.sources}
        found += apart_with_one_id(heard)
        stations = dict(pl.concat(one.select(STATION, "wigos_id") for one in heard.values()).iter_rows())
        found += _shared_in_exports(platform, dataset, stations)
    return found


def _shared_in_exports(
    platform: Platform, dataset: DatasetSettings, stations: Mapping[str, str | None]
) -> Iterator[str]:
    exporters = {platform.config.exporters[name].section(): platform.config.exporters[name] for name in dataset.formats}
    for exporter in exporters.values():
        shared = exporter.shared_names(stations)
        for called, names in list(shared.items())[:_MOST_NAMED]:
            yield (
                f"stations {', '.join(names[:_MOST_NAMED])} of {dataset.name} would all be {called!r} in "
                f"{exporter.format}; tell them apart by wigos_id, or by other ids"
            )
        if len(shared) > _MOST_NAMED:
            yield f"and so would {len(shared) - _MOST_NAMED:,} more groups of stations of {dataset.name}"


def _as_in_the_dataset(platform: Platform, source: str, told: Entries) -> pl.DataFrame:
    """What was heard of the stations of a source that may come in, with ``wigos_id`` as it is told, under the ids that
    they have in its dataset."""
    prefix = pl.lit(platform.source(source).station_prefix)
    heard = platform.stations.heard(source).stations
    let_in = heard.filter(told.refused(heard[STATION]).is_null()).select(STATION, "lat", "lon")
    wigos_ids = told.table.select(pl.col("station").alias(STATION), "wigos_id")
    found = let_in.join(wigos_ids, on=STATION, how="left", maintain_order="left")
    return found.with_columns(pl.concat_str(prefix, STATION).alias(STATION))


@dataclass
class _Source:
    """The registry of one source, while it is brought up to date."""

    platform: Platform
    source: SourceSettings
    news: list[pl.DataFrame] = field(default_factory=list)
    looked_at: int = 0

    def __post_init__(self) -> None:
        self._entries: Entries = self.platform.stations.entries().of(self.source.name)
        self._mark, self._reached = 0, 0
        self._load()
        self._before = self.stations.height

    def look_again(self) -> None:
        """Look at those raw partitions that could not be read before: they were away, or are restored by now."""
        if not self.due:
            return
        with self._in_turn():
            claims = {claim.id: claim for claim in self.platform.ledger.claims_of(sorted(self.due))}
            for withdrawn in self.due - claims.keys():
                self._wait_for(withdrawn, False)
            for claim in claims.values():
                self._look_at(claim)
            self._keep(self._reached)

    def look_on(self) -> bool:
        """Look at the next page of the feed; False: there is none."""
        with self._in_turn():
            changes = self.platform.ledger.changes(self._reached, _PAGE)
            for change in changes:
                if change.claim is not None and change.claim.source == self.source.name:
                    self._look_at(change.claim)
            if changes:
                self._keep(changes[-1].number)
        return bool(changes)

    def found(self) -> SourceStations:
        registry = Registry(self.source.name, self.stations, self._entries)
        new, away = self.stations.height - self._before, len(self.due)
        return SourceStations(registry, new, self.looked_at, self.missed + away, away)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Nobody else looks meanwhile; what others found until now is known."""
        with in_turn(self.platform, self.source.name):
            self._load()
            yield

    def _load(self) -> None:
        heard = self.platform.stations.heard(self.source.name)
        if heard.mark < self._mark:  # its file was lost meanwhile
            self._reached = 0
        self._reached = max(self._reached, heard.mark)  # what was looked at without news is not kept each time
        self.stations, self._mark, self.missed = heard.stations, heard.mark, heard.missed
        self.due = set(heard.due)
        self._changed = False

    def _look_at(self, claim: Claim) -> None:
        if not claim.rows:
            return
        raw = raw_of(self.platform, self.source, claim)
        if raw is None:
            self._wait_for(claim.id, False)  # another took its place, whose claim follows
            return
        self.looked_at += 1
        try:
            with whole(self.platform, self.source, raw) as file:
                for batch in file.batches():
                    self._add(batch, file.metadata, claim)
        except (*UNREADABLE, CanonicalError, PipelineError) as error:
            if not is_of_one_file(error):
                raise
            if claim.id not in self.due:
                _LOG.warning("%s %s: its stations are not in the registry: %s", self.source.name, raw.window, error)
            self._wait_for(claim.id, raw.purged is None)
            self.missed += raw.purged is not None
        else:
            self._wait_for(claim.id, False)
            self._changed = True

    def _wait_for(self, ingestion: str, is_away: bool) -> None:
        before = len(self.due)
        (self.due.add if is_away else self.due.discard)(ingestion)
        self._changed |= len(self.due) != before

    def _keep(self, mark: int) -> None:
        """Write what was found up to number `mark` of the feed; of a source without news only every now and then."""
        self._reached = mark
        if not self._changed and mark - self._mark <= _PAGE:
            return
        self._together()
        self.platform.stations.keep(self.source.name, Heard(self.stations, mark, self.missed, sorted(self.due)))

    def _add(self, batch: pa.RecordBatch, metadata: IngestionMetadata, claim: Claim) -> None:
        bounds = time_bounds(self.platform, self.source, claim.arrived_at or self.platform.now())
        placed = Entries(self._entries.table.with_columns(admit=pl.lit(None, pl.String)))  # the denied are heard, too
        rows = canonical_rows(batch, metadata, bounds, placed).rows
        schema = canonical_schema([metadata])
        self.news.append(heard_in(rows, columns_of(schema, "variable"), columns_of(schema, "metadata")))
        if sum(one.height for one in self.news) > _ROWS:
            self._together()

    def _together(self) -> None:
        self.stations, self.news = heard_together(self.stations, self.news), []
