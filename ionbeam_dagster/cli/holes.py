"""Where a source has nothing, so that no window is made: what `run`, `gaps` and `status` say of it.

Belongs here: the line about it. Does not belong here: which stretches these are (the agenda).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from ionbeam_dagster.domain.windows import Window

if TYPE_CHECKING:
    from ionbeam_dagster.pipeline.platform import Platform


def nothing_there(platform: Platform, source: str, range: Window) -> Iterator[str]:
    """A line about the stretches of `range` in which a source has nothing."""
    from ionbeam_dagster.pipeline.agenda import holes

    found = holes(platform, platform.source(source), range)
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
