"""The way of an observation: collect, ingest, build, export.

Belongs here: the four steps as plain functions on one window, which the Dagster assets, the command line and the
benchmarks call. Does not belong here: the platform that they work on (platform.py), when a step is run (orchestration),
or how a source, a store or a format works.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path
from shutil import copyfile
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster import __version__, qc
from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.canonical import (
    CanonicalError,
    canonical_schema,
    canonicalise,
    point_key,
)
from ionbeam_dagster.domain.windows import (
    WEEK,
    Build,
    Claim,
    Decision,
    Policy,
    Revision,
    Sealed,
    Unchanged,
    Wait,
    Window,
    build_regardless,
    coverage,
    decide,
    merge,
    overlaps,
    window_of,
    windows_between,
)
from ionbeam_dagster.exporters import Exporter, ExportError, ExportReport
from ionbeam_dagster.platform import PipelineError, Platform
from ionbeam_dagster.stores.files import within
from ionbeam_dagster.stores.ledger import BuiltRevision, ExportRecord, RawPartition
from ionbeam_dagster.stores.publish import published
from ionbeam_dagster.stores.raw import RawFile

_MOST_ASSESSED = 300


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


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a raw partition's rows; `reasons` counts why rows are in the file `quarantine`."""

    claim: Claim
    metadata: IngestionMetadata
    quarantine: Path | None
    reasons: dict[str, int]

    @property
    def rows(self) -> int:
        return self.claim.rows

    @property
    def quarantined(self) -> int:
        return self.claim.quarantined


@dataclass(frozen=True, slots=True)
class Built:
    """The decision on a window, and its latest revision, which was made just now if `built`."""

    dataset: str
    window: Window
    decision: Decision
    revision: BuiltRevision | None
    built: bool


@dataclass(frozen=True, slots=True)
class Exported:
    """The current export of a window; `path` is None when the window has no row to export.

    `gts_path` is where a copy lies for the GTS, if one is made.
    """

    dataset: str
    window: Window
    format: str
    number: int
    path: str | None
    report: ExportReport
    gts_path: str | None = None


def collect(platform: Platform, source: str, window: Window, now: datetime, use_cache: bool = False) -> Collected:
    """Fetch a window from a source into its raw partition.

    `use_cache` lets the source use what it downloaded before, where it keeps that. Raises SourceError when the source
    failed, PipelineError for a window that has not begun. A raw partition that was lost and comes back as it was makes
    its dataset windows due again: what they were made of is proved anew. One that retention swept was not lost.
    """
    if window.start >= now:
        raise PipelineError(f"{source} {window}: has not begun yet")
    platform.check_span(platform.source(source).dataset)
    feed, raws, ledger = platform.feed(source, use_cache), platform.raws(source), platform.ledger
    before = ledger.raw(source, window)
    lost = before is not None and before.swept is None and not platform.files.exists(before.path)
    signature = feed.signature(window)
    swept = Window(window.start, min(window.end, now))
    path = raws.path(source, window)
    with written_to(path):
        ingestion, rows = raws.write(source, window, swept, platform.metadata(source), feed.fetch(window))
    same = before is not None and before.ingestion == ingestion
    if lost and same:
        ledger.withdraw_claim(ingestion)
    ledger.record_raw(RawPartition(ingestion, source, window, path, rows, signature))
    changed = lost or not same
    size = platform.files.size(path)
    return Collected(source, window, ingestion, path, rows, size, changed, feed.problems())


def needs_collecting(platform: Platform, source: str, window: Window) -> bool:
    """Whether a window was never collected, lost its raw partition, or would come out differently now.

    A raw partition that retention swept is not lost: all that is made of it is there.
    """
    known = platform.ledger.raw(source, window)
    if known is None or (known.swept is None and not platform.files.exists(known.path)):
        return True
    return known.signature != platform.sources[source].signature(window)


def ingest(platform: Platform, source: str, window: Window) -> Ingested:
    """Convert a raw partition to canonical points, store them and record the claim.

    Of a source that clients send, all raw files that touch the window and have no claim yet are taken, in order of
    arrival. Rows that cannot be used go to a quarantine file with their reasons. Raises PipelineError when a raw
    partition is missing, damaged or lacks a declared column.
    """
    if platform.source(source).kind == "external":
        return _ingest_sent(platform, source, window)
    raw = platform.ledger.raw(source, window)
    if raw is None:
        raise PipelineError(f"{source} {window}: nothing was collected; materialise {source}/raw first")
    return ingest_raw(platform, raw)


def waiting_raws(platform: Platform, source: str, window: Window) -> list[RawPartition]:
    """What clients sent for a window of `source` and is not ingested yet, in order of arrival."""
    sent = platform.ledger.sent(source, window)
    claimed = {claim.id for claim in platform.ledger.claims_of([raw.ingestion for raw in sent])}
    return [raw for raw in sent if raw.ingestion not in claimed]


def _ingest_sent(platform: Platform, source: str, window: Window) -> Ingested:
    """Ingest what was sent for a window and is not in the store; what is told is the sum of all that touches it."""
    sent = platform.ledger.sent(source, window)
    if not sent:
        raise PipelineError(f"{source} {window}: no client sent anything; materialise {source}/request to ask for it")
    known = platform.ledger.claims_of([raw.ingestion for raw in sent])
    whole = {claim.id for claim in known if claim.rows}
    whole -= {*platform.series.lacking(platform.source(source).dataset, sorted(whole))}
    whole |= {claim.id for claim in known if not claim.rows}
    done, failed = [], []
    for raw in sent:
        if raw.ingestion in whole:
            continue
        try:
            done.append(ingest_raw(platform, raw))
        except PipelineError as error:  # those that were sent after it do not wait for it
            failed.append(str(error))
    if failed:
        raise PipelineError("; ".join(failed))
    claims = platform.ledger.claims_of([raw.ingestion for raw in sent])
    reached = Window(min(claim.swept.start for claim in claims), max(claim.swept.end for claim in claims))
    together = replace(
        claims[-1],
        swept=reached,
        rows=sum(claim.rows for claim in claims),
        quarantined=sum(claim.quarantined for claim in claims),
        stray_windows=tuple(sorted({stray for claim in claims for stray in claim.stray_windows})),
    )
    reasons = sum((Counter(one.reasons) for one in done), Counter[str]())
    quarantined = [one.quarantine for one in done if one.quarantine]
    metadata = platform.ledger.metadata_of(claims)[-1]
    return Ingested(together, metadata, quarantined[-1] if quarantined else None, dict(reasons))


def ingest_raw(platform: Platform, raw: RawPartition, arrived_at: datetime | None = None) -> Ingested:
    file = _open_raw(platform, raw)
    quarantine_path = platform.quarantine_path(raw.source, raw.window)
    if platform.source(raw.source).kind == "external":
        quarantine_path = quarantine_path.with_stem(f"{raw.source}_{raw.window.label}_{raw.ingestion}")
    source = raw.source
    platform.check_span(platform.source(source).dataset)
    platform.check_schema(source, file.metadata)
    settings = platform.dataset(platform.source(source).dataset)
    schema = canonical_schema([file.metadata])
    known = platform.ledger.claims_of([raw.ingestion])
    arrived_at = known[0].arrived_at if known else arrived_at or platform.now()
    arrival = platform.ledger.arrival_of(raw.ingestion)
    seen = _Rows(file, settings)
    try:
        with published(quarantine_path) as draft, _Quarantine(draft) as quarantine:
            frames = seen.canonical_frames(quarantine)
            rows = platform.series.write(settings.name, raw.ingestion, arrival, frames, point_key(schema))
    except (CanonicalError, pa.ArrowInvalid) as error:
        raise PipelineError(f"{raw.path}: {error}") from error
    except OSError as error:
        raise PipelineError(
            f"{raw.path}: cannot be ingested ({error}); what there was before is untouched. Make room, or give "
            "permission, and materialise the window again"
        ) from error
    if not quarantine.rows:
        quarantine_path.unlink(missing_ok=True)
    replaced = _replaced(platform, raw, file, arrival)
    for ingestion in replaced:
        platform.series.withdraw(settings.name, ingestion)
    strays = tuple(sorted(seen.strays))
    claim = Claim(raw.ingestion, source, settings.name, file.swept, arrival, rows, quarantine.rows, strays, arrived_at)
    swept = dict.fromkeys(windows_between(file.swept.start, file.swept.end, settings.span), 0)
    platform.ledger.record_claim(claim, file.metadata, swept | seen.rows, list(replaced))
    if platform.source(source).kind == "external":  # else a ledger that is made again would take them up
        for ingestion, range in replaced.items():
            platform.files.delete(platform.raws(source).sent_path(source, ingestion, range))
    return Ingested(claim, file.metadata, quarantine_path if quarantine.rows else None, dict(quarantine.reasons))


def _replaced(platform: Platform, raw: RawPartition, file: RawFile, arrival: int) -> dict[str, Window]:
    """The ingestions that one takes the place of, with their ranges: what its source gave before for parts of its own.

    What the platform itself collects, it collects whole: a point that is there no more was taken back. What clients
    send adds to what they sent before, unless they say that it replaces that; then also what still waits.
    """
    sent = platform.source(raw.source).kind == "external"
    if sent and not file.replaces:
        return {}
    dataset = platform.dataset(platform.source(raw.source).dataset)
    first = window_of(file.swept.start, dataset.span).start
    claimed = {
        claim.id: claim.swept
        for claim in platform.ledger.claims_between(dataset.name, first, file.swept.end)
        if claim.source == raw.source
        and file.swept.covers(claim.swept)
        and (claim.arrival < arrival if sent else claim.id != raw.ingestion)
    }
    return claimed | (_waiting_before(platform, raw) if sent else {})


def _waiting_before(platform: Platform, raw: RawPartition) -> dict[str, Window]:
    """What a source sent before `raw` for ranges that lie in its range, and is not ingested yet."""
    found: dict[str, Window] = {}
    for window in platform.ledger.waiting(raw.source):
        if not window.overlaps(raw.window):
            continue
        sent = platform.ledger.sent(raw.source, window)
        before = list(takewhile(lambda one: one.ingestion != raw.ingestion, sent))
        covered = {one.ingestion: one.window for one in before if raw.window.covers(one.window)}
        claimed = {claim.id for claim in platform.ledger.claims_of(list(covered))}
        found |= {ingestion: range for ingestion, range in covered.items() if ingestion not in claimed}
    return found


def assess(platform: Platform, dataset: str, window: Window, now: datetime) -> Decision:
    """What `decide` says of a dataset window, on what the ledger knows of it."""
    return _looked_at(platform, dataset, window, now).decision


def assess_due(platform: Platform, dataset: str, window: Window, now: datetime) -> Decision:
    """The same of a window that the ledger calls due; where the answer is not to build it, the ledger is told for how
    long it holds, so that nobody asks again before it can be another one."""
    seen = _looked_at(platform, dataset, window, now)
    if not isinstance(seen.decision, Build):
        until = seen.decision.until if isinstance(seen.decision, Wait) else None
        platform.ledger.postpone(dataset, window, seen.claims, until)
    return seen.decision


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the ledger knew of a dataset window, and what follows from it."""

    decision: Decision
    claims: list[Claim]
    latest: BuiltRevision | None
    policy: Policy


def _looked_at(platform: Platform, dataset: str, window: Window, now: datetime) -> _Seen:
    policy = platform.policy(dataset, now)
    claims = platform.ledger.claims(dataset, window)
    latest = platform.ledger.latest_revision(dataset, window)
    return _Seen(decide(window, claims, as_found(platform, latest), now, policy), claims, latest, policy)


def outlook(platform: Platform, claim: Claim, now: datetime) -> dict[Window, Decision]:
    """What is to be said of the dataset windows that a claim touches: of the newest, where they are very many."""
    span = platform.dataset(claim.dataset).span
    touched = sorted({*windows_between(claim.swept.start, claim.swept.end, span), *claim.stray_windows})
    return {window: assess(platform, claim.dataset, window, now) for window in touched[-_MOST_ASSESSED:]}


def build(
    platform: Platform, dataset: str, window: Window, now: datetime, insist: bool = False, force: bool = False
) -> Built:
    """Write the next revision of a dataset window, if `decide` says so.

    With `insist`, as a person asks for it, a window that might wait is built from what there is; one that is sealed is
    not. With `force` the next revision is written also of a window that is sealed or unchanged. Raises PipelineError
    when a person asks for a window of which nothing was collected, or whose observations are gone.
    """
    platform.check_span(dataset)
    with platform.ledger.holding(dataset, window):
        return _build(platform, dataset, window, now, insist, force)


def _build(platform: Platform, dataset: str, window: Window, now: datetime, insist: bool, force: bool) -> Built:
    seen = _looked_at(platform, dataset, window, now)
    decision = seen.decision
    if force or (insist and isinstance(decision, Wait)):
        if not seen.claims:
            reason = "nothing has been collected for this window yet"
            raise PipelineError(f"{dataset} {window}: {reason}; materialise {_raw_keys(seen.policy.sources)} first")
        decision = build_regardless(window, seen.claims, as_found(platform, seen.latest), seen.policy)
        if force and seen.latest:
            decision = replace(decision, number=seen.latest.revision.number + 1)
    if isinstance(decision, Build):
        return _write_revision(platform, window, decision, seen, now, dataset)
    return Built(dataset, window, decision, seen.latest, built=False)


def export(platform: Platform, dataset: str, format: str, window: Window) -> Exported:
    """Write the current export of a dataset window in `format`, and remember it.

    Raises PipelineError when the window was not built, ExportError when the file could not be made or read back.
    """
    with platform.ledger.holding(dataset, window):
        return _export(platform, dataset, format, window)


def _export(platform: Platform, dataset: str, format: str, window: Window) -> Exported:
    latest = platform.ledger.latest_revision(dataset, window)
    if latest is None or not platform.files.exists(latest.path):
        raise PipelineError(f"{dataset} {window}: there is no dataset file; materialise {dataset}/dataset first")
    target = platform.export_path(dataset, format, window)
    with written_to(target):
        report = _exported(platform, platform.exporters[format], latest.path, target)
        gts_path = _laid_out_for_the_gts(platform, dataset, target, report) if report.gts_name else None
    path = target if report.rows else None
    facts = {"rows": report.rows, "bytes": report.bytes, "stations": report.stations}
    platform.ledger.record_export(ExportRecord(dataset, window, format, latest.revision.number, path, facts))
    return Exported(dataset, window, format, latest.revision.number, path, report, gts_path)


def _laid_out_for_the_gts(platform: Platform, dataset: str, file: str, report: ExportReport) -> str:
    """Copy an export to where bulletins are taken from, under its own name there."""
    assert report.gts_name is not None
    place = within(platform.config.sections.projections.bufr_service.output_path, "gts", dataset, report.gts_name)
    with platform.files.fetched(file) as made, platform.files.published(place) as draft:
        copyfile(made, draft)
    return place


def _exported(platform: Platform, exporter: Exporter, dataset_file: str, target: str) -> ExportReport:
    with platform.files.fetched(dataset_file) as rows, platform.files.published(target) as draft:
        try:
            report = exporter.export(rows, draft)
        except ExportError as error:
            raise ExportError(f"{target}: {error}") from error
    if not report.rows:
        platform.files.delete(target)
    return report


def export_is_current(platform: Platform, dataset: str, format: str, window: Window) -> bool:
    """Whether the window's export was made from its latest revision and is still there."""
    latest = platform.ledger.latest_revision(dataset, window)
    made = platform.ledger.export(dataset, window, format)
    if latest is None or made is None or made.number != latest.revision.number:
        return False
    return made.path is None or platform.files.exists(made.path)


def _open_raw(platform: Platform, raw: RawPartition) -> RawFile:
    try:
        return platform.raws(raw.source).open(raw.path)
    except (OSError, pa.ArrowInvalid) as error:
        first = "request" if platform.source(raw.source).kind == "external" else "raw"
        if raw.swept is not None:
            why = f"was swept by retention on {raw.swept:%Y-%m-%d %H:%M}"
        else:
            why = f"cannot be read ({error})"
        raise PipelineError(
            f"{raw.path}: the raw partition {why}; materialise {raw.source}/{first} for {raw.window.key} first"
        ) from error


def _raw_of(platform: Platform, claim: Claim) -> RawPartition | None:
    """The raw partition that a claim was made of, if it is still the one of its window."""
    source = platform.source(claim.source)
    window = window_of(claim.swept.start, source.window_size)
    if source.kind == "external":
        candidates = platform.ledger.sent(source.name, window)
    else:
        known = platform.ledger.raw(source.name, window)
        candidates = [known] if known else []
    return next((raw for raw in candidates if raw.ingestion == claim.id), None)


def _restore(platform: Platform, dataset: str, claims: Sequence[Claim]) -> None:
    """Ingest again what the time-series store lost, or retention swept, of these claims.

    Raises PipelineError where the raw partition is gone, too.
    """
    with_rows = {claim.id: claim for claim in claims if claim.rows}
    for ingestion in platform.series.lacking(dataset, list(with_rows)):
        claim = with_rows[ingestion]
        raw = _raw_of(platform, claim)
        if raw is None:
            raise PipelineError(
                f"{dataset}: the {claim.rows} rows of {claim.source} {claim.swept} are not in the time-series store, "
                f"and their raw partition is not known; materialise {claim.source}/raw and /observations first"
            )
        ingest_raw(platform, raw)


class _Rows:
    """The rows of a raw file on their way into the store.

    `rows` counts them by dataset window; `strays` are the windows into which rows outside the file's range fell.
    """

    def __init__(self, file: RawFile, dataset: DatasetSettings) -> None:
        self._file = file
        self._span = dataset.span
        self.strays: set[Window] = set()
        self.rows: Counter[Window] = Counter()

    def canonical_frames(self, quarantine: _Quarantine) -> Iterator[pl.DataFrame]:
        offset = 0
        for batch in self._file.batches():
            canonical = canonicalise(batch, self._file.metadata)
            if canonical.rejected.height:
                quarantine.add(canonical.rejected.with_columns(pl.col("row") + offset))
            offset += batch.num_rows
            self._count(canonical.rows)
            if canonical.rows.height:
                yield canonical.rows

    def _count(self, rows: pl.DataFrame) -> None:
        swept, time = self._file.swept, pl.col("datetime")
        outside = (time < swept.start) | (time >= swept.end)
        every = "1w" if self._span == WEEK else f"{self._span // timedelta(minutes=1)}m"  # weeks begin on Monday
        counted = rows.group_by(time.dt.truncate(every), outside.alias("outside")).len()
        for start, is_outside, count in counted.iter_rows():
            window = Window(start, start + self._span)
            self.rows[window] += count
            if is_outside:
                self.strays.add(window)


class _Quarantine:
    """The rejected rows of one raw partition, written as they come."""

    def __init__(self, draft: Path) -> None:
        self._draft = draft
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0
        self.reasons: Counter[str] = Counter()

    def __enter__(self) -> _Quarantine:
        return self

    def add(self, rejected: pl.DataFrame) -> None:
        table = rejected.to_arrow()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._draft, table.schema, compression="zstd")
        self._writer.write_table(table)
        self.rows += rejected.height
        kind = pl.col("reason").str.replace_all(r": [^;]*", "")
        self.reasons.update(dict(rejected.group_by(kind).len().iter_rows()))

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()


@contextmanager
def written_to(place: str) -> Iterator[None]:
    """Say which file could not be written: a full disk, a folder without permission."""
    try:
        yield
    except OSError as error:
        raise PipelineError(
            f"{place}: cannot be written ({error}); what stood there before is untouched. Make room, or give "
            "permission, and materialise the window again"
        ) from error


def as_found(platform: Platform, latest: BuiltRevision | None) -> Revision | None:
    """The latest revision, with what it was made of; not intact when its file is gone."""
    if latest is None:
        return None
    revision = latest.revision
    made_of = latest.facts.get("made_of")
    return replace(
        revision,
        intact=revision.intact and platform.files.exists(latest.path),
        made_of=None if made_of is None else frozenset(made_of),
        sealed_at=platform.ledger.sealed(revision.dataset, revision.window),
    )


def _write_revision(
    platform: Platform, window: Window, decision: Build, seen: _Seen, now: datetime, dataset: str
) -> Built:
    claims = seen.claims
    _restore(platform, dataset, claims)
    schema = canonical_schema(platform.ledger.metadata_of(claims))
    controlled = qc.controlled(
        platform.config, platform.series, platform.ledger, dataset, window, schema, platform.files.scratch
    )
    provenance = {
        "dataset": dataset,
        "window_start": window.start.isoformat(),
        "window_end": window.end.isoformat(),
        "revision": decision.number,
        "inputs": decision.inputs,
        "ingestions": [claim.id for claim in claims],
        "claims": [_told(claim) for claim in claims],
        "metadata": _readings(platform, claims),
        "coverage": round(coverage(window, decision.missing), 6),
        "gaps": [[gap.start.isoformat(), gap.end.isoformat()] for gap in decision.missing],
        "software": f"ionbeam {__version__}",
        "quality": controlled.provenance,
    }
    with written_to(platform.datasets.path(dataset, window, decision.number)):
        written = platform.datasets.write(
            dataset, window, decision.number, controlled.schema, controlled.batches, provenance
        )
    revision = Revision(dataset, window, decision.number, decision.inputs)
    arrived = platform.ledger.rows_in(dataset, window)
    facts = {
        "rows": written.rows,
        "stations": written.stations,
        "bytes": written.bytes,
        "coverage": provenance["coverage"],
        "gaps": provenance["gaps"],
        "overlaps": [[twice.start.isoformat(), twice.end.isoformat()] for twice in _swept_twice(window, claims)],
        "complete": not decision.missing,
        "duplicates": None if arrived is None else max(0, arrived - written.rows),
        "ingestions": len(claims),
        "flags": controlled.counted(),
        "made_of": provenance["ingestions"],
        "software": provenance["software"],
        "why": _why_built(claims, as_found(platform, seen.latest), decision),
    }
    built = BuiltRevision(revision, written.path, now, facts)
    platform.ledger.record_revision(built, claims)
    return Built(dataset, window, decision, built, built=True)


def _why_built(claims: Sequence[Claim], before: Revision | None, decision: Build) -> str:
    """Why a revision was made: what arrived since the one before it, or what was lost."""
    if before is None:
        return f"the first revision, of {_count(claims)}"
    if before.number == decision.number:
        return f"revision {before.number} was lost, or something that it was made of"
    if before.inputs == decision.inputs:
        return "a person asked for it; nothing arrived since the revision before"
    known = before.made_of or frozenset()
    new = [claim for claim in claims if claim.id not in known]
    gone = len(known - {claim.id for claim in claims})
    shown = ", ".join(f"{claim.source} {claim.swept} with {claim.rows:,} rows" for claim in new[:3])
    more = f" and {len(new) - 3} more" if len(new) > 3 else ""
    arrived = f"{_count(new)} arrived after revision {before.number}: {shown}{more}" if new else ""
    replaced = (
        f"{gone} of revision {before.number} {'were' if gone > 1 else 'was'} replaced or withdrawn" if gone else ""
    )
    return "; ".join(part for part in (arrived, replaced) if part)


def _count(claims: Sequence[Claim]) -> str:
    return f"{len(claims)} ingestion{'s' * (len(claims) != 1)}"


def _told(claim: Claim) -> dict[str, Any]:
    """A claim as a dataset file tells of it, from which a lost ledger is made again: what is the same each time."""
    return {
        "id": claim.id,
        "source": claim.source,
        "start": claim.swept.start.isoformat(),
        "end": claim.swept.end.isoformat(),
        "arrival": claim.arrival,
        "rows": claim.rows,
        "quarantined": claim.quarantined,
        "strays": [[stray.start.isoformat(), stray.end.isoformat()] for stray in claim.stray_windows],
    }


def _readings(platform: Platform, claims: list[Claim]) -> dict[str, Any]:
    """Of each source the latest metadata under which its claims came."""
    latest = {claim.source: claim for claim in claims}
    return {source: platform.ledger.metadata_of([claim])[0].model_dump(mode="json") for source, claim in latest.items()}


def _swept_twice(window: Window, claims: list[Claim]) -> list[Window]:
    """The parts of a window that one source swept more than once."""
    sources = {claim.source for claim in claims}
    return merge(
        twice
        for source in sources
        for twice in overlaps(window, (claim.swept for claim in claims if claim.source == source))
    )


def _raw_keys(sources: tuple[str, ...]) -> str:
    return " and ".join(f"{source}/raw" for source in sources)


def describe(decision: Decision) -> tuple[str, str]:
    """A decision as a state (one word) and a reason (a sentence), for tables and pages."""
    match decision:
        case Build(number, _, missing):
            gaps = f", with {len(missing)} gap(s)" if missing else ""
            return "ready", f"revision {number} can be built{gaps}"
        case Wait(reason):
            return "waiting", reason
        case Unchanged(revision):
            return "built", f"nothing arrived after revision {revision.number}"
        case Sealed(_, reason):
            return "sealed", reason
