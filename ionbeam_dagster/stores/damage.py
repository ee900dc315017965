"""What libraries raise where a stored file, or what it holds, is damaged.

Belongs here: which errors these are, and reading all of a file to meet them. Does not belong here: what is done about a
damaged file (pipeline/damage.py, timeseries/steady.py).
"""

from __future__ import annotations

import errno
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

UNREADABLE = (
    pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, UnicodeDecodeError,
)  # fmt: skip
"""All that is raised where a file cannot be read, damaged or not; polars' panic is no Exception."""


def is_of_the_file(error: BaseException) -> bool:
    """Whether one of UNREADABLE says that the file is damaged, and not that it, its disk or its server is away.

    Errors of the disk have a number; those that Arrow makes of what it finds in a file have none.
    """
    if not isinstance(error, OSError):
        return True
    is_away = isinstance(error, FileNotFoundError) or error.errno is not None or "AWS Error" in str(error)
    return not is_away


def is_of_one_file(error: BaseException) -> bool:
    """Whether one of UNREADABLE is of that file alone, which is damaged or away; else no other can be read now either.

    The numbers are those of a file that is not there, that this user may not read, and that its disk cannot.
    """
    return not isinstance(error, OSError) or error.errno in (None, errno.ENOENT, errno.EACCES, errno.EIO)


def remedy_of(error: OSError) -> str:
    """What helps where a file is there and cannot be read."""
    if isinstance(error, PermissionError):
        return "give this user permission to read it, and run every process as one user"
    return "look at its disk, or put a copy back"


def read_through(path: Path) -> None:
    """Read every page of a Parquet file, which its footer tells nothing of; raises one of UNREADABLE."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches():
            batch.validate(full=True)
