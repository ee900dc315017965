"""What is known of one file, and what several of them tell side by side.

Belongs here: files as they were when they were looked at, what changed since, and what two of them both hold. Does not
belong here: looking at them, and remembering what was seen (index.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from ionbeam_dagster.domain.windows import Window, merge
from ionbeam_dagster.sources.files.config import in_order
from ionbeam_dagster.sources.files.readers import Place
from ionbeam_dagster.sources.files.stretches import Stretch, joined

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SHARED_TIMES_SHOWN = 3


class Mark(NamedTuple):
    """A content and the times of its first and last row, in microseconds since 1970."""

    content: str
    first: int
    last: int

    @property
    def range(self) -> Window:
        return Window(EPOCH + self.first * MICROSECOND, EPOCH + (self.last + 1) * MICROSECOND)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file: where it is, a hash of what decides its rows, its first and last time, and the time under which
    rows at its top that have none are filed; its stretches of time without a hole of a week, where it has several.
    Times are in microseconds since 1970."""

    place: Place
    content: str
    first: int
    last: int
    before: int
    stretches: tuple[Stretch, ...] = ()

    @property
    def times(self) -> tuple[Stretch, ...]:
        """Its stretches without a hole of a year, by which changes are told."""
        apart = joined(self.stretches)
        return tuple(apart) if len(apart) > 1 else ((self.first, self.last),)

    @property
    def times_of_rows(self) -> tuple[Stretch, ...]:
        return self.stretches or ((self.first, self.last),)


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was when it was last looked at.

    When it could not be read, `error` says why, and `parts` are those of its last intact content. `stations` are the
    stations in it, None where there are too many to keep or none is told apart.

    A file that is `unsettled` is still being written. If it `grows` by whole lines, `parts` are those that it has so
    far; else all is as it was before. A file that is `gone` is as it was when it was last seen, and missed since
    `gone_at`, in microseconds since 1970; it `left` where others were still there: what it held is no longer given.
    """

    path: str
    size: int
    modified: int
    content: str = ""
    parts: tuple[Part, ...] = ()
    stations: tuple[str, ...] | None = None
    error: str | None = None
    unsettled: bool = False
    grows: bool = False
    gone: bool = False
    gone_at: int | None = None
    left: bool = False

    @property
    def extent(self) -> Window | None:
        """From the first to the last time of the file; None while no time of it is known."""
        if not self.parts:
            return None
        return Mark("", min(part.first for part in self.parts), max(part.last for part in self.parts)).range

    @property
    def marks(self) -> set[Mark]:
        """What tells whether the file gives the same for a window as it did: the content and times of its parts."""
        if self.left:
            return set()
        if self.error:
            return {Mark(f"unreadable {self.content}", *one) for part in self.parts for one in part.times}
        return {Mark(part.content, *one) for part in self.parts for one in part.times}

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known of its times, so that it may hold observations of any window."""
        return not self.parts and not self.gone

    def missed(self, now: int, left: bool) -> File:
        """The file where it is not there now, in microseconds since 1970."""
        since = self.gone_at if self.gone else now
        return replace(self, unsettled=False, grows=False, gone=True, gone_at=since, left=self.left or left)

    def there(self) -> File:
        """The file where it is there, as it was when it was last looked at."""
        return replace(self, gone=False, gone_at=None, left=False)

    def reaches(self, window: Window) -> bool:
        """Whether all rows of a window that it will have stand in it: it is finished, or goes on behind the window."""
        if not self.unsettled:
            return True
        return self.grows and (extent := self.extent) is not None and extent.end > window.end

    def overlapping(self, window: Window) -> list[Part]:
        first, end = (window.start - EPOCH) // MICROSECOND, (window.end - EPOCH) // MICROSECOND
        return [part for part in self.parts if part.first < end and part.last >= first]


def state_of(path: Path) -> tuple[int, int]:
    """A file's size and the time of its last change, be it of its content or of its permissions."""
    stat = path.stat()
    return stat.st_size, max(stat.st_mtime_ns, stat.st_ctime_ns)


def is_as_it_was(file: File) -> bool:
    """Whether a file is still what it was when it was looked at."""
    try:
        return state_of(Path(file.path)) == (file.size, file.modified)
    except FileNotFoundError:
        return False


def changed_ranges(files: dict[str, File], reading: str, cursor: str | None) -> tuple[list[Window], str]:
    """The ranges in which `files` differ from what `cursor` holds, and the cursor that holds them as they are.

    A part that was changed counts with its old and its new times. Files that are still being written count as they were
    before.
    """
    now = {(name, mark.content, mark.first, mark.last) for name, file in files.items() for mark in file.marks}
    before, read_so = _of_cursor(cursor)
    changed = before ^ now if read_so == reading else before | now
    ranges = merge(Mark(content, first, last).range for _, content, first, last in changed)
    return ranges, json.dumps({"reading": reading, "marks": sorted(now)})


def shared_times(files: dict[str, File]) -> list[str]:
    """A sentence for some of the files that hold the same times of the same stations."""
    found: dict[tuple[str, str], str] = {}
    latest: dict[str | None, tuple[Window, File]] = {}  # of each station; of None: of all files
    unknown: tuple[Window, File] | None = None
    extents = [(extent, name, file) for name, file in files.items() if (extent := file.extent) and not file.error]
    for extent, _, file in sorted(extents, key=lambda entry: (entry[0], entry[1])):
        of = [None] if file.stations is None else file.stations
        before = [latest[station] for station in of if station in latest] + ([unknown] if unknown else [])
        for until, other in before:
            if until.overlaps(extent) and len(found) < SHARED_TIMES_SHOWN:
                first, second = sorted((other.path, file.path), key=in_order)
                found[first, second] = _both_hold(first, second, _stations_of_both(file, other), until, extent)
        for station in {*of, None}:
            if station not in latest or latest[station][0].end < extent.end:
                latest[station] = extent, file
        if file.stations is None and (unknown is None or unknown[0].end < extent.end):
            unknown = extent, file
        if len(found) >= SHARED_TIMES_SHOWN:
            break
    return list(found.values())


def _stations_of_both(one: File, other: File) -> int:
    """How many stations two files share; 0 where one of them does not tell."""
    return 0 if one.stations is None or other.stations is None else len({*one.stations} & {*other.stations})


def _counted(stations: int) -> str:
    return f"{stations:,} station{'s' * (stations > 1)}" if stations else "observations"


def _both_hold(first: str, second: str, stations: int, one: Window, other: Window) -> str:
    start, end = max(one.start, other.start), min(one.end, other.end)
    return (
        f"{first} and {second} both hold {_counted(stations)} from "
        f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}; where they differ, {second} wins"
    )


def _of_cursor(cursor: str | None) -> tuple[set[tuple[str, str, int, int]], str | None]:
    try:
        written = json.loads(cursor or "")
        return {tuple(mark) for mark in written["marks"]}, written["reading"]
    except (ValueError, KeyError, TypeError):
        return set(), None
