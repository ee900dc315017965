"""What is fetched of a day already: one SQLite file a day, so that a day that failed goes on where it stopped.

Belongs here: keeping the bodies of files until their day is complete. Does not belong here: what is in them.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from ionbeam_dagster.sources.sensor_community.listing import Listed

_COMMIT_EVERY = 100


class Spool:
    """Bodies of files by name, each with the mark under which it was fetched. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._added = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._base = sqlite3.connect(self._path)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=NORMAL")
        self._base.execute("CREATE TABLE IF NOT EXISTS files (stem TEXT PRIMARY KEY, mark TEXT, body BLOB)")
        return self

    def __exit__(self, *error: object) -> None:
        self._base.commit()
        self._base.close()

    def marks(self) -> dict[str, str]:
        """The marks of the files that are here, by their names."""
        return dict(self._base.execute("SELECT stem, mark FROM files"))

    def add(self, file: Listed, body: bytes) -> None:
        """Keep a file; on disk for certain after some more, or at the end."""
        packed = zlib.compress(body, 1)
        self._base.execute("REPLACE INTO files VALUES (?, ?, ?)", (file.stem, file.mark, packed))
        self._added += 1
        if self._added % _COMMIT_EVERY == 0:
            self._base.commit()

    def bodies(self, files: Iterable[Listed]) -> Iterator[tuple[Listed, bytes]]:
        """The files that are here of `files`, in their order."""
        for file in files:
            row = self._base.execute("SELECT body FROM files WHERE stem = ?", (file.stem,)).fetchone()
            if row:
                yield file, zlib.decompress(row[0])

    def remove(self) -> None:
        """Remove it from the disk, after its end."""
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
