"""The journal of an ingestion: which segments it may have, durable before these are seen, and who writes it now.

Belongs here: the names, and the lock on them. Does not belong here: the segments themselves (segments.py), or the small
ones that became one file (bundles.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

from ionbeam_dagster.stores.locks import lock, lock_if_free
from ionbeam_dagster.stores.publish import make_folder, sync
from ionbeam_dagster.stores.timeseries.steady import identity


@dataclass(frozen=True)
class Journal:
    """The names of all segments that an ingestion may have, one a line; durable before the segments are seen.

    A line that begins with ``-`` strikes a name out: that segment was removed.
    """

    path: Path
    file: IO[str]

    def names(self) -> set[str]:
        self.file.seek(0)
        return _names(self.file.read())

    def strike(self, names: Iterable[str]) -> None:
        self.add(f"-{name}" for name in names)

    def add(self, names: Iterable[str]) -> None:
        # The line end stands in front, so that a name that a crash cut short does not spoil the next one.
        if lines := "".join(f"\n{name}" for name in names):
            self.file.write(lines)
            self.file.flush()
            os.fsync(self.file.fileno())
            sync(self.path.parent)

    def remove(self) -> None:
        self.path.unlink()
        sync(self.path.parent)


@contextmanager
def opened(home: Path, ingestion: str) -> Iterator[Journal]:
    """Open the journal of `ingestion`, and keep every other writer of the same ingestion waiting meanwhile."""
    path = _path(home, ingestion)
    make_folder(path.parent)
    while True:
        with path.open("a+") as file:
            lock(file)
            if identity(path) == identity(file.fileno()):  # otherwise it was withdrawn while we waited for the lock
                yield Journal(path, file)
                return


@contextmanager
def unless_written(home: Path, ingestion: str) -> Iterator[bool]:
    """Whether nobody writes or withdraws `ingestion`; if so, who would waits until the block ends."""
    path = _path(home, ingestion)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open())
        except FileNotFoundError:
            unwritten = False
        else:
            unwritten = lock_if_free(file) and identity(path) == identity(file.fileno())
        yield unwritten


def is_there(home: Path, ingestion: str) -> bool:
    """Whether `ingestion` was ever written, and not withdrawn since."""
    return _path(home, ingestion).exists()


def names_of(home: Path, ingestion: str) -> set[str]:
    """The segments that `ingestion` may have; none where it has no journal."""
    try:
        return _names(_path(home, ingestion).read_text())
    except FileNotFoundError:
        return set()


def all_of(home: Path) -> Iterator[tuple[str, set[str]]]:
    """Every ingestion that has a journal, with the segments that it may have."""
    for path in sorted((home / ".ingestions").glob("*")):
        try:
            written = path.read_text()
        except FileNotFoundError:  # withdrawn meanwhile
            continue
        yield unquote(path.name), _names(written)


def _path(home: Path, ingestion: str) -> Path:
    return home / ".ingestions" / quote(ingestion, safe="")


def _names(written: str) -> set[str]:
    names: set[str] = set()
    for line in written.split("\n"):
        if line.startswith("-"):
            names.discard(line[1:])
        elif line.endswith(".parquet"):
            names.add(line)
    return names
