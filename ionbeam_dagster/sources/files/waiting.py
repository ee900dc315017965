"""Rows that wait on disk until a window wants its own, and are gone with the process, however it ends.

Belongs here: a piece of such rows in the order of time. Does not belong here: which rows wait (small_files.py,
wide_parts.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import mkstemp
from typing import cast

import polars as pl
import pyarrow as pa

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.sources.files.times import FILED


class Piece:
    """Rows with ``x_filed``, in a file without a name: the system takes its room back once nobody has it open."""

    def __init__(self, rows: pl.DataFrame) -> None:
        handle, path = mkstemp(prefix="ionbeam-rows-")
        os.close(handle)
        try:
            rows.sort(FILED, maintain_order=True).write_ipc(path, compat_level=pl.CompatLevel.oldest())
            self._mapped = pa.memory_map(path)
        finally:
            Path(path).unlink()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return int(self._mapped.size())

    def within(self, window: Window) -> pl.DataFrame:
        """The rows that are filed in `window`, in the order of time; they are looked at where they lie."""
        with pa.ipc.open_file(self._mapped) as file:
            frame = cast(pl.DataFrame, pl.from_arrow(file.read_all()))
        first = frame[FILED].search_sorted(window.start, "left")
        last = frame[FILED].search_sorted(window.end, "left")
        return frame[first:last]
