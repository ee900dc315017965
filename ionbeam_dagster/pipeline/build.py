"""Build: the points of a dataset window into its next revision.

Belongs here: what `decide` is told of a window, and the writing of a revision with what it was made of. Does not belong
here: the policy (domain/decisions.py), or what quality control finds (quality_control.py).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster import __version__
from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain import canonical, quality
from ionbeam_dagster.domain.canonical import canonical_schema
from ionbeam_dagster.domain.decisions import (
    Build,
    Decision,
    Policy,
    Sealed,
    Unchanged,
    Wait,
    build_regardless,
    coverage,
    decide,
)
from ionbeam_dagster.domain.quality.chain import LOOK_BACK
from ionbeam_dagster.domain.records import BuiltRevision, Claim, Provenance, Revision, RevisionFacts
from ionbeam_dagster.domain.windows import Window, merge, overlaps, windows_between
from ionbeam_dagster.errors import LostPoints, PipelineError
from ionbeam_dagster.pipeline import damage
from ionbeam_dagster.pipeline import quality_control as qc
from ionbeam_dagster.pipeline.ingest import restore
from ionbeam_dagster.pipeline.platform import Platform, written_to
from ionbeam_dagster.pipeline.station_columns import DescribedPoints, fingerprint

log = logging.getLogger(__name__)

MOST_LOST = 20
"""Damaged files of the time-series store that one build restores; it finds one at a time."""


@dataclass(frozen=True, slots=True)
class Built:
    """The decision on a window, and its latest revision, which was made just now if `built`."""

    dataset: str
    window: Window
    decision: Decision
    revision: BuiltRevision | None
    built: bool


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the ledger knew of a dataset window, and what follows from it."""

    decision: Decision
    claims: list[Claim]
    latest: BuiltRevision | None
    policy: Policy


def assessment_of(platform: Platform, dataset: DatasetSettings, window: Window, now: datetime) -> Assessment:
    """What the ledger knows of a dataset window now, and what `decide` says of that."""
    policy = platform.policy(dataset, now)
    claims = platform.ledger.claims(dataset.name, window)
    latest = platform.ledger.latest_revision(dataset.name, window)
    return Assessment(decide(window, claims, as_found(platform, latest), now, policy), claims, latest, policy)


def build(
    platform: Platform,
    dataset: DatasetSettings,
    window: Window,
    now: datetime,
    insist: bool = False,
    force: bool = False,
) -> Built:
    """Write the next revision of a dataset window, if `decide` says so.

    With `insist`, as a person asks for it, a window that might wait is built from what there is; one that is sealed is
    not. With `force` the next revision is written also of a window that is sealed or unchanged. Raises PipelineError
    when a person asks for a window of which nothing was collected, or whose observations are gone.
    """
    platform.check_span(dataset)
    with platform.ledger.holding(dataset.name, window):
        return _build(platform, dataset, window, now, insist, force)


def _build(
    platform: Platform, dataset: DatasetSettings, window: Window, now: datetime, insist: bool, force: bool
) -> Built:
    assessment = assessment_of(platform, dataset, window, now)
    decision = assessment.decision
    if force or (insist and isinstance(decision, Wait)):
        if not assessment.claims:
            if assessment.policy.only_at_door:
                reason, remedy = "nothing was heard at the door", "let its clients write what they still have of it"
            else:
                reason, remedy = (
                    "nothing has been collected",
                    f"materialise {_raw_keys(assessment.policy.sources)} first",
                )
            raise PipelineError(f"{dataset.name} {window}: {reason} for this window yet; {remedy}")
        decision = build_regardless(window, assessment.claims, as_found(platform, assessment.latest), assessment.policy)
        if force and assessment.latest:
            decision = replace(decision, number=assessment.latest.revision.number + 1)
    if isinstance(decision, Build):
        for _ in range(MOST_LOST):
            with suppress(LostPoints):
                return _write_revision(platform, dataset, window, decision, assessment, now)
        return _write_revision(platform, dataset, window, decision, assessment, now)
    latest = assessment.latest
    if insist and latest is not None and damage.is_damaged(platform, latest.path, latest.facts.hash):
        fault = "it does not hold what was written: the disk, or somebody, changed it"
        if isinstance(decision, Sealed):
            again = f"`ionbeam rebuild {dataset.name} --force {window.as_options}` builds it of what is there"
            sealed = "its window is sealed, and what it was made of changed since"
            raise PipelineError(f"{latest.path}: {fault}; {sealed}: {again}")
        log.warning("%s", damage.set_aside(platform, latest.path, fault, "it is made again"))
        return _build(platform, dataset, window, now, insist, force)
    return Built(dataset.name, window, decision, latest, built=False)


def as_found(platform: Platform, latest: BuiltRevision | None) -> Revision | None:
    """The latest revision, with what it was made of; not intact when its file is gone, or of another size."""
    if latest is None:
        return None
    revision = latest.revision
    made_of = latest.facts.made_of
    return replace(
        revision,
        intact=revision.intact and is_whole(platform, latest),
        made_of=None if made_of is None else frozenset(made_of),
        sealed_at=platform.ledger.sealed(revision.dataset, revision.window),
    )


def is_whole(platform: Platform, latest: BuiltRevision) -> bool:
    """Whether the file of a revision is there, and of the size that the ledger remembers, if it does."""
    found = platform.files.found(latest.path)
    return found is not None and found.size == (latest.facts.bytes or found.size)


def _write_revision(
    platform: Platform, dataset: DatasetSettings, window: Window, decision: Build, assessment: Assessment, now: datetime
) -> Built:
    claims, made = assessment.claims, made_by(platform, dataset)
    damaged = _damaged_around(platform, window)
    restore(platform, dataset, claims)
    if damaged:
        _restore_around(platform, window)
    points = DescribedPoints(platform, dataset)
    schema = points.schema(canonical_schema(platform.ledger.metadata_of(claims)))
    others = [other for name, other in sorted(platform.config.datasets.items()) if name != dataset.name]
    controlled = qc.controlled(points, platform.ledger, dataset, others, window, schema, platform.files.scratch)
    provenance = Provenance(
        dataset=dataset.name,
        window=window,
        number=decision.number,
        inputs=decision.inputs,
        ingestions=tuple(claim.id for claim in claims),
        claims=tuple(claims),
        metadata=_readings(platform, claims),
        coverage=round(coverage(window, decision.missing), 6),
        gaps=decision.missing,
        software=f"ionbeam {__version__}",
        quality=controlled.compared,
    )
    with written_to(platform.datasets.path(dataset.name, window, decision.number)):
        written = platform.datasets.write(controlled.schema, controlled.batches, provenance)
    if _damaged_around(platform, window) != damaged:
        raise LostPoints(f"{dataset.name} {window}: a part of what it is made of was damaged meanwhile; try again")
    revision = Revision(dataset.name, window, decision.number, decision.inputs)
    arrived = platform.ledger.rows_in(dataset.name, window)
    facts = RevisionFacts(
        rows=written.rows,
        stations=written.stations,
        bytes=written.bytes,
        coverage=provenance.coverage,
        gaps=provenance.gaps,
        overlaps=tuple(_collected_twice(window, claims)),
        duplicates=None if arrived is None else max(0, arrived - written.rows),
        ingestions=len(claims),
        flags=controlled.counted(),
        made_of=provenance.ingestions,
        software=provenance.software,
        why=_why_built(claims, as_found(platform, assessment.latest), decision),
        made_by=made,
        hash=written.hash,
    )
    built = BuiltRevision(revision, written.path, now, facts)
    platform.ledger.record_revision(built, claims)
    return Built(dataset.name, window, decision, built, built=True)


def _damaged_around(platform: Platform, window: Window) -> frozenset[str]:
    """What was set aside of all that the quality control of a window reads."""
    read = Window(window.start - LOOK_BACK, window.end)
    return frozenset().union(*(platform.series.damaged(dataset, read) for dataset in platform.config.datasets))


def _restore_around(platform: Platform, window: Window) -> None:
    """Ingest again what the store lost of all that the quality control of a window reads, as far as it can be."""
    for dataset in platform.config.datasets.values():
        for one in windows_between(window.start - LOOK_BACK, window.end, dataset.span):
            for claim in platform.ledger.claims(dataset.name, one):
                try:
                    restore(platform, dataset, [claim])
                except PipelineError as error:
                    log.warning("%s", error)


def made_by(platform: Platform, dataset: DatasetSettings) -> str:
    """A short hash of what makes a dataset's rows of its raw partitions: its code, and what is told of stations."""
    code, told = code_version(dataset), fingerprint(platform, dataset)
    return sha256(f"{code} {told}".encode()).hexdigest()[:12] if told else code


def code_version(dataset: DatasetSettings) -> str:
    """A short hash of the canonical mapping and the quality plan of a dataset."""
    limits = sorted(dataset.limits.items())
    return sha256(repr((canonical.VERSION, quality.VERSION, limits)).encode()).hexdigest()[:12]


def _why_built(claims: Sequence[Claim], before: Revision | None, decision: Build) -> str:
    """Why a revision was made: what arrived since the one before it, or what was lost."""
    if before is None:
        return f"the first revision, of {_count(claims)}"
    if before.number == decision.number or not before.inputs:
        return f"revision {before.number} was lost, or something that it was made of"
    if before.inputs == decision.inputs:
        return "a person asked for it; nothing arrived since the revision before"
    known = before.made_of or frozenset()
    new = [claim for claim in claims if claim.id not in known]
    gone = len(known - {claim.id for claim in claims})
    shown = ", ".join(f"{claim.source} {claim.collected} with {claim.rows:,} rows" for claim in new[:3])
    more = f" and {len(new) - 3} more" if len(new) > 3 else ""
    arrived = f"{_count(new)} arrived after revision {before.number}: {shown}{more}" if new else ""
    replaced = (
        f"{gone} of revision {before.number} {'were' if gone > 1 else 'was'} replaced or withdrawn" if gone else ""
    )
    return "; ".join(part for part in (arrived, replaced) if part)


def _count(claims: Sequence[Claim]) -> str:
    return f"{len(claims)} ingestion{'s' * (len(claims) != 1)}"


def _readings(platform: Platform, claims: list[Claim]) -> dict[str, IngestionMetadata]:
    """Of each source the latest metadata under which its claims came."""
    latest = {claim.source: claim for claim in claims}
    return {source: platform.ledger.metadata_of([claim])[0] for source, claim in latest.items()}


def _collected_twice(window: Window, claims: list[Claim]) -> list[Window]:
    """The parts of a window that one source collected more than once."""
    sources = {claim.source for claim in claims}
    return merge(
        twice
        for source in sources
        for twice in overlaps(window, (claim.collected for claim in claims if claim.source == source))
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
