"""How full the disks are that the platform writes to.

Belongs here: the disks of this host. Does not belong here: servers' own (they refuse, and stores.py tells).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.places import local_places
from ionbeam_dagster.pipeline.platform import Platform

SUBJECT = "disk"
FULL, NEARLY = 0.95, 0.85
"""Shares of a disk that are in use above which it is an error, and a warning."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk, by one of the folders on it: the share that is `used` (0..1), also of its `inodes`, and bytes `free`."""

    folder: Path
    key: str
    used: float
    inodes: float
    free: int


def disks(platform: Platform) -> list[Disk]:
    """Each disk once, the fullest first."""
    found = {}
    for folder, key in local_places(platform).items():
        stat = os.statvfs(folder)
        used, files = stat.f_blocks - stat.f_bfree, stat.f_files - stat.f_ffree
        found[folder.stat().st_dev] = Disk(
            folder,
            key,
            used / max(used + stat.f_bavail, 1),  # as df tells it: without what is kept for root
            files / max(files + stat.f_favail, 1) if stat.f_files else 0.0,
            stat.f_bavail * stat.f_frsize,
        )
    return sorted(found.values(), key=lambda disk: -max(disk.used, disk.inodes))


def stats(paths: Iterable[Path]) -> list[os.stat_result]:
    """Size and time of files, but of those that went meanwhile."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            found.append(path.stat())
    return found


def fullness(platform: Platform) -> Iterator[Finding]:
    """What is full, or nearly so."""
    found = disks(platform)
    for disk in found:
        share, of = max((disk.used, "full"), (disk.inodes, "out of inodes"))
        if share > NEARLY:
            words = f"the disk of {disk.folder} ({disk.key}) is {share:.1%} {of}, {disk.free / 1e6:,.0f} MB are free"
            remedy = "make room (`ionbeam purge --dry-run` tells what may go; retention: in the YAML), or enlarge it"
            yield Finding(SUBJECT, "error" if share > FULL else "warning", words, remedy)
    if found:
        fullest = f"the fullest is {max(found[0].used, found[0].inodes):.0%} full"
        yield Finding(SUBJECT, "well", f"disks that are written to: {len(found)}, {fullest}")
