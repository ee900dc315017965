"""Retention: what is not needed any more, and its removal.

Belongs here: the rules by which something may go, each with its reason, and `purge`. A rule never takes what a rebuild
of a window that is still open would need (docs/retention.md has the table). Does not belong here: when it is purged
(orchestration), or how things are kept (stores).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from ionbeam_dagster.config import DatasetSettings, SourceSettings
from ionbeam_dagster.domain.records import BuiltRevision, Claim, RawPartition
from ionbeam_dagster.domain.windows import EPOCH, FOREVER, Window, windows_between
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.pipeline import removals, stations
from ionbeam_dagster.pipeline.agenda import export_is_current, stays
from ionbeam_dagster.pipeline.build import as_found
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import folder_of, is_address, name_of
from ionbeam_dagster.stores.publish import DAMAGED, left_by_killed

_LOG = logging.getLogger(__name__)
DRAFT_AGE = timedelta(days=1)
"""A draft so old belongs to no run that is still going on."""

KINDS = (
    "raw partitions",
    "superseded revisions",
    "observations",
    "quarantine",
    "drafts of killed runs",
    "payloads",
    "parts of ingestions that are whole",
    "hours of small segments",
    "damaged files",
)


@dataclass(frozen=True, slots=True)
class Purgeable:
    """Something that may go: its kind (one of KINDS), whose it is, what it is, its bytes, and why it may.

    Of small segments, which become one file, only files go, and no bytes are counted.
    """

    kind: str
    of: str
    what: str
    bytes: int
    why: str
    remove: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Purged:
    """What went, or in a dry run would go; `failed` says of each thing that could not be removed why."""

    gone: tuple[Purgeable, ...]
    failed: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.gone)

    def of_kind(self, kind: str) -> list[Purgeable]:
        return [one for one in self.gone if one.kind == kind]


Rule = Callable[[Platform, datetime], Iterator[Purgeable]]
"""Gives what may go now, in the order in which it may."""


def purge(platform: Platform, now: datetime, dry_run: bool = False, also: Sequence[Rule] = ()) -> Purged:
    """Remove what the configuration allows to go; in a dry run, tell only. `also` are rules of rooms above this one.

    A purge that is killed loses nothing and leaves nothing behind: the next one goes on with what it had begun.
    """
    gone, failed = [], []
    for one in purgeable(platform, now, also):
        try:
            if not dry_run:
                one.remove()
        except (OSError, StoreError) as error:
            failed.append(f"{one.what}: {error}")
        else:
            gone.append(one)
    return Purged(tuple(gone), tuple(failed))


def purgeable(platform: Platform, now: datetime, also: Sequence[Rule] = ()) -> Iterator[Purgeable]:
    """All that may go now, kind by kind."""
    yield from _begun(platform)
    for source in platform.config.sources.values():
        yield from _raws(platform, source, now)
    for dataset in platform.config.datasets.values():
        yield from _superseded(platform, dataset.name, now)
        yield from _observations(platform, dataset.name, now)
        yield from _small_segments(platform, dataset)
    yield from _quarantined(platform, now)
    yield from _damaged(platform, now)
    yield from _drafts(platform, now)
    for rule in also:
        yield from rule(platform, now)


def _raws(platform: Platform, source: SourceSettings, now: datetime) -> Iterator[Purgeable]:
    """Raw partitions: once exported where `delete_after_export` is set; else once sealed and exported, and old enough.

    One that is not ingested, or does not hold its whole window yet, stays.
    """
    after_export = platform.config.sections.dataset_aggregator.delete_after_export
    age = platform.config.sections.retention.raw
    if not after_export and age is None:
        return
    try:
        stations.up_to_date(platform, [source.name])  # while it can still be seen what they say of stations
    except (StoreError, OSError) as error:
        _LOG.error("%s: raw partitions stay until it can be seen what they say of stations: %s", source.name, error)
        return
    for raw in platform.ledger.raws(source.name, now):
        claims = platform.ledger.claims_of([raw.ingestion])
        wanted = platform.reach(source, raw.window) or raw.window
        if not claims or not claims[0].collected.covers(wanted):
            continue
        closed = age is not None and _closed_for(platform, claims[0], age, now)
        if (closed or (after_export and _is_in_store(platform, claims[0]))) and _is_exported(platform, claims[0]):
            why = "its windows are sealed and exported" if closed else "its windows are exported"
            size = platform.files.size(raw.path)
            yield Purgeable(KINDS[0], source.name, raw.path, size, why, partial(_remove_raw, platform, raw, now))


def _is_in_store(platform: Platform, claim: Claim) -> bool:
    """Whether a window can be built again without the raw file of this claim."""
    return not claim.rows or not platform.series.lacking(claim.dataset, [claim.id])


def _remove_raw(platform: Platform, raw: RawPartition, now: datetime) -> None:
    removals.remove(platform, [raw], partial(platform.ledger.record_purged, raw, now))


def _begun(platform: Platform) -> Iterator[Purgeable]:
    """Raw files that a process which was killed was about to remove."""
    for path in platform.ledger.removals.pending():
        size, why = platform.files.size(path), "its removal was begun"
        yield Purgeable(
            KINDS[0], name_of(folder_of(path)), path, size, why, partial(removals.remove_pending, platform, path)
        )


def _superseded(platform: Platform, dataset: str, now: datetime) -> Iterator[Purgeable]:
    """Revisions that were followed by a newer one so long ago that nobody still reads them."""
    age = platform.config.sections.retention.superseded
    if age is None:
        return
    for old in platform.ledger.superseded(dataset, now - age):
        size = platform.files.size(old.path)
        why = "a newer revision took its place"
        yield Purgeable(KINDS[1], dataset, old.path, size, why, partial(_remove_revision, platform, old))


def _remove_revision(platform: Platform, old: BuiltRevision) -> None:
    platform.files.delete(old.path)
    platform.ledger.forget_revision(old.revision)


def _observations(platform: Platform, dataset: str, now: datetime) -> Iterator[Purgeable]:
    """Segments of ingestions all of whose windows are sealed and exported, and old enough.

    (InfluxDB does this by its bucket's retention.) A claim that came too late to be built is kept.
    """
    age, store = platform.config.sections.retention.observations, platform.series
    if age is None:
        return
    held = store.held(dataset)
    for claim in platform.ledger.claims_of(list(held)):
        if held[claim.id] and _closed_for(platform, claim, age, now) and _is_exported(platform, claim):
            what = f"{claim.source} {claim.collected}"
            why = "its windows are sealed and exported"
            withdraw = partial(store.withdraw, dataset, claim.id)
            yield Purgeable(KINDS[2], dataset, what, held[claim.id], why, withdraw)


def _small_segments(platform: Platform, dataset: DatasetSettings) -> Iterator[Purgeable]:
    """Hours of many small segments all of whose windows were built: each hour's become one file, and no row goes."""
    store = platform.series
    for hour, number in store.crowded(dataset.name):
        windows = windows_between(hour.start, hour.end, dataset.span)
        if all(platform.ledger.latest_revision(dataset.name, window) for window in windows):
            what, why = f"{number} segments of {hour}", "their windows are built; those of an hour become one file"
            yield Purgeable(KINDS[7], dataset.name, what, 0, why, partial(store.compact, dataset.name, hour))


def _is_exported(platform: Platform, claim: Claim) -> bool:
    """Whether the latest revision of every window that a claim touches holds it, and is exported in every format."""
    return all(_holds(platform, window, claim) for window in platform.touched(claim))


def _holds(platform: Platform, window: Window, claim: Claim) -> bool:
    dataset = platform.dataset(claim.dataset)
    latest = platform.ledger.latest_revision(dataset.name, window)
    found = as_found(platform, latest)
    if latest is None or found is None or claim.id not in (found.made_of or ()):
        return False
    if not found.intact and not stays(platform, latest):
        return False
    return all(export_is_current(platform, dataset.name, format, window) for format in dataset.exports)


def _closed_for(platform: Platform, claim: Claim, age: timedelta, now: datetime) -> bool:
    """Whether every window that a claim touches was sealed, by its policy or a person, for at least `age`."""
    revise_for = platform.dataset(claim.dataset).policy.revise_for
    for window in platform.touched(claim):
        by_policy = None if revise_for is None else window.end + revise_for
        by_person = platform.ledger.sealed(claim.dataset, window)
        sealed_at = min((moment for moment in (by_policy, by_person) if moment is not None), default=None)
        if sealed_at is None or now < sealed_at + age:
            return False
    return True


def _quarantined(platform: Platform, now: datetime) -> Iterator[Purgeable]:
    age = platform.config.sections.retention.quarantine
    if age is None:
        return
    for file in platform.quarantine.files():
        if file.written_at <= now - age:
            remove = partial(platform.files.delete, file.location)
            yield Purgeable(KINDS[3], file.of, file.location, file.bytes, "it is old", remove)


def _damaged(platform: Platform, now: datetime) -> Iterator[Purgeable]:
    """Files that were set aside because they were damaged: like rows in quarantine, they are there for a person. One in
    whose place nothing is yet may be all that there is of what it held."""
    age = platform.config.sections.retention.quarantine
    if age is None:
        return
    known = _known_files(platform)
    for folder in sorted({*_folders(platform), str(platform.config.sections.state_path / "segments")}):
        for path, found in platform.files.aside(folder).items():
            place, of = path.removesuffix(DAMAGED), name_of(folder_of(path))
            if found.modified <= now - age and (place not in known or platform.files.exists(place)):
                remove = partial(platform.files.delete, path)
                yield Purgeable(KINDS[8], of, path, found.size, "it was set aside long ago", remove)


def _known_files(platform: Platform) -> set[str]:
    """The raw files, and those of the latest revisions, that are to be there."""
    raws = {raw.path for source in platform.config.sources for raw in platform.ledger.raws(source, FOREVER)}
    datasets = platform.config.datasets
    return raws | {one.path for dataset in datasets for one in platform.ledger.revisions(dataset, EPOCH, FOREVER)}


def _folders(platform: Platform) -> set[str]:
    """Where raw partitions, dataset files and exports are."""
    folders = {source.config.data_path for source in platform.config.sources.values()}
    folders |= {exporter.settings.output_path for exporter in platform.config.exporters.values()}
    return folders | {platform.config.sections.dataset_aggregator.data_path}


def _drafts(platform: Platform, now: datetime) -> Iterator[Purgeable]:
    """What a killed process left beside the files that it was to become: it is in nobody's way, but takes room."""
    folders = _folders(platform) | {platform.config.sections.quarantine_root}
    for folder in sorted(Path(folder) for folder in folders if not is_address(folder)):
        for path in sorted([*folder.rglob(".*"), *folder.rglob(".*/*")]):
            if path.is_file() and left_by_killed(path):
                yield from old_file(KINDS[4], folder.name, path, now - DRAFT_AGE, "whoever wrote it is gone")


def old_file(kind: str, of: str, path: Path, before: datetime, why: str) -> Iterator[Purgeable]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    if datetime.fromtimestamp(found.st_mtime, UTC) <= before:
        yield Purgeable(kind, of, str(path), found.st_size, why, partial(path.unlink, missing_ok=True))
