"""A ledger that was lost, or exchanged for another, made again from what the other stores hold.

Belongs here: what raw files, dataset files and the time-series store tell of the past, and its way into an empty or
outdated ledger. What only the ledger knew stays lost: the windows that a person sealed, which exports are current (they
are made again), how a source that can be asked again looked (`ionbeam run` asks it again), what was refused at a door
(the broker keeps the messages), and requests that were not answered. Does not belong here:
how a ledger notices that it was lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.records import BuiltRevision, Claim, RawPartition, Revision, RevisionFacts
from ionbeam_dagster.domain.windows import Window, window_of, windows_between
from ionbeam_dagster.errors import PipelineError, StoreError
from ionbeam_dagster.pipeline.ingest import ingest_raw
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.damage import UNREADABLE, is_of_the_file
from ionbeam_dagster.stores.datasets import DatasetStore, FoundRevision
from ionbeam_dagster.stores.files import Files
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.commands import Taken
from ionbeam_dagster.stores.ledger.migration import earlier_bus
from ionbeam_dagster.stores.ledger.parts import Part
from ionbeam_dagster.stores.locks import locked
from ionbeam_dagster.stores.parts import PartStore
from ionbeam_dagster.stores.publish import DAMAGED
from ionbeam_dagster.stores.raw import RawStore
from ionbeam_dagster.stores.timeseries import TimeSeriesStore

_LOG = logging.getLogger(__name__)
_TOLD_EVERY = 1000
_AFTER_ALL = 2**62
_MOST_WINDOWS = 10_000
"""Of a raw file that lies outside its source's time, so many windows are listed."""


@dataclass(frozen=True, slots=True)
class Feeder:
    """A source as recovery needs it; `external` when its raw files were sent by a client."""

    source: str
    dataset: str
    window_size: timedelta
    external: bool
    raws: RawStore
    reach: Callable[[Window], Window | None]


@dataclass(slots=True)
class Recovered:
    """What was put into the ledger that it did not have; `troubles` are files that could not be used, with reasons."""

    raws: int = 0
    claims: int = 0
    ingested: int = 0
    revisions: int = 0
    parts: int = 0
    troubles: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.raws or self.claims or self.revisions or self.parts or self.troubles)

    def __str__(self) -> str:
        told = (
            f"{self.raws} raw files, {self.claims} claims ({self.ingested} by ingesting again) and {self.revisions} "
            "revisions were recovered from the stores; exports are made again, windows sealed by a person are open, "
            "and requests over the bus that were not answered are to be made again"
        )
        if self.parts:
            told += f"; {self.parts} parts of ingestions wait for the others"
        return told + "".join(f"; {trouble}" for trouble in self.troubles)


def open_platform(config: IonbeamConfig) -> Platform:
    """The platform of a configuration, whose ledger, when it finds itself new, is made again from the other stores."""
    return Platform(config, recover_platform, take_over_bus)


def take_over_bus(platform: Platform) -> None:
    """Put into the ledger what an earlier version kept of the doors in a file of one machine, once.

    A process that is killed on the way leaves the file, and the next one begins again.
    """
    file = platform.config.sections.state_path / "bus" / "bus.sqlite"
    if not file.exists():
        return
    with locked(file.with_name("take-over.lock")):
        if file.exists():  # no other process was quicker
            with earlier_bus(file) as earlier:
                parts = PartStore(platform.files, file.parents[1])
                earlier["parts"] = list(_adopted(parts, earlier.get("parts", [])))
                platform.ledger.take_over(earlier)
            _LOG.warning("%s of an earlier version was taken over by the ledger", file)


def _adopted(store: PartStore, rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        try:
            yield astuple(store.adopt(Part(*row)))
        except (OSError, pa.ArrowException) as error:
            _LOG.warning("part %d of ingestion %s is gone (%s); its client has to send it again", row[1], row[0], error)


def recover_platform(platform: Platform) -> Recovered:
    """Put into the ledger what it lacks of the past and the other stores hold; says what that was.

    One process of a machine does it at a time.
    """
    feeders = [
        Feeder(
            name,
            source.dataset,
            source.window_size,
            source.sent,
            platform.raws(source),
            partial(platform.reach, source),
        )
        for name, source in platform.config.sources.items()
    ]

    def ingest_again(raw: RawPartition) -> None:
        ingest_raw(platform, platform.source(raw.source), raw, platform.files.written_at(raw.path))

    with locked(platform.config.sections.state_path / "recovery.lock"):
        return recover(
            platform.ledger,
            platform.files,
            feeders,
            list(platform.config.datasets),
            platform.series,
            platform.datasets,
            platform.touched,
            ingest_again,
            PartStore(platform.files, platform.config.sections.state_path),
        )


def recover(
    ledger: Ledger,
    files: Files,
    feeders: Sequence[Feeder],
    names: Sequence[str],
    series: TimeSeriesStore,
    datasets: DatasetStore,
    touched: Callable[[Claim], Sequence[Window]],
    ingest: Callable[[RawPartition], object],
    parts: PartStore,
) -> Recovered:
    """Record in `ledger` what it lacks of the past; what it has is left alone, so that this may be done at any time.

    `names` are those of the datasets, `touched` says which of its windows a claim touches. `ingest` is called for a raw
    file of whose claim nothing can be known otherwise; it records the claim.
    """
    done = Recovered()
    built = [found for dataset in names for found in datasets.latest(dataset)]
    claims = {filed.claim.id: filed for found in built for filed in _claims_of(found)}
    stored = {ingestion: place for dataset in names for ingestion, place in series.arrivals(dataset).items()}
    in_place = {id: filed for id, filed in claims.items() if stored.get(id) == filed.claim.arrival}
    ledger.restore_arrivals({id: filed.claim.arrival for id, filed in claims.items()} | stored)
    raws = [raw for feeder in feeders for raw in _unknown_raws(ledger, feeder, done)]
    raws.sort(key=lambda raw: (stored.get(raw.ingestion, _AFTER_ALL), files.written_at(raw.path)))
    by_source = {feeder.source: feeder for feeder in feeders}
    for number, raw in enumerate(raws, 1):
        there = in_place.get(raw.ingestion)
        _recover_raw(ledger, by_source[raw.source], raw, files.written_at(raw.path), done, is_built=there is not None)
        if not ledger.claims_of([raw.ingestion]) and not (
            there and _recover_claim(ledger, there, touched, done, files.written_at(raw.path))
        ):
            _ingest_again(ingest, raw, done)
        if number % _TOLD_EVERY == 0:
            _LOG.warning("recovery: %d of %d raw files", number, len(raws))
    for filed in sorted(claims.values(), key=lambda filed: filed.claim.arrival):
        id, source = filed.claim.id, by_source.get(filed.claim.source)
        is_replaced = id not in stored and source is not None and _was_collected_again(ledger, source, filed.claim)
        if not is_replaced and not ledger.claims_of([id]):
            _recover_claim(ledger, filed, touched, done)
    latest = {(found.provenance.dataset, found.provenance.window): found for found in built}
    for found in latest.values():
        _recover_revision(ledger, found, done)
    for feeder in feeders:
        if feeder.external:
            _recover_parts(ledger, feeder.source, parts, done)
    return done


@dataclass(frozen=True, slots=True)
class _FiledClaim:
    """A claim as it stands in a dataset file."""

    claim: Claim
    metadata: IngestionMetadata
    window: Window


def _unknown_raws(ledger: Ledger, feeder: Feeder, done: Recovered) -> list[RawPartition]:
    """The raw files of which the ledger has no claim."""
    unknown = _unknown_sent if feeder.external else _unknown_collected
    found = []
    for path in feeder.raws.files(feeder.source):
        try:
            raw = unknown(ledger, feeder, path)
        except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
            done.troubles.append(f"{path} cannot be read ({error})")
            continue
        if raw is not None:
            found.append(raw)
    return found


def _unknown_sent(ledger: Ledger, feeder: Feeder, path: str) -> RawPartition | None:
    ingestion = feeder.raws.sent_ingestion(feeder.source, path)
    if ledger.claims_of([ingestion]):
        return None
    return feeder.raws.sent(feeder.source, path)


def _unknown_collected(ledger: Ledger, feeder: Feeder, path: str) -> RawPartition | None:
    window = feeder.raws.window_of(feeder.source, path, feeder.window_size)
    known = ledger.raw(feeder.source, window)
    if known is not None and ledger.claims_of([known.ingestion]):
        return None
    return feeder.raws.collected(feeder.source, window, path)


def _recover_parts(ledger: Ledger, source: str, parts: PartStore, done: Recovered) -> None:
    """Record the parts that wait for others; those of a command that is whole were joined before."""
    found = []
    for path in parts.files(source):
        try:
            part = parts.part(source, path)
        except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
            done.troubles.append(f"{path} cannot be read ({error})")
            continue
        if not ledger.commands.knows(part.id, part.part):
            found.append(part)
    ledger.parts.add(found)
    done.parts += len(found)


def _recover_raw(
    ledger: Ledger, feeder: Feeder, raw: RawPartition, written_at: datetime, done: Recovered, is_built: bool
) -> None:
    """Record a raw file. Of one that was sent, and that no dataset file tells of, Dagster may not have been told."""
    if feeder.external:
        reach = feeder.reach(raw.window) or raw.window
        touched = list(islice(windows_between(reach.start, reach.end, feeder.window_size), _MOST_WINDOWS))
        if raw not in ledger.sent(raw.source, touched[0]):
            if raw.window.start < reach.start:
                ledger.refusals.note_too_early(raw.source, raw.window.start, written_at)
            if is_built:
                ledger.record_sent([(raw, touched)])
            else:
                ledger.commands.take([Taken(raw, touched)], written_at)
            done.raws += 1
        return
    known = ledger.raw(raw.source, raw.window)
    if known is None or known.ingestion != raw.ingestion:
        ledger.record_raw(raw)
        done.raws += 1


def _ingest_again(ingest: Callable[[RawPartition], object], raw: RawPartition, done: Recovered) -> None:
    try:
        ingest(raw)
    except (PipelineError, StoreError, ValueError, OSError) as error:
        done.troubles.append(str(error))
    else:
        done.claims += 1
        done.ingested += 1


def _claims_of(found: FoundRevision) -> Iterator[_FiledClaim]:
    for claim in found.provenance.claims:
        yield _FiledClaim(claim, found.provenance.metadata[claim.source], found.provenance.window)


def _was_collected_again(ledger: Ledger, feeder: Feeder, claim: Claim) -> bool:
    """Whether the raw partition of a claim's window is of another ingestion by now, which has no fewer rows.

    Of one with fewer a person has to decide: the others may stand in the dataset file alone.
    """
    window = window_of(claim.collected.start, feeder.window_size)
    raw = None if feeder.external else ledger.raw(claim.source, window)
    return raw is not None and raw.ingestion != claim.id and raw.rows >= claim.rows


def _recover_claim(
    ledger: Ledger,
    filed: _FiledClaim,
    touched: Callable[[Claim], Sequence[Window]],
    done: Recovered,
    arrived_at: datetime | None = None,
) -> bool:
    """Record a claim; False when its place in the order of arrival belongs to another.

    Also when its rows lie in several windows, and its raw file can tell how many in each.
    """
    claim = filed.claim
    if ledger.arrival_of(claim.id) != claim.arrival:
        return False
    windows = dict.fromkeys(touched(claim), 0)
    if arrived_at is not None:
        if windows.keys() > {filed.window}:
            return False
        claim = replace(claim, arrived_at=arrived_at)
    ledger.record_claim(claim, filed.metadata, windows | {filed.window: claim.rows})
    done.claims += 1
    return True


def _recover_revision(ledger: Ledger, found: FoundRevision, done: Recovered) -> None:
    written = found.provenance
    known = ledger.latest_revision(written.dataset, written.window)
    if known is not None and known.revision.number >= written.number:
        return
    facts, fault = _facts(found)
    path = found.path.removesuffix(DAMAGED)
    revision = Revision(written.dataset, written.window, written.number, written.inputs, intact=not fault)
    built_at = found.files.written_at(found.path)
    if fault:
        kept = found.path if found.path != path else found.files.set_aside(path)
        done.troubles.append(f"{path} cannot be read ({fault}; kept as {kept}), and its window is built again")
    made_of = [] if fault else ledger.claims_of([claim.id for claim in written.claims])  # it stays due
    ledger.record_revision(BuiltRevision(revision, path, built_at, facts), made_of)
    done.revisions += not fault


def _facts(found: FoundRevision) -> tuple[RevisionFacts, str]:
    """What is to be told of a revision, and why its file is no good ("" where it is read through)."""
    written, fault = found.provenance, found.fault
    if not fault:
        try:
            stations, hash = found.read_through()
        except UNREADABLE as error:
            if not is_of_the_file(error):
                raise
            fault = str(error)
    if fault:
        return RevisionFacts(made_of=written.ingestions or None), fault
    facts = RevisionFacts(
        rows=found.rows,
        stations=stations,
        bytes=found.files.size(found.path),
        coverage=written.coverage,
        gaps=written.gaps,
        ingestions=len(written.ingestions),
        made_of=written.ingestions,
        software=written.software,
        hash=hash,
    )
    return facts, ""
