"""What retention may remove of the HTTP door: lines that were parked and that nobody accepted.

Belongs here: the rule. Does not belong here: the purge that follows it (pipeline/retention.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from ionbeam_dagster.doors.http.memory import Memory, door_folder
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.retention import KINDS, Purgeable, old_file


def door_leftovers(platform: Platform, now: datetime) -> Iterator[Purgeable]:
    """Parked lines that are as old as the quarantine may become; of one source, what is told of them goes with the
    last file."""
    age, folder = platform.config.sections.retention.quarantine, door_folder(platform)
    if age is None or not folder.exists():
        return
    memory = Memory(folder)
    for path in sorted((folder / "parked").rglob("*.parquet")):
        source = path.parent.name
        for one in old_file(KINDS[3], source, path, now - age, "it is old"):
            remove = partial(_remove, memory, source, path)
            yield Purgeable(one.kind, one.of, one.what, one.bytes, one.why, remove)


def _remove(memory: Memory, source: str, path: Path) -> None:
    path.unlink(missing_ok=True)
    if not any(path.parent.glob("*.parquet")):
        memory.forget_parked(source)
