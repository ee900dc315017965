"""What is inside a file, in words for a person: of any Parquet file, and of the kinds that the stores write.

Belongs here: `Contents`, and reading raw partitions, quarantine and dataset windows for it. Does not belong here: files
of other formats (each exporter describes its own), or how it looks in a terminal (cli).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.errors import UnknownFile
from ionbeam_dagster.stores.damage import UNREADABLE


@dataclass(frozen=True, slots=True)
class Contents:
    """`facts` about the whole file, `columns` with a row each (unit, values, minimum, maximum), and the first rows."""

    kind: str
    facts: dict[str, str]
    columns: pl.DataFrame
    head: pl.DataFrame = field(default_factory=pl.DataFrame)


def begins_with(path: Path, mark: bytes, at: int = 0) -> bool:
    """Whether the bytes `mark` stand in a file, `at` bytes from its begin; raises UnknownFile."""
    try:
        with path.open("rb") as file:
            return file.read(at + len(mark))[at:] == mark
    except OSError as error:
        raise UnknownFile(f"{path}: {error.strerror}") from error


def parquet_schema(path: Path) -> pa.Schema | None:
    """The schema of a Parquet file, None for any other file; raises UnknownFile where it is damaged."""
    if not begins_with(path, b"PAR1"):
        return None
    with _damage_named(path):
        return pq.read_schema(path)


def parquet_contents(path: Path, kind: str) -> Contents:
    """What a Parquet file holds, with what it says of itself where the platform wrote it; raises UnknownFile."""
    with _damage_named(path):
        with pq.ParquetFile(path) as file:
            schema, rows, groups = file.schema_arrow, file.metadata.num_rows, file.metadata.num_row_groups
        about = json.loads((schema.metadata or {}).get(b"ionbeam", b"{}"))
        facts = {"rows": f"{rows:,}", "row groups": str(groups), "bytes": f"{path.stat().st_size:,}"}
        facts |= {key: _short(value) for key, value in about.items()}
        plain = [f.name for f in schema if not pa.types.is_nested(f.type) and not pa.types.is_binary(f.type)]
        frame = pl.scan_parquet(path, glob=False).select(plain)
        return Contents(kind, facts, _summary(frame, schema.field), frame.head(5).collect())


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (*UNREADABLE, ValueError, LookupError) as error:  # also of what it says of itself
        raise UnknownFile(f"{path}: a damaged Parquet file ({error})") from error


def describe(path: Path) -> Contents | None:
    """What a raw partition, a quarantine, a dataset window or another Parquet file holds; None: it is not Parquet."""
    schema = parquet_schema(path)
    return None if schema is None else parquet_contents(path, _kind_of(schema))


def _kind_of(schema: pa.Schema) -> str:
    metadata = schema.metadata or {}
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


def _short(value: object) -> str:
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:3]))
        return f"{shown} ... ({len(value)} in all)" if len(value) > 3 else shown or "none"
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
