"""Reading files that other processes replace and remove meanwhile.

Belongs here: how a reader notices that, and tries again. Does not belong here: what the files hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import polars as pl

from ionbeam_dagster.errors import LostPoints, StoreError
from ionbeam_dagster.stores.damage import UNREADABLE, is_of_the_file
from ionbeam_dagster.stores.publish import DAMAGED, set_aside

ATTEMPTS = 50

T = TypeVar("T")


class SegmentError(StoreError):
    """Segments cannot be written, or read as they should be; the message names the place and the reason."""


class Replaced(Exception):
    """Another process put a new file in the place of one that was being read."""


def identity(file: Path | int) -> tuple[int, int] | None:
    """What tells a file (or an open one) from another at the same path; None when there is none."""
    try:
        status = os.stat(file)  # noqa: PTH116  (takes an open file, too)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def steadily(path: Path, read: Callable[[], T], remedy: str) -> T:
    """What `read` gives of a file, never a mixture of it and of a file that replaced it meanwhile.

    A damaged file is set aside, so that what it held is `lacking`, and LostPoints raised, which ends in `remedy`.
    Raises SegmentError where the file is sound and cannot be read in this way.
    """
    before = identity(path)
    try:
        found = read()
    except UNREADABLE as error:
        if not is_of_the_file(error):
            raise
        if identity(path) != before:
            raise Replaced(path) from error
        if not _is_damaged(path):
            if identity(path) != before:
                raise Replaced(path) from error
            raise SegmentError(f"segment {path} cannot be read as it should be: {error}") from error
        with suppress(OSError):  # of a disk that is mounted read-only
            set_aside(path)
        kept = f"{path.name}{DAMAGED}"
        raise LostPoints(f"segment {path} cannot be read: {error}; it is kept as {kept}; {remedy}") from error
    if identity(path) != before:
        raise Replaced(path)
    return found


def _is_damaged(path: Path) -> bool:
    try:
        pl.read_parquet(path, glob=False)
    except UNREADABLE as error:
        if not is_of_the_file(error):
            raise
        return True
    return False


def while_others_write(action: Callable[[], T]) -> T:
    """Do `action` again as long as a file that it had listed is gone, or replaced, when it comes to it."""
    for _ in range(ATTEMPTS - 1):
        try:
            return action()
        except (FileNotFoundError, Replaced):
            continue
    return action()
