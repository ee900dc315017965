"""What is inside a file that the platform wrote: raw partition, quarantine, dataset window, ODB-2, BUFR or GeoParquet.

Belongs here: reading such a file for a person. Does not belong here: how it looks in a terminal (cli).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.errors import UnknownFile


@dataclass(frozen=True, slots=True)
class Contents:
    """`facts` about the whole file, `columns` with a row each (unit, values, minimum, maximum), and the first rows."""

    kind: str
    facts: dict[str, str]
    columns: pl.DataFrame
    head: pl.DataFrame = field(default_factory=pl.DataFrame)


def contents(path: Path) -> Contents:
    """Read what `path` holds; raises UnknownFile with the reason."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UnknownFile(f"{path}: {error.strerror}") from error
    if start.startswith(b"PAR1"):
        return _parquet(path)
    if start[2:5] == b"ODA":
        return _odb(path)
    if start.startswith(b"BUFR"):
        return _bufr(path)
    raise UnknownFile(f"{path}: neither Parquet nor ODB-2 nor BUFR")


def _parquet(path: Path) -> Contents:
    try:
        with pq.ParquetFile(path) as file:
            schema, rows, groups = file.schema_arrow, file.metadata.num_rows, file.metadata.num_row_groups
    except pa.ArrowInvalid as error:
        raise UnknownFile(f"{path}: a damaged Parquet file ({error})") from error
    written = {key: json.loads(value) for key, value in (schema.metadata or {}).items() if key == b"ionbeam"}
    facts = {"rows": f"{rows:,}", "row groups": str(groups), "bytes": f"{path.stat().st_size:,}"}
    facts |= {key: _short(value) for key, value in written.get(b"ionbeam", {}).items()}
    plain = [f.name for f in schema if not pa.types.is_nested(f.type) and not pa.types.is_binary(f.type)]
    frame = pl.scan_parquet(path, glob=False).select(plain)
    return Contents(_kind_of(schema), facts, _summary(frame, schema.field), frame.head(5).collect())


def _kind_of(schema: pa.Schema) -> str:
    metadata = schema.metadata or {}
    if b"geo" in metadata:
        return "GeoParquet export"
    if "reason" in schema.names:
        return "quarantine: rows that could not be used, with the reason"
    if b"ionbeam" not in metadata:
        return "Parquet"
    return "dataset window" if b'"revision"' in metadata[b"ionbeam"] else "raw partition"


def _summary(frame: pl.LazyFrame, field_of: Callable[[str], pa.Field]) -> pl.DataFrame:
    names = frame.collect_schema().names()
    counts = frame.select(pl.all().count()).collect(engine="streaming").row(0)
    low = frame.select(pl.all().min().cast(pl.String)).collect(engine="streaming").row(0)
    high = frame.select(pl.all().max().cast(pl.String)).collect(engine="streaming").row(0)
    units = [(field_of(name).metadata or {}).get(b"units", b"").decode() for name in names]
    return pl.DataFrame({"column": names, "unit": units, "values": counts, "minimum": low, "maximum": high})


def _odb(path: Path) -> Contents:
    from ionbeam_dagster.exporters.odb.reading import OdbError, describe_odb

    try:
        facts, columns = describe_odb(path)
    except OdbError as error:
        raise UnknownFile(str(error)) from error
    return Contents("ODB-2 export", {"bytes": f"{path.stat().st_size:,}"} | facts, columns)


def _bufr(path: Path) -> Contents:
    from ionbeam_dagster.errors import ExportError
    from ionbeam_dagster.exporters.bufr.messages import BufrError
    from ionbeam_dagster.exporters.bufr.reading import describe_bufr

    try:
        facts, columns = describe_bufr(path)
    except (BufrError, ExportError) as error:
        raise UnknownFile(str(error)) from error
    return Contents("BUFR export", {"bytes": f"{path.stat().st_size:,}"} | facts, columns)


def _short(value: object) -> str:
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:3]))
        return f"{shown} ... ({len(value)} in all)" if len(value) > 3 else shown or "none"
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
