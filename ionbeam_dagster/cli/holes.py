"""Where a source has nothing, so that no window is made: what the commands that take a range say of it.

Belongs here: the lines about it. Does not belong here: which stretches these are (the agenda).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ionbeam_dagster.domain.windows import Window, window_of

if TYPE_CHECKING:
    from ionbeam_dagster.pipeline.platform import Platform


def nothing_there(platform: Platform, source: str, range: Window) -> Iterator[str]:
    """A line about the stretches of `range` in which a source has nothing."""
    from ionbeam_dagster.pipeline.agenda import holes

    return told_of_holes(source, holes(platform, platform.source(source), range))


def told_of_holes(source: str, found: Sequence[Window]) -> Iterator[str]:
    """The same of stretches that are known."""
    if not found:
        return
    longest = max(found, key=lambda hole: hole.span)
    when = f"from {longest.start:%Y-%m-%d %H:%M} to {longest.end:%Y-%m-%d %H:%M}"
    if len(found) == 1:
        where = f"{when} ({longest.span // timedelta(days=1):,} days)"
    else:
        days = sum((hole.span for hole in found), timedelta()) // timedelta(days=1)
        where = f"in {len(found):,} stretches, {days:,} days together, the longest {when}"
    yield f"{source}: has nothing {where}: no windows are made of that time"


def all_out_of_time(
    platform: Platform, sources: Iterable[str], start: datetime | None, end: datetime | None
) -> list[str]:
    """The lines of `out_of_time`, where none of `sources` has a window in [start, end); else nothing."""
    lines = [out_of_time(platform, source, start, end) for source in sources]
    return [line for line in lines if line is not None] if all(lines) else []


def out_of_time(platform: Platform, source: str, start: datetime | None, end: datetime | None) -> str | None:
    """A line that says why a source has no window at all in [start, end): it ends before the first, or begins later
    than the last. None where it may have one."""
    from ionbeam_dagster.orchestration.partitions import collects_open_window

    settings, now = platform.source(source), platform.now()
    first = window_of(settings.start, platform.dataset(settings.dataset).span).start
    if end is not None and end <= first:
        return (
            f"{source}: this range ends before the start of {source}, {first:%Y-%m-%d %H:%M}; an earlier "
            f"sources.{source}.start takes it in"
        )
    if start is None:
        return None
    if settings.end is not None and start >= settings.end:
        return (
            f"{source}: this range begins after the end of {source}, {settings.end:%Y-%m-%d %H:%M}; a later "
            f"sources.{source}.end takes it in"
        )
    if start > now:
        return f"{source}: this range has not begun yet; `ionbeam dev` collects it as it comes"
    open_window = window_of(now, settings.window_size)
    if start >= open_window.start and not collects_open_window(settings):
        return (
            f"{source}: no window of this range has ended yet; the first one does at {open_window.end:%Y-%m-%d %H:%M}, "
            "and `ionbeam dev` collects it then"
        )
    return None
