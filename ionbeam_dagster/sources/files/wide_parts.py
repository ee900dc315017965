"""Parts of files that reach over many windows, as those of a file that is sorted by station: each is read once.

Belongs here: where their rows wait until another window wants its own. Does not belong here: small files, which are
read many at a time (small_files.py), and reading (readers.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import polars as pl
import pyarrow as pa

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.sources.files.readers import ROW, Place
from ionbeam_dagster.sources.files.rows import FILED

MANY = 4
"""Windows that a part reaches over for which its rows are kept."""
ROWS_A_PIECE = 500_000
MOST_KEPT = 1 << 30
"""Bytes of rows that wait on disk; what is more is read again for each window."""
PART = "x_part"

Key = tuple[str, int, int, Place]
"""A file's name, size and time of its last change, and the place of a part in it."""


class KeptParts:
    """A source's rows of parts of files on disk, in pieces each in the order of time, until the process ends."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="ionbeam-parts-")
        self._numbers: dict[Key, int] = {}
        self._pieces: dict[int, list[Path]] = {}
        self._waiting: list[pl.DataFrame] = []
        self._written = 0
        self._bytes = 0
        self._next = 0

    @property
    def has_room(self) -> bool:
        return self._bytes < MOST_KEPT

    def has_any(self, keys: Iterable[Key]) -> bool:
        return any(key in self._numbers for key in keys)

    def begin(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Numbers for those parts that are not there, and are to be read."""
        self._waiting = []
        missing = [key for key in keys if key not in self._numbers]
        numbers = {key: self._next + place for place, key in enumerate(missing)}
        self._next += len(missing)
        self._pieces |= {number: [] for number in numbers.values()}
        return numbers

    def add(self, number: int, rows: pl.DataFrame) -> None:
        """Some rows of a part, with ``x_filed``."""
        self._waiting.append(rows.with_columns(pl.lit(number, pl.Int32).alias(PART)))
        if sum(some.height for some in self._waiting) >= ROWS_A_PIECE:
            self._write()

    def keep(self, numbers: dict[Key, int]) -> None:
        """From now on, parts that were read whole are there."""
        if self._waiting:
            self._write()
        self._numbers |= numbers

    def rows(self, keys: Sequence[Key], window: Window) -> pl.DataFrame | None:
        """The rows of parts that are filed in `window`, part by part and in their order; None where there are none."""
        order = np.full(self._next, -1, np.int64)
        numbers = [self._numbers[key] for key in keys]
        order[numbers] = np.arange(len(numbers))
        found = []
        for path in dict.fromkeys(path for number in numbers for path in self._pieces[number]):
            with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
                frame = cast(pl.DataFrame, pl.from_arrow(file.read_all()))
                first = frame[FILED].search_sorted(window.start, "left")
                last = frame[FILED].search_sorted(window.end, "left")
                some = frame[first:last]
                found.append(some.with_columns(pl.Series(PART, order[some[PART].to_numpy()])).filter(pl.col(PART) >= 0))
        rows = pl.concat(found).sort(PART, ROW, maintain_order=True).drop(PART, FILED) if found else None
        return rows if rows is not None and rows.height else None

    def _write(self) -> None:
        rows = pl.concat(self._waiting).sort(FILED, maintain_order=True)
        path = Path(self._folder.name) / f"{self._written}.arrow"
        rows.write_ipc(path, compat_level=pl.CompatLevel.oldest())
        self._written += 1
        self._bytes += path.stat().st_size
        for number in rows[PART].unique():
            self._pieces[number].append(path)
        self._waiting = []
