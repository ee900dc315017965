"""Whether a dataset window can be built, on what is known of it.

Belongs here: `decide`, the one place that says whether a dataset window is to be built, and its policy. All of it is
pure: no clock, no disk, no Dagster. Does not belong here: where claims and revisions are kept (stores/ledger).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from ionbeam_client.models import format_duration
from ionbeam_dagster.domain.records import Claim, Revision
from ionbeam_dagster.domain.windows import DAY, Window, gaps, merge

MOST_DEBOUNCES = 6
"""How many times its debounce a window waits at most while ever more arrives."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When the windows of a dataset are built.

    `sources` must all have collected a window before it is complete; `at_door` are those of them of which that says
    when a door listened to them. It is built when `subject_to_change` and
    `lateness` (how long data usually take to come in; `lateness_measured` where that was measured) have both passed
    since its end.
    `allow_incomplete` is ``"never"``, ``"always"`` or the time after a window's end from which it is built with its
    gaps. A window whose claims changed less than `debounce` ago waits, though never longer than MOST_DEBOUNCES times
    that. What arrives `revise_for` after a window's end (None: ever) no longer changes it.
    """

    sources: tuple[str, ...]
    subject_to_change: timedelta = timedelta(0)
    allow_incomplete: Literal["never", "always"] | timedelta = DAY
    revise_for: timedelta | None = None
    lateness: timedelta = timedelta(0)
    lateness_measured: bool = False
    debounce: timedelta = timedelta(0)
    at_door: frozenset[str] = frozenset()

    @property
    def only_at_door(self) -> bool:
        """Whether all that comes into the dataset is heard at a door."""
        return self.at_door.issuperset(self.sources)


@dataclass(frozen=True, slots=True)
class Build:
    """The window is to be built as revision `number`, from the claims whose hash is `inputs`."""

    number: int
    inputs: str
    missing: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """The window is not to be built yet; the answer changes by itself at `until`, or (None) only when data arrive."""

    reason: str
    until: datetime | None = None
    missing: tuple[Window, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The latest revision already holds everything that arrived."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class Sealed:
    """The window is closed for good: the claims `late` arrived afterwards, and are kept and counted, not built."""

    revision: Revision
    reason: str
    late: tuple[Claim, ...] = ()


Decision = Build | Wait | Unchanged | Sealed


def hash_of_inputs(claims: Iterable[Claim]) -> str:
    """One hash for a set of claims, in their order of arrival (a later one wins over an earlier one)."""
    ordered = sorted(claims, key=lambda claim: claim.arrival)
    return hashlib.sha256("\n".join(claim.id for claim in ordered).encode()).hexdigest()


def missing_by_source(window: Window, claims: Sequence[Claim], sources: Iterable[str]) -> dict[str, list[Window]]:
    """For each source, the parts of `window` that it has not collected; sources without a gap are left out."""
    found = {
        source: gaps(window, (claim.collected for claim in claims if claim.source == source))
        for source in sorted(sources)
    }
    return {source: missing for source, missing in found.items() if missing}


def coverage(window: Window, missing: Iterable[Window]) -> float:
    """The share of `window` (0..1) that is not in `missing`."""
    lost = sum((gap.span for gap in merge(missing)), timedelta(0))
    return 1.0 - lost / window.span


def decide(
    window: Window, claims: Sequence[Claim], revision: Revision | None, now: datetime, policy: Policy
) -> Decision:
    """Whether a dataset window is to be built now, and if not, why.

    `claims` are those of the window's dataset that collected a part of it or brought rows into it; `revision` is the
    latest one of the window, if there is any. A window without a revision is never sealed: a backfill of long ago is
    built. What arrived in time is built even when the window has been sealed since.
    """
    inputs = hash_of_inputs(claims)
    if revision and revision.inputs == inputs:
        return Unchanged(revision) if revision.intact else build_regardless(window, claims, revision, policy)
    if not claims:
        if policy.only_at_door:
            return Wait("nothing was heard at the door for this window yet")
        return Wait("nothing has been collected for this window yet")
    if now < window.end:
        return Wait(f"the window is open until {_as_text(window.end)}", until=window.end)
    if revision and (sealed := _sealed(window, claims, revision, now, policy)):
        return sealed
    settled, why = _settles(window, policy)
    if now < settled:
        return Wait(f"{why} until {_as_text(settled)}", until=settled)
    build = build_regardless(window, claims, revision, policy)
    patience = _built_incomplete_from(window, policy)
    if build.missing and (patience is None or now < patience):
        reason = _describe(missing_by_source(window, claims, policy.sources), window, policy.at_door)
        built = "it is never built with gaps" if patience is None else f"built all the same at {_as_text(patience)}"
        return Wait(f"{reason}; {built}", until=patience, missing=build.missing)
    quiet = _quiet_from(claims, revision, settled, policy)
    if now < quiet:
        return Wait(f"more keeps arriving; built at {_as_text(quiet)}, or later if it goes on", until=quiet)
    return build


def build_regardless(window: Window, claims: Sequence[Claim], revision: Revision | None, policy: Policy) -> Build:
    """What to build when a person asks for a window that `decide` would let wait, or calls sealed."""
    inputs = hash_of_inputs(claims)
    lacking = missing_by_source(window, claims, policy.sources)
    missing = tuple(merge(gap for found in lacking.values() for gap in found))
    return Build(_next_number(revision, inputs), inputs, missing)


def _next_number(revision: Revision | None, inputs: str) -> int:
    if revision is None:
        return 1
    return revision.number if revision.inputs == inputs else revision.number + 1


def _sealed(
    window: Window, claims: Sequence[Claim], revision: Revision, now: datetime, policy: Policy
) -> Sealed | None:
    news = _news(claims, revision)
    if revision.sealed_at is not None:
        return Sealed(revision, f"sealed by a person on {_as_text(revision.sealed_at)}{_left_out(news)}", tuple(news))
    if policy.revise_for is None or not revision.inputs or now < window.end + policy.revise_for:
        return None
    sealed_at = window.end + policy.revise_for
    if any(claim.arrived_at is not None and claim.arrived_at < sealed_at for claim in news):
        return None
    return Sealed(revision, f"sealed since {_as_text(sealed_at)}{_left_out(news)}", tuple(news))


def _settles(window: Window, policy: Policy) -> tuple[datetime, str]:
    """When the data of a window are at rest, and what the wait for that is called."""
    if policy.lateness <= policy.subject_to_change:
        return window.end + policy.subject_to_change, "its data may still change"
    usual = f" (95% come within {format_duration(policy.lateness)})" if policy.lateness_measured else ""
    return window.end + policy.lateness, f"data may still be on their way{usual}"


def _news(claims: Sequence[Claim], revision: Revision | None) -> list[Claim]:
    """The claims that a revision does not hold; where that was not noted, none is known to be new."""
    if revision is None:
        return list(claims)
    if revision.made_of is None:
        return []
    return [claim for claim in claims if claim.id not in revision.made_of]


def _quiet_from(claims: Sequence[Claim], revision: Revision | None, settled: datetime, policy: Policy) -> datetime:
    """From when on a window is not kept waiting for more to arrive: a debounce after the last of what is new, but at
    most MOST_DEBOUNCES of them after the first, or after the window settled."""
    arrived = [claim.arrived_at for claim in _news(claims, revision) if claim.arrived_at is not None]
    if not arrived or not policy.debounce:
        return settled
    return min(max(arrived) + policy.debounce, max(min(arrived), settled) + MOST_DEBOUNCES * policy.debounce)


def _built_incomplete_from(window: Window, policy: Policy) -> datetime | None:
    if policy.allow_incomplete == "never":
        return None
    if policy.allow_incomplete == "always":
        return window.end
    return window.end + policy.allow_incomplete


def _as_text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if not moment.second else f"{moment:%Y-%m-%d %H:%M:%S}"


def _left_out(late: Sequence[Claim]) -> str:
    rows = sum(claim.rows for claim in late)
    count = f"{len(late)} ingestion{'s' * (len(late) != 1)} with {rows} rows" if late else "what"
    return f"; {count} arrived later: kept, not built"


def _describe(lacking: dict[str, list[Window]], window: Window, at_door: frozenset[str]) -> str:
    clock = "%H:%M" if window.span <= DAY else "%m-%d %H:%M"

    def one(source: str, missing: list[Window]) -> str:
        shown = ", ".join(f"{gap.start:{clock}}-{gap.end:{clock}}" for gap in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        did_not = f"the door did not listen to {source}" if source in at_door else f"{source} has not collected"
        return f"{did_not} {shown}{more}"

    return "; ".join(one(source, missing) for source, missing in lacking.items())
