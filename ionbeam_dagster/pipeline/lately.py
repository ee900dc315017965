"""What came of a source of late: rows, how much of a day was collected, how late, and since when nothing is new.

Belongs here: what follows from the claims of a source alone, wherever it is told. Does not belong here: stations
(heard.py), what fails or does not answer (agenda), or from when on it is a trouble (health/alerts.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.lateness import usual_lateness
from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.windows import DAY, WEEK, Window, gaps, window_of
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.platform import Platform

_STAGES = "collect", "ingest"


@dataclass(frozen=True, slots=True)
class Lately:
    """What came of a source until now.

    `rows` and `set_aside` are of windows of a day. `is_to_give` says whether it is to give anything in the day that
    ended when its newest window was due. `completeness` is the share of that day that was collected, counted from the
    first window that was ever collected or fails, and without its holes, as `ionbeam gaps` counts (None: nothing was to
    be collected). `collected` is the end of what was collected, empty or not, and `newest` is the end of the newest
    window with a row (None: there is none within the time that was looked at), `silent_for` since when there is none
    newer, and `arrived_at` when rows of whatever time came last. `late` is how late half of it came in a week, `latest`
    19 of 20; None where nothing was measured.
    """

    source: str
    rows: int
    set_aside: int
    is_to_give: bool
    completeness: float | None
    collected: datetime | None
    newest: datetime | None
    silent_for: timedelta
    arrived_at: datetime | None
    late: timedelta | None
    latest: timedelta | None


def lately(platform: Platform, source: SourceSettings, now: datetime, back: timedelta = DAY) -> Lately:
    """What came of a source; where it is silent for longer than `back`, that is told to be as long."""
    first, last = platform.range_of(source)
    until = now if last is None else min(now, last)  # behind its end there is nothing to be silent of
    settled = min(now - source.window_lag - source.window_size, until)
    since = min(settled - DAY, until - max(back, DAY))
    span = platform.dataset(source.dataset).span
    claims = platform.ledger.claims_between(source.dataset, window_of(since, span).start, now)
    claims = [claim for claim in claims if claim.source == source.name]
    of_a_day = [claim for claim in claims if claim.collected.end > now - DAY]
    newest = _newest(platform, claims)
    measured = platform.ledger.lateness(source.name, now - WEEK, now)
    is_over = last is not None and last < now - DAY
    due = Window(max(settled - DAY, first), settled) if settled > first and not is_over else None
    return Lately(
        source.name,
        sum(claim.rows for claim in of_a_day),
        sum(claim.quarantined for claim in of_a_day),
        due is not None,
        _completeness(platform, source, due, until, claims) if due else None,
        max((claim.collected.end for claim in claims), default=None),
        newest,
        timedelta(0) if is_over else max(until - (newest or max(since, first)), timedelta(0)),
        max((claim.arrived_at for claim in claims if claim.rows and claim.arrived_at is not None), default=None),
        usual_lateness(measured, 0.5) if measured else None,
        usual_lateness(measured) if measured else None,
    )


def _completeness(
    platform: Platform, source: SourceSettings, due: Window, until: datetime, claims: Sequence[Claim]
) -> float | None:
    """The share of a day that was collected; what is newer than what was `due` counts as far as it was tried."""
    suspect = set() if source.sent else {claim.id for claim in agenda.from_the_future(platform, source)}
    collected = [claim.collected for claim in claims if claim.id not in suspect]
    attempts = [one for stage in _STAGES for one in platform.ledger.attempts.open(stage, source.name)]
    tried = [*collected, *(one.window for one in attempts if one.failures)]
    noted = platform.ledger.begun(source.name)
    begun = min([*(one.start for one in tried), *([] if noted is None else [noted])], default=due.start)
    end = max([due.end, *(min(one.end, until) for one in tried)])
    start = max(due.start, end - DAY, begun)
    return _share(platform, source, Window(start, end), collected) if start < end else None


def _share(platform: Platform, source: SourceSettings, day: Window, collected: Sequence[Window]) -> float | None:
    if not gaps(day, collected):
        return 1.0  # without a look at where the source has nothing
    holes = agenda.holes(platform, source, day)
    to_collect = day.span - sum((hole.span for hole in holes), timedelta(0))
    lost = sum((gap.span for gap in gaps(day, [*collected, *holes])), timedelta(0))
    return 1.0 - lost / to_collect if to_collect else None


def _newest(platform: Platform, claims: Iterable[Claim]) -> datetime | None:
    """The end of the newest window with a row: a range may be collected, and all its rows be of long ago."""
    newest: datetime | None = None
    for claim in sorted(claims, key=lambda claim: claim.collected.end, reverse=True):
        if newest is not None and claim.collected.end <= newest:
            break
        if not claim.rows:
            continue
        end = claim.collected.end
        if claim.stray_windows and (brought := platform.ledger.rows_by_window(claim.id)):
            end = min(end, max((window.end for window, rows in brought.items() if rows), default=claim.collected.start))
        newest = end if newest is None else max(newest, end)
    return newest
