"""Which dataset windows are to be built.

Belongs here: what `decide` says of a window on what the ledger knows, and whether its revision is outdated. Does not
belong here: the policy (domain/decisions.py), or the building (pipeline/build.py).
"""

from __future__ import annotations

from datetime import datetime

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.decisions import Build, Decision, Unchanged, Wait
from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.pipeline.agenda.work import Work
from ionbeam_dagster.pipeline.build import assessment_of, made_by
from ionbeam_dagster.pipeline.ingest import is_purged
from ionbeam_dagster.pipeline.platform import Platform

_MOST_LOOKED_AT = 300


def assess(platform: Platform, dataset: DatasetSettings, window: Window, now: datetime) -> Decision:
    """What `decide` says of a dataset window, on what the ledger knows of it."""
    return assessment_of(platform, dataset, window, now).decision


def assess_due(platform: Platform, dataset: DatasetSettings, window: Window, now: datetime) -> Decision:
    """The same of a window that the ledger calls due; where the answer is not to build it, the ledger is told for how
    long it holds, so that nobody asks again before it can be another one."""
    assessment = assessment_of(platform, dataset, window, now)
    if not isinstance(assessment.decision, Build):
        until = assessment.decision.until if isinstance(assessment.decision, Wait) else None
        platform.ledger.postpone(dataset.name, window, assessment.claims, until)
    return assessment.decision


def outlook(platform: Platform, claim: Claim, now: datetime) -> dict[Window, Decision]:
    """What is to be said of the dataset windows that a claim touches: of the newest, where they are very many."""
    dataset, touched = platform.dataset(claim.dataset), platform.touched(claim)
    return {window: assess(platform, dataset, window, now) for window in touched[-_MOST_LOOKED_AT:]}


def to_build(
    platform: Platform, of: str, window: Window, now: datetime, insist: bool = False, renew: bool = False
) -> Work | None:
    """The next revision of a dataset window, if one can and should be built now.

    With `insist`, as a person asks for it, also of a window that would wait although something was collected; with
    `renew` also of one whose latest revision is outdated.
    """
    dataset = platform.dataset(of)
    decision = assess(platform, dataset, window, now)
    if isinstance(decision, Build):
        return None if is_of_purged_rows(platform, dataset, window, decision) else building(of, window, decision)
    if insist and isinstance(decision, Wait) and platform.ledger.claims(of, window):
        return Work("build", of, window, "", decision.reason)
    if renew and isinstance(decision, Unchanged) and is_outdated(platform, dataset, window):
        token = f"r{decision.revision.number + 1} {made_by(platform, dataset)}"
        return Work("build", of, window, token, "an older quality plan or mapping made it")
    return None


def is_of_purged_rows(platform: Platform, dataset: DatasetSettings, window: Window, decision: Build) -> bool:
    """Whether the revision to be built is one that was lost, and of rows that retention removed wherever they were."""
    latest = platform.ledger.latest_revision(dataset.name, window)
    if latest is None or latest.revision.inputs != decision.inputs:
        return False
    return is_purged(platform, dataset, platform.ledger.claims(dataset.name, window))


def is_outdated(platform: Platform, dataset: DatasetSettings, window: Window) -> bool:
    """Whether another quality plan or mapping than today's made the latest revision of a window that nobody sealed.

    Not, while it cannot be read what is told of stations: then it cannot be known, and a build says why.
    """
    latest = platform.ledger.latest_revision(dataset.name, window)
    if latest is None:
        return False
    try:
        if latest.facts.made_by in ("", made_by(platform, dataset)):
            return False
    except (StoreError, OSError):
        return False
    return platform.ledger.sealed(dataset.name, window) is None


def building(of: str, window: Window, decision: Build) -> Work:
    token = f"r{decision.number} {decision.inputs}"
    return Work("build", of, window, token, f"revision {decision.number} can be built")
