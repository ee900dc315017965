"""What waits or is parked at the HTTP door, for those who look.

Belongs here: the facts in sentences, each with what to do. Does not belong here: how they are shown (cli, the UI).
"""

from __future__ import annotations

from ionbeam_dagster.doors.http.flush import door_sources
from ionbeam_dagster.doors.http.lines import shown_text
from ionbeam_dagster.doors.http.memory import Memory, door_folder
from ionbeam_dagster.pipeline.platform import Platform

_SAMPLE = 60


def door_status(platform: Platform, limit: int = 10) -> list[str]:
    """What a person should know of the door; nothing where nobody writes to it."""
    folder = door_folder(platform)
    if not door_sources(platform) and not folder.exists():
        return []
    memory = Memory(folder)
    parked = memory.parked()
    journal = folder / "journal"
    waiting = sum(path.stat().st_size for path in journal.glob("*.journal")) if journal.exists() else 0
    told = [f"{waiting / 1e6:.1f} MB in the journal; {sum(one.lines for one in parked):,} lines parked"]
    told += [one.in_words() for one in memory.set_aside()[:limit]]
    told += [
        f"{one.source}: {one.lines:,} lines of {shown_text(one.measurement)[:_SAMPLE]!r} are parked, the last at "
        f"{one.last:%Y-%m-%d %H:%M}: {one.reason} (`ionbeam source accept {one.source}`)"
        for one in parked[:limit]
    ]
    if len(parked) > limit:
        told.append(f"{len(parked) - limit} further reasons are not shown; all lines are in {folder / 'parked'}")
    told += [
        f"{source}: of {readings:,} readings the value alone was taken, not their extra_data or data"
        for source, readings in memory.without_more()
    ]
    return told
