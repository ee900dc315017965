"""What waits or is parked at the HTTP door, for those who look.

Belongs here: the facts in sentences, each with what to do. Does not belong here: how they are shown (cli, the UI).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ionbeam_client.text import visible
from ionbeam_dagster.doors.http.flush import door_sources
from ionbeam_dagster.doors.http.memory import Memory, door_folder
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.pipeline.platform import Platform

_NAME, _REASON = 60, 400  # characters that are shown


def door_status(platform: Platform, sources: Collection[str] | None = None, limit: int = 10) -> list[str]:
    """What a person should know of the door, of all sources or some; nothing where nobody writes them to it."""
    folder = door_folder(platform)
    if not folder.exists() or (sources is not None and not door_sources(platform).keys() & set(sources)):
        return []
    try:
        memory = Memory(folder)
    except StoreError as error:
        return [str(error)]
    asked = None if sources is None else {"", *sources}
    parked = [one for one in memory.parked() if asked is None or one.source in asked]
    aside = [one for one in memory.set_aside() if asked is None or one.source in asked]
    journal = folder / "journal"
    waiting = sum(map(_size, journal.glob("*.journal")))
    told = [f"{waiting / 1e6:.1f} MB in the journal; {sum(one.lines for one in parked):,} lines parked"]
    told += [visible(one.in_words(), _REASON) for one in aside[:limit]]
    if len(aside) > limit:
        told.append(f"{len(aside) - limit} further portions stay in the journal {journal}")
    told += [
        f"{one.source}: {one.lines:,} lines of {one.measurement[:_NAME]!r} are parked, the last at "
        f"{one.last:%Y-%m-%d %H:%M}: {visible(one.reason, _REASON)} ({one.remedy})"
        for one in parked[:limit]
    ]
    if len(parked) > limit:
        lines = sum(one.lines for one in parked[limit:])
        told.append(f"and {len(parked) - limit} more reasons, of {lines:,} lines; all are in {folder / 'parked'}")
    refused = [one for one in memory.refused() if asked is None or one.source in asked]
    told += [f"{visible(one.in_words(), _REASON)} ({one.remedy})" for one in refused[:limit]]
    anew = [one for one in memory.began_anew() if asked is None or one.source in asked]
    told += [one.in_words() for one in anew[:limit]]
    if len(anew) > limit:
        told.append(f"and {len(anew) - limit} more began to count their readings anew this week")
    told += [
        f"{source}: of {readings:,} readings the value alone was taken, not their extra_data or data"
        for source, readings in memory.without_more()
        if asked is None or source in asked
    ]
    return told


def _size(path: Path) -> int:
    """Bytes of a file of the journal; the door may just have taken it in."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
