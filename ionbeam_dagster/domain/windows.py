"""Windows of time, what was swept of them, and whether one can be built.

Belongs here: interval arithmetic and `decide`, the one place that says whether a dataset window is to be built. All of
it is pure: no clock, no disk, no Dagster. Does not belong here: where claims and revisions are kept (stores/ledger).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from ionbeam_client.models import format_duration

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)
KEY_FORMAT = "%Y%m%dT%H%M%S"


@dataclass(frozen=True, order=True, slots=True)
class Window:
    """The half-open range [start, end), in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError(f"a window must end after it starts: {self.start} .. {self.end}")

    @property
    def span(self) -> timedelta:
        return self.end - self.start

    @property
    def key(self) -> str:
        """The start as ``YYYYmmddTHHMMSS``: partition key and part of file names, sorted as time is."""
        return self.start.strftime(KEY_FORMAT)

    @property
    def label(self) -> str:
        """``<key>_<span>``, as it stands in file names."""
        return f"{self.key}_{format_duration(self.span)}"

    def overlaps(self, other: Window) -> bool:
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M}-{self.end:%H:%M}" if self.span < DAY else f"{self.start:%Y-%m-%d %H:%M}"


def check_span(span: timedelta) -> None:
    """Refuse a span that cannot be a partition: it must divide an hour, a day, or be a day or a week.

    Raises ValueError that names the spans that would do.
    """
    if span <= timedelta(0) or span % timedelta(minutes=1):
        fits = False
    elif span <= HOUR:
        fits = HOUR % span == timedelta(0)
    else:
        fits = span == WEEK or (span % HOUR == timedelta(0) and DAY % span == timedelta(0))
    if not fits:
        raise ValueError(
            f"{format_duration(span)} cannot be a partition; use whole minutes that divide an hour (PT5M, PT10M, "
            "PT15M, ...), whole hours that divide a day (PT1H, PT3H, PT6H, ...), P1D or P7D"
        )


def window_of(moment: datetime, span: timedelta) -> Window:
    """The window of `span` that holds `moment`: aligned to the Unix epoch, weeks to Monday."""
    origin = MONDAY if span == WEEK else EPOCH
    start = origin + (moment - origin) // span * span
    return Window(start, start + span)


def windows_between(start: datetime, end: datetime, span: timedelta) -> Iterator[Window]:
    """Every window of `span` that overlaps [start, end), in order."""
    window = window_of(start, span)
    while window.start < end:
        yield window
        window = Window(window.end, window.end + span)


def window_from_key(key: str, span: timedelta) -> Window:
    """The window whose partition key is `key`; raises ValueError when the key is none."""
    start = datetime.strptime(key, KEY_FORMAT).replace(tzinfo=UTC)
    return Window(start, start + span)


def merge(intervals: Iterable[Window]) -> list[Window]:
    """The union of `intervals`: sorted, disjoint, with touching ones joined."""
    merged: list[Window] = []
    for interval in sorted(intervals):
        if merged and interval.start <= merged[-1].end:
            merged[-1] = Window(merged[-1].start, max(merged[-1].end, interval.end))
        else:
            merged.append(interval)
    return merged


def gaps(window: Window, swept: Iterable[Window]) -> list[Window]:
    """The parts of `window` that none of `swept` covers, in order."""
    missing: list[Window] = []
    reached = window.start
    for interval in merge(swept):
        if interval.end <= window.start:
            continue
        if interval.start >= window.end:
            break
        if interval.start > reached:
            missing.append(Window(reached, interval.start))
        reached = max(reached, interval.end)
    if reached < window.end:
        missing.append(Window(reached, window.end))
    return missing


@dataclass(frozen=True, slots=True)
class Claim:
    """A range that one ingestion of one source swept, and what it brought.

    `arrival` counts ingestions in the order in which they were stored. `stray_windows` are dataset windows outside the
    swept range into which rows of this ingestion fell all the same (late rows).
    """

    id: str
    source: str
    dataset: str
    swept: Window
    arrival: int
    rows: int
    quarantined: int = 0
    stray_windows: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class Revision:
    """What a built window was made of. `intact` is False once a part of it was lost or withdrawn."""

    dataset: str
    window: Window
    number: int
    inputs: str
    intact: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """When the windows of a dataset are built.

    `sources` must all have swept a window before it is complete. `allow_incomplete` is ``"never"``, ``"always"`` or the
    time after a window's end from which it is built with its gaps. After `revise_for` (None: for ever) late data
    changes a window no more.
    """

    sources: tuple[str, ...]
    subject_to_change: timedelta = timedelta(0)
    allow_incomplete: Literal["never", "always"] | timedelta = DAY
    revise_for: timedelta | None = None


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
    """Data arrived after the window was closed for good: kept and counted, not built."""

    revision: Revision
    reason: str


Decision = Build | Wait | Unchanged | Sealed


def hash_of_inputs(claims: Iterable[Claim]) -> str:
    """One hash for a set of claims, in their order of arrival (a later one wins over an earlier one)."""
    ordered = sorted(claims, key=lambda claim: claim.arrival)
    return hashlib.sha256("\n".join(claim.id for claim in ordered).encode()).hexdigest()


def missing_by_source(window: Window, claims: Sequence[Claim], sources: Iterable[str]) -> dict[str, list[Window]]:
    """For each source, the parts of `window` that it has not swept; sources without a gap are left out."""
    found = {
        source: gaps(window, (claim.swept for claim in claims if claim.source == source)) for source in sorted(sources)
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

    `claims` are those of the window's dataset that sweep a part of it or brought rows into it; `revision` is the latest
    one of the window, if there is any.
    """
    inputs = hash_of_inputs(claims)
    if revision and revision.intact and revision.inputs == inputs:
        return Unchanged(revision)
    if not claims:
        return Wait("nothing has been collected for this window yet")
    if now < window.end:
        return Wait(f"the window is open until {window.end:%Y-%m-%d %H:%M}", until=window.end)
    if revision and policy.revise_for is not None and now >= window.end + policy.revise_for:
        sealed_at = window.end + policy.revise_for
        return Sealed(revision, f"sealed since {sealed_at:%Y-%m-%d %H:%M}; what arrived later is kept, not built")
    settled = window.end + policy.subject_to_change
    if now < settled:
        return Wait(f"its data may still change until {settled:%Y-%m-%d %H:%M}", until=settled)
    lacking = missing_by_source(window, claims, policy.sources)
    missing = tuple(merge(gap for found in lacking.values() for gap in found))
    patience = _built_incomplete_from(window, policy)
    if missing and (patience is None or now < patience):
        return Wait(_describe(lacking), until=patience, missing=missing)
    return Build(_next_number(revision, inputs), inputs, missing)


def build_regardless(window: Window, claims: Sequence[Claim], revision: Revision | None, policy: Policy) -> Build:
    """What to build when a person asks for a window that `decide` would let wait."""
    inputs = hash_of_inputs(claims)
    lacking = missing_by_source(window, claims, policy.sources)
    missing = tuple(merge(gap for found in lacking.values() for gap in found))
    return Build(_next_number(revision, inputs), inputs, missing)


def _next_number(revision: Revision | None, inputs: str) -> int:
    if revision is None:
        return 1
    return revision.number if revision.inputs == inputs else revision.number + 1


def _built_incomplete_from(window: Window, policy: Policy) -> datetime | None:
    if policy.allow_incomplete == "never":
        return None
    if policy.allow_incomplete == "always":
        return window.end
    return window.end + policy.allow_incomplete


def _describe(lacking: dict[str, list[Window]]) -> str:
    def one(source: str, missing: list[Window]) -> str:
        shown = ", ".join(f"{gap.start:%H:%M}-{gap.end:%H:%M}" for gap in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return f"{source} has not collected {shown}{more}"

    return "; ".join(one(source, missing) for source, missing in lacking.items())
