"""Reading files that other processes replace and remove meanwhile.

Belongs here: how a reader notices that, and tries again. Does not belong here: what the files hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl
import pyarrow as pa

from ionbeam_dagster.errors import StoreError

ATTEMPTS = 50

T = TypeVar("T")


class SegmentError(StoreError):
    """A segment cannot be read; the message names the file, the reason and what to do."""


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

    Raises SegmentError, which ends in `remedy`, for a damaged file.
    """
    before = identity(path)
    try:
        found = read()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException) as error:
        if identity(path) == before:
            raise SegmentError(f"segment {path} cannot be read: {error}; {remedy}") from error
        raise Replaced(path) from error
    if identity(path) != before:
        raise Replaced(path)
    return found


def while_others_write(action: Callable[[], T]) -> T:
    """Do `action` again as long as a file that it had listed is gone, or replaced, when it comes to it."""
    for _ in range(ATTEMPTS - 1):
        try:
            return action()
        except (FileNotFoundError, Replaced):
            continue
    return action()
