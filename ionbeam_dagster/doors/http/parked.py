"""The files of parked lines: lines of the HTTP door that were not, or not wholly, taken in.

Belongs here: how they are written, and read to be looked at again. Does not belong here: why a line is parked
(mapping.py), what people are told of it (memory.py, status.py), or when it goes (leftovers.py).

    <state>/door/parked/<source>/<journal file>.parquet

A file has, of each line, ``line`` (line protocol, with its time in ns), ``received`` (when it came, in ns since 1970),
``measurement`` and ``reason``. It is as old as the newest of its lines.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from ionbeam_dagster.doors.http.lines import read_again
from ionbeam_dagster.stores.publish import published

_READ = 50_000
_SAMPLES = 100  # different reasons of one file that are told; the lines themselves are all kept
_OTHERS = "for other reasons, which stand in the file of parked lines"


@dataclass
class Parking:
    """The parked lines of one source and one file of the journal, written as they come."""

    draft: Path
    told: dict[tuple[str, str], tuple[int, int, str]] = field(default_factory=dict)
    last: int = 0
    writer: pq.ParquetWriter | None = None

    def add(self, parked: pl.DataFrame) -> None:
        if parked.is_empty():
            return
        table = parked.to_arrow()
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.draft, table.schema, compression="zstd")
        self.writer.write_table(table)
        summed = parked.group_by("measurement", "reason", maintain_order=True).agg(
            pl.len(), pl.col("received").max(), pl.col("line").last()
        )
        for of, why, lines, last, sample in summed.iter_rows():
            key = (of, why) if (of, why) in self.told or len(self.told) < _SAMPLES else ("", _OTHERS)
            before, latest, _ = self.told.get(key, (0, 0, ""))
            self.told[key] = (before + lines, max(last, latest), sample)
            self.last = max(self.last, last)

    def add_all(self, parked: Iterable[pl.DataFrame]) -> None:
        for some in parked:
            self.add(some)

    def summary(self) -> list[tuple[str, str, int, int, str]]:
        """(measurement, reason, lines, last in ns, sample), as the door's memory keeps it."""
        return [(*key, *value) for key, value in self.told.items()]

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            os.utime(self.draft, ns=(self.last, self.last))


@contextmanager
def parking(place: Path) -> Iterator[Parking]:
    """The parked lines that are to stand in the file `place`, if there are any."""
    with published(place) as draft:
        lines = Parking(draft)
        try:
            yield lines
        finally:
            lines.close()


def read_parked(path: Path) -> Iterator[pl.DataFrame]:
    """The lines of a file, some at a time: ``line``, plain, and ``received``."""
    for batch in pq.ParquetFile(path).iter_batches(columns=["line", "received"], batch_size=_READ):
        yield pl.DataFrame(pl.from_arrow(batch)).with_columns(pl.col("line").map_batches(read_again, pl.String))
