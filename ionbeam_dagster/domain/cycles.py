"""Analysis cycles of six hours, and which revisions of a dataset's windows belong to the file of one.

Belongs here: the cycles' bounds and `look_at`, the one place that says what a cycle's file is to hold and whether it is
to be made. All of it is pure. Does not belong here: how the file is made (pipeline/cycles.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ionbeam_client.models import format_duration
from ionbeam_dagster.domain.windows import EPOCH, Window, windows_between

CYCLE = timedelta(hours=6)
HALF = CYCLE // 2


def cycle_of(moment: datetime) -> Window:
    """The cycle that holds `moment`: three hours on both sides of an analysis at 00, 06, 12 or 18 UTC."""
    start = EPOCH - HALF + (moment - EPOCH + HALF) // CYCLE * CYCLE
    return Window(start, start + CYCLE)


def cycles_between(start: datetime, end: datetime) -> Iterator[Window]:
    """Every cycle that overlaps [start, end), in order."""
    cycle = cycle_of(start)
    while cycle.start < end:
        yield cycle
        cycle = Window(cycle.end, cycle.end + CYCLE)


def analysis_of(cycle: Window) -> datetime:
    return cycle.start + HALF


def check_nesting(span: timedelta) -> None:
    """Refuse windows of which some would reach beyond their cycle; raises ValueError that says which do not."""
    if HALF % span:
        raise ValueError(f"{format_duration(span)} does not divide three hours; PT5M, PT10M, ..., PT1H and PT3H do")


def windows_in(cycle: Window, span: timedelta, start: datetime, end: datetime | None) -> list[Window]:
    """The windows of a dataset, which begins and ends when it is told, in a cycle."""
    last = cycle.end if end is None else min(cycle.end, end)
    return [window for window in windows_between(cycle.start, last, span) if window.start >= start]


@dataclass(frozen=True, slots=True)
class Numbered:
    """A revision of a window: its number, and when it was built."""

    number: int
    built_at: datetime


@dataclass(frozen=True, slots=True)
class Made:
    """The current file of a cycle: what it holds, the number of the revision of each window.

    `afterwards`: it is of a cycle of which nothing was built until its cut-off. Not `intact`: the file is gone.
    """

    holds: Mapping[Window, int]
    afterwards: bool
    intact: bool


@dataclass(frozen=True, slots=True)
class CycleOutlook:
    """What a cycle's file is to hold, the windows that it lacks, and the later revisions that are kept out (`late`).

    `due`: it is to be made now; `reason` says in a sentence why, or why not.
    """

    holds: Mapping[Window, int]
    lacking: tuple[Window, ...]
    late: Mapping[Window, int]
    afterwards: bool
    due: bool
    reason: str


def look_at(
    cycle: Window,
    windows: Sequence[Window],
    known: Mapping[Window, Sequence[Numbered]],
    made: Made | None,
    now: datetime,
    cut_off: timedelta,
) -> CycleOutlook:
    """What is to be said of a cycle, its `windows`, all their revisions (`known`) and the file that was `made`.

    It waits for its windows until `cut_off` after its end, and takes what was built by then; what is built later is
    late. A cycle of which nothing was built by then was not waited for: a backfill, or down-time. Its file holds the
    latest revisions, whenever they come. Of a file that is gone, a revision that is no longer known is taken in its
    next one.
    """
    closes = cycle.end + cut_off
    latest = {window: known[window][-1].number for window in windows if known.get(window)}
    in_time = {
        window: max(one.number for one in known[window] if one.built_at < closes)
        for window in latest
        if known[window][0].built_at < closes
    }
    if made is not None:  # also what was written again since, because its file was lost
        in_time |= {window: max(number, in_time.get(window, 0)) for window, number in made.holds.items()}
    instead: dict[Window, int] = {}
    if made is not None and not made.intact:
        instead = {window: _next_known(number, known.get(window, ())) for window, number in in_time.items()}
        instead = {window: number for window, number in instead.items() if number != in_time[window]}
        in_time |= instead
    afterwards = made.afterwards if made is not None else not in_time
    holds = latest if afterwards else in_time
    lacking = tuple(window for window in windows if window not in holds)
    late = {window: number for window, number in latest.items() if number != holds.get(window)}
    is_made = made is not None and made.intact and dict(made.holds) == dict(holds)
    due, reason = False, ""
    if now < cycle.end:
        reason = f"the cycle is open until {cycle.end:%Y-%m-%d %H:%M}"
    elif not holds:
        reason = "no window of it is built yet"
    elif is_made:
        reason = f"made of {_count(len(holds), len(windows))}"
    elif lacking and now < closes and not afterwards:
        reason = f"{_count(len(holds), len(windows))} are built; made without the others at {closes:%Y-%m-%d %H:%M}"
    else:
        due, reason = True, f"can be made of {_count(len(holds), len(windows))}"
    if instead and due:
        reason += f"; {len(instead)} of them in a later revision than its file held, as the earlier one is gone"
    if late:
        reason += f"; {len(late)} built after the cut-off ({closes:%Y-%m-%d %H:%M}): late, kept out"
    return CycleOutlook(holds, lacking, late, afterwards, due, reason)


def _next_known(number: int, known: Sequence[Numbered]) -> int:
    """A revision's number, or that of the next one that is known."""
    return next((one.number for one in known if one.number >= number), number)


def _count(number: int, of: int) -> str:
    return f"{number} of {of} windows" if number < of else f"all {of} windows"
