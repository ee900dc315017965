"""The GeoParquet files of one dataset, by the windows that their names tell.

Belongs here: listing and opening, for queries and for what the configuration tells. Does not belong here: what is in
the files.
"""

from __future__ import annotations

import os
import re
import time
from bisect import bisect_left
from collections.abc import Container
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from ionbeam_client.models import parse_duration

SETTLED = 2.0  # s: a listing is kept once the folder's time is older than this, beyond any clock's grain
PART_LISTING = 0.1  # of the time, at most: while files come and go, a listing is kept for as long as this makes it
_NAME = re.compile(r"^[^._].*_(\d{8}T\d{6})_(P[0-9TWDHMS]+)\.parquet$")


class WindowFile(NamedTuple):
    """A file and its window [start, end), in microseconds since 1970, UTC."""

    start: int
    end: int
    name: str


Version = tuple[int, int, int]  # differs between two files that stood under the same name one after the other


class LocalFiles:
    """A folder. Its files are replaced by renaming, so that an open one keeps the bytes that it had."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # The folder's time, until when it is not looked at, its names, and their windows: one value, since threads
        # share it.
        self._listed: tuple[int, float, set[str], list[WindowFile]] = (-1, 0.0, set(), [])

    def windows(self) -> list[WindowFile]:
        """All windows, in the order of time; none where there is no such folder."""
        listed_at, until, known, windows = self._listed
        try:
            begun = time.monotonic()
            if begun < until:
                return windows
            changed = self._folder.stat().st_mtime_ns
            if changed == listed_at:
                return windows
            settled = time.time() - changed / 1e9 > SETTLED
            names = {name for name in os.listdir(self._folder) if name[0] not in "._"}  # noqa: PTH208 (names are enough)
        except (FileNotFoundError, NotADirectoryError):
            return []
        if names != known:
            windows = sorted(found for name in names if (found := window_of_name(name)))
        ended = time.monotonic()
        self._listed = (changed if settled else -1, ended + (ended - begun) / PART_LISTING, names, windows)
        return windows

    def listed_at(self) -> int | None:
        """The time of the folder; the same later on: no file came, was replaced or went. None where that is unsure."""
        try:
            changed = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        return changed if time.time() - changed / 1e9 > SETTLED else None

    def versions(self, known: Container[str] = ()) -> dict[str, int]:
        """All windows' files, and when each was written (ns): it tells one from its successor.

        `known` are names that are windows' for certain.
        """
        try:
            with os.scandir(self._folder) as entries:
                return {
                    entry.name: entry.stat().st_mtime_ns
                    for entry in entries
                    if entry.name in known or window_of_name(entry.name)
                }
        except FileNotFoundError:
            return {}

    def path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def open(self, name: str) -> pa.NativeFile:
        """A handle that goes on reading the same bytes when the file is replaced; FileNotFoundError when it is gone."""
        return pa.OSFile(self.path(name))

    def version(self, name: str) -> Version:
        """Of the file that has this name now."""
        return _version(os.stat(self.path(name)))  # noqa: PTH116 (a Path costs more than the look)


def version_of(handle: pa.NativeFile) -> Version:
    """Of the file that is open, whatever has its name by now."""
    return _version(os.fstat(handle.fileno()))


def _version(found: os.stat_result) -> Version:
    return found.st_ino, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=200_000)
def window_of_name(name: str) -> WindowFile | None:
    """The window of ``<dataset>_<YYYYmmddTHHMMSS>_<span>.parquet``; None for any other name."""
    matched = _NAME.match(name)
    if matched is None:
        return None
    try:
        start = datetime.strptime(matched[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        span = parse_duration(matched[2])
    except ValueError:
        return None
    begun = int(start.timestamp()) * 1_000_000
    return WindowFile(begun, begun + int(span.total_seconds()) * 1_000_000, name)


def overlapping(windows: list[WindowFile], start: int | None, end: int | None) -> list[WindowFile]:
    """Those of `windows` (in order) that hold a moment of [start, end]; None leaves a side open."""
    last = len(windows) if end is None else bisect_left(windows, (end + 1,))
    return [window for window in windows[:last] if start is None or window.end > start]
