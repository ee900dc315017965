"""Exports that lie in S3, kept in a local folder too, from which they are served.

Belongs here: bringing that folder up to date. Does not belong here: the files of S3 themselves (stores/files.py), or
what is asked of the folder.

A query needs many small pieces of many files, and all of a file's pieces from one revision. S3 answers each piece in
its own time, and from whatever object is there at that moment; a folder of files that are replaced whole has neither
fault.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from ionbeam_dagster.edr.files import window_of_name
from ionbeam_dagster.stores.files import Files, Found, name_of
from ionbeam_dagster.stores.publish import published, remove

LOG = logging.getLogger(__name__)
AT_ONCE = 8
TOLD_EVERY = 5.0  # s


def mirrored(files: Files, place: str, folder: Path, tell: Callable[[str], None] = LOG.info) -> int:
    """Make `folder` hold the windows below the prefix `place`, and no others; gives how many files were changed.

    The newest come first, and each takes its place whole. A file has the time and the size of its object, which tell
    when it is to be fetched again. `tell` is given a line every few seconds. Raises FilesError, then the folder has
    what was fetched so far.
    """
    there = {name_of(location): (location, found) for location, found in files.listed(place).items()}
    there = {name: one for name, one in there.items() if window_of_name(name)}
    here = _held(folder)
    lacking = [name for name, (_, found) in there.items() if here.get(name) != _mark(found)]
    lacking.sort(key=lambda name: window_of_name(name) or (), reverse=True)
    told_at = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE, "ionbeam-mirror") as pool:
        fetching = [pool.submit(_fetch, files, *there[name], folder / name) for name in lacking]
        try:
            for done, one in enumerate(as_completed(fetching), 1):
                one.result()
                if time.monotonic() - told_at > TOLD_EVERY:
                    told_at = time.monotonic()
                    tell(f"{place}: {done:,} of {len(lacking):,} windows are fetched into {folder}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    gone = here.keys() - there.keys()
    for name in gone:
        remove(folder / name)
    return len(lacking) + len(gone)


def _held(folder: Path) -> dict[str, tuple[int, int]]:
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry.stat() for entry in entries if window_of_name(entry.name)}
    except FileNotFoundError:
        return {}
    return {name: (one.st_size, one.st_mtime_ns // 1000) for name, one in found.items()}


def _mark(found: Found) -> tuple[int, int]:
    return found.size, round(found.modified.timestamp() * 1e6)


def _fetch(files: Files, location: str, listed: Found, target: Path) -> None:
    """Fetch an object that stays the same meanwhile; one that does not is left for the next time."""
    try:
        before = files.found(location)
        with published(target) as draft:
            with files.opened(location) as source, draft.open("wb") as out:
                shutil.copyfileobj(source, out, 8 << 20)
            if before != files.found(location) or before is None or draft.stat().st_size != before.size:
                draft.unlink()
                return
            moment = _mark(listed)[1] * 1000
            os.utime(draft, ns=(moment, moment))
    except FileNotFoundError:
        return
