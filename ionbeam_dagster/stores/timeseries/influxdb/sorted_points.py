"""The points of one ingestion on their way to InfluxDB.

Belongs here: how they wait in a temporary folder, each once. Does not belong here: how they are sent (store.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from ionbeam_dagster.domain.windows import HOUR, Window
from ionbeam_dagster.stores.timeseries import TIME
from ionbeam_dagster.stores.timeseries.segments import SegmentStore


class SortedPoints:
    """The points of one ingestion on their way, in a temporary folder: each once, hour by hour, sorted by key and time.

    What merges them is the store that lies in files, so that both give the same.
    """

    def __init__(self, folder: Path, key: Sequence[str]) -> None:
        self._store = SegmentStore(folder)
        self._key = key
        self._schema: dict[str, pl.DataType] = {}
        self._extents = [pl.DataFrame(schema=_EXTENT)]

    def take(self, frames: Iterable[pl.DataFrame]) -> int:
        return self._store.write("points", "points", 0, self._noted(frames), self._key)

    def _noted(self, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        moment = pl.col(TIME)
        for frame in frames:
            self._schema |= frame.schema
            extents = frame.group_by(moment.dt.truncate("1h").alias("hour")).agg(
                moment.min().to_physical().alias("first"), moment.max().to_physical().alias("last"),
                pl.len().alias("rows"),
            )  # fmt: skip
            self._extents.append(extents.cast(_EXTENT))
            yield frame

    def extents(self) -> list[tuple[datetime, int, int, int]]:
        """Of each hour, in order: the hour, its first and last time in microseconds, and at most how many points."""
        extents = pl.concat(self._extents).group_by("hour").agg(pl.min("first"), pl.max("last"), pl.sum("rows"))
        return extents.sort("hour").rows()

    def of(self, hour: datetime) -> Iterator[pl.DataFrame]:
        """The points of one hour."""
        schema = pl.DataFrame(schema=self._schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        for batch in self._store.read("points", Window(hour, hour + HOUR), schema, self._key):
            yield pl.DataFrame(batch)


_EXTENT = pl.Schema({"hour": pl.Datetime("us", "UTC"), "first": pl.Int64(), "last": pl.Int64(), "rows": pl.Int64()})
