"""Windows of time, what was swept of them, and whether one can be built.

Belongs here: interval arithmetic and `decide`, the one place that says whether a dataset window is to be built. All of
it is pure: no clock, no disk, no Dagster. Does not belong here: where claims and revisions are kept (stores/ledger).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from ionbeam_client.models import format_duration

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)
KEY_FORMAT = "%Y%m%dT%H%M%S"
HISTORY = DAY
"""Data that come so late are no late data but a backfill."""
MOST_DEBOUNCES = 6
"""How many times its debounce a window waits at most while ever more arrives."""


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

    def covers(self, other: Window) -> bool:
        return self.start <= other.start and other.end <= self.end

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


def overlaps(window: Window, swept: Iterable[Window]) -> list[Window]:
    """The parts of `window` that more than one of `swept` covers, in order."""
    twice: list[Window] = []
    reached = window.start
    for interval in sorted(swept):
        start, end = max(interval.start, window.start), min(interval.end, window.end)
        if start < min(reached, end):
            twice.append(Window(start, min(reached, end)))
        reached = max(reached, end)
    return merge(twice)


@dataclass(frozen=True, slots=True)
class Claim:
    """A range that one ingestion of one source swept, and what it brought.

    `arrival` counts ingestions in the order in which they were stored, and `arrived_at` is the moment of that (None
    where it was not noted). `stray_windows` are dataset windows outside the swept range into which rows of this
    ingestion fell all the same (late rows).
    """

    id: str
    source: str
    dataset: str
    swept: Window
    arrival: int
    rows: int
    quarantined: int = 0
    stray_windows: tuple[Window, ...] = ()
    arrived_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Revision:
    """What a built window was made of: the ids of its claims (None: not noted) and their hash.

    `intact` is False once a part of it was lost or withdrawn. `sealed_at` is when a person closed the window.
    """

    dataset: str
    window: Window
    number: int
    inputs: str
    intact: bool = True
    made_of: frozenset[str] | None = None
    sealed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Lateness:
    """How many ingestions, of those that arrived in the hour from `hour` on, came so `late` after the end of what they
    swept."""

    hour: datetime
    late: timedelta
    count: int


@dataclass(frozen=True, slots=True)
class Policy:
    """When the windows of a dataset are built.

    `sources` must all have swept a window before it is complete. It is built when `subject_to_change` and `lateness`
    (how long data usually take to come in; `lateness_measured` where that was measured) have both passed since its end.
    `allow_incomplete` is ``"never"``, ``"always"`` or the time after a window's end from which it is built with its
    gaps. A window whose claims changed less than `debounce` ago waits, though never longer than MOST_DEBOUNCES times
    that. What arrives `revise_for` after a window's end (None: ever) changes it no more.
    """

    sources: tuple[str, ...]
    subject_to_change: timedelta = timedelta(0)
    allow_incomplete: Literal["never", "always"] | timedelta = DAY
    revise_for: timedelta | None = None
    lateness: timedelta = timedelta(0)
    lateness_measured: bool = False
    debounce: timedelta = timedelta(0)


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
    """For each source, the parts of `window` that it has not swept; sources without a gap are left out."""
    found = {
        source: gaps(window, (claim.swept for claim in claims if claim.source == source)) for source in sorted(sources)
    }
    return {source: missing for source, missing in found.items() if missing}


def coverage(window: Window, missing: Iterable[Window]) -> float:
    """The share of `window` (0..1) that is not in `missing`."""
    lost = sum((gap.span for gap in merge(missing)), timedelta(0))
    return 1.0 - lost / window.span


def lateness_of(claim: Claim) -> timedelta:
    """How long after the end of what it swept an ingestion arrived, rounded up to two digits of seconds.

    Rounded, so that a week of any number of ingestions is told in few `Lateness`.
    """
    if claim.arrived_at is None or claim.arrived_at <= claim.swept.end:
        return timedelta(0)
    seconds = math.ceil((claim.arrived_at - claim.swept.end).total_seconds())
    unit = 10 ** max(0, len(str(seconds)) - 2)
    return timedelta(seconds=-(-seconds // unit) * unit)


def usual_lateness(measured: Iterable[Lateness], share: float = 0.95) -> timedelta:
    """The lateness that `share` of the ingestions do not exceed; none where nothing was measured.

    Every hour of arrival weighs the same, so that a backfill, which brings much of long ago at once, is not taken for
    the way in which data usually arrive. What is more than HISTORY late is a backfill for certain, and left out.
    """
    live = [one for one in measured if one.late <= HISTORY]
    an_hour: Counter[datetime] = Counter()
    for one in live:
        an_hour[one.hour] += one.count
    reached = 0.0
    late = timedelta(0)
    for one in sorted(live, key=lambda one: one.late):
        if reached >= share * len(an_hour) - 1e-9:
            break
        late, reached = one.late, reached + one.count / an_hour[one.hour]
    return late


def decide(
    window: Window, claims: Sequence[Claim], revision: Revision | None, now: datetime, policy: Policy
) -> Decision:
    """Whether a dataset window is to be built now, and if not, why.

    `claims` are those of the window's dataset that sweep a part of it or brought rows into it; `revision` is the latest
    one of the window, if there is any. A window without a revision is never sealed: a backfill of long ago is built.
    What arrived in time is built even when the window has been sealed since.
    """
    inputs = hash_of_inputs(claims)
    if revision and revision.inputs == inputs:
        return Unchanged(revision) if revision.intact else build_regardless(window, claims, revision, policy)
    if not claims:
        return Wait("nothing has been collected for this window yet")
    if now < window.end:
        return Wait(f"the window is open until {_told(window.end)}", until=window.end)
    if revision and (sealed := _sealed(window, claims, revision, now, policy)):
        return sealed
    settled, why = _settles(window, policy)
    if now < settled:
        return Wait(f"{why} until {_told(settled)}", until=settled)
    build = build_regardless(window, claims, revision, policy)
    patience = _built_incomplete_from(window, policy)
    if build.missing and (patience is None or now < patience):
        reason = _describe(missing_by_source(window, claims, policy.sources), window)
        built = "it is never built with gaps" if patience is None else f"built all the same at {_told(patience)}"
        return Wait(f"{reason}; {built}", until=patience, missing=build.missing)
    quiet = _quiet_from(claims, revision, settled, policy)
    if now < quiet:
        return Wait(f"more keeps arriving; built at {_told(quiet)}, or later if it goes on", until=quiet)
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
        return Sealed(revision, f"sealed by a person on {_told(revision.sealed_at)}{_left_out(news)}", tuple(news))
    if policy.revise_for is None or now < window.end + policy.revise_for:
        return None
    sealed_at = window.end + policy.revise_for
    if any(claim.arrived_at is not None and claim.arrived_at < sealed_at for claim in news):
        return None
    return Sealed(revision, f"sealed since {_told(sealed_at)}{_left_out(news)}", tuple(news))


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


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if not moment.second else f"{moment:%Y-%m-%d %H:%M:%S}"


def _left_out(late: Sequence[Claim]) -> str:
    rows = sum(claim.rows for claim in late)
    count = f"{len(late)} ingestion{'s' * (len(late) != 1)} with {rows} rows" if late else "what"
    return f"; {count} arrived later: kept, not built"


def _describe(lacking: dict[str, list[Window]], window: Window) -> str:
    clock = "%H:%M" if window.span <= DAY else "%m-%d %H:%M"

    def one(source: str, missing: list[Window]) -> str:
        shown = ", ".join(f"{gap.start:{clock}}-{gap.end:{clock}}" for gap in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return f"{source} has not collected {shown}{more}"

    return "; ".join(one(source, missing) for source, missing in lacking.items())
