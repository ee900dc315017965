"""What a person tells of stations, put into a dataset's rows as they are read for a window.

Belongs here: which columns that makes, and their values. Does not belong here: what may be told
(domain/station_entries.py), or what exporters make of the columns (exporters).

    wigos_id        the WIGOS id
    station_name    the name; in the source's own column ``name``, if it has one
    altitude        the height above the sea in m, as text; in the source's own column of heights, if it has one
    mobile          ``true`` or ``false``

What is told counts for more than what the source says. Rows do not name their source: where stations of several sources
of a dataset have one id, what is told of them differs and therefore is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256

import polars as pl
import pyarrow as pa

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.canonical import HEIGHT_COLUMNS, STATION
from ionbeam_dagster.domain.station_entries import Entries
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.timeseries import TimeSeriesStore

Prefixes = tuple[tuple[str, str], ...]
"""The sources of a dataset, and what stands before the ids of the stations of each."""

WIGOS_ID, NAME, ALTITUDE, MOBILE = "wigos_id", "station_name", "altitude", "mobile"


class DescribedPoints:
    """The points of a dataset, with what is told of their stations."""

    def __init__(self, platform: Platform, dataset: DatasetSettings) -> None:
        self._series: TimeSeriesStore = platform.series
        self._dataset = dataset.name
        self._columns = _columns(platform.stations.entries(), _prefixes(platform, dataset))

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The columns of a dataset with those that are told of its stations, in order of their names."""
        if STATION not in schema.names or self._columns.width == 1:
            return schema
        described = [field for field in schema if (field.metadata or {}).get(b"role") == b"metadata"]
        others = [field for field in schema if field not in described]
        known = {field.name for field in described}
        new = {_own_column(name, known) for name in self._columns.columns[1:]} - known
        described += [pa.field(name, pa.string(), metadata={"role": "metadata"}) for name in new]
        return pa.schema([*others, *sorted(described, key=lambda field: field.name)])

    def read(self, dataset: str, window: Window, schema: pa.Schema, key: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The points of `window`, as the time-series store reads them."""
        own = {_own_column(name, set(schema.names)): name for name in self._columns.columns[1:]}
        told = {column: name for column, name in own.items() if column in schema.names}
        for batch in self._series.read(dataset, window, schema, key):
            yield batch if dataset != self._dataset or not told else self._filled(batch, told, schema)

    def _filled(self, batch: pa.RecordBatch, told: dict[str, str], schema: pa.Schema) -> pa.RecordBatch:
        frame = pl.DataFrame(pl.from_arrow(batch))
        columns = self._columns.rename({name: f"told {name}" for name in self._columns.columns[1:]})
        found = frame.join(columns, on=STATION, how="left", maintain_order="left")
        filled = found.with_columns(pl.coalesce(f"told {name}", column).alias(column) for column, name in told.items())
        table = filled.select(schema.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
        return table.combine_chunks().to_batches()[0] if table.num_rows else batch


def fingerprint(platform: Platform, dataset: DatasetSettings) -> str:
    """What is told of a dataset's stations, as a short text, empty where nothing is.

    Raises StoreError and OSError where it cannot be read now.
    """
    return _hash(platform.stations.entries(), _prefixes(platform, dataset))


def _prefixes(platform: Platform, dataset: DatasetSettings) -> Prefixes:
    return tuple((name, platform.source(name).station_prefix) for name in dataset.sources)


@lru_cache(maxsize=64)
def _hash(told: Entries, prefixes: Prefixes) -> str:
    columns = _columns(told, prefixes)
    return sha256(columns.write_json().encode()).hexdigest() if columns.width > 1 else ""


@lru_cache(maxsize=64)
def _columns(told: Entries, prefixes: Prefixes) -> pl.DataFrame:
    """STATION, and those of the columns of which anything is told of stations of these sources."""
    of_source = pl.DataFrame(prefixes, schema={"source": pl.String, "prefix": pl.String}, orient="row")
    entries = told.table.join(of_source, on="source", how="inner").select(
        pl.concat_str("prefix", "station").alias(STATION),
        pl.col("wigos_id").alias(WIGOS_ID),
        pl.col("name").alias(NAME),
        pl.col("altitude").cast(pl.String).str.replace(r"\.0$", "").alias(ALTITUDE),
        pl.col("mobile").cast(pl.String).alias(MOBILE),
    )
    entries = entries.unique().filter(pl.col(STATION).is_unique()).sort(STATION)
    return entries.select(STATION, *(name for name in entries.columns[1:] if entries[name].count()))


def _own_column(name: str, known: set[str]) -> str:
    """The column that a dataset with the columns `known` has for what is told as `name`."""
    others = {ALTITUDE: HEIGHT_COLUMNS, NAME: (NAME, "name")}.get(name, ())
    return next((other for other in others if other in known), name)
