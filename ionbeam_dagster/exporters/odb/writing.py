"""Dataset files become one ODB file, a batch of reports and a frame of rows at a time.

Belongs here: the reading of dataset files, and the way of their columns to the encoder. Does not belong here: what
becomes of a batch (rows.py), or whether the file is good (`OdbExporter`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.domain.canonical import HEIGHT_COLUMNS, STATION, columns_of
from ionbeam_dagster.exporters.odb.encoder import Encoder
from ionbeam_dagster.exporters.odb.mapping import Target, entries_of
from ionbeam_dagster.exporters.odb.rows import constants, first_number, frames, layout, reports_of
from ionbeam_dagster.exporters.odb.settings import OdbCodes
from ionbeam_dagster.exporters.odb.tally import OdbCounts
from ionbeam_dagster.exporters.stations import WIGOS_COLUMN

ROWS_PER_FRAME = 10_000
VALUES_PER_BATCH = 500_000
PROPERTIES = ("dataset", "window_start", "window_end", "revision", "inputs", "software")


def united(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The columns of all `schemas`, each as it comes first."""
    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for each in schema:
            fields.setdefault(each.name, each)
    return pa.schema(fields.values(), schemas[0].metadata)


def properties_of(schema: pa.Schema) -> dict[str, str]:
    """What a dataset file says of itself, as properties."""
    about = json.loads((schema.metadata or {}).get(b"ionbeam", b"{}"))
    return {key: str(about[key]) for key in PROPERTIES if key in about}


def write(
    files: Sequence[Path],
    schema: pa.Schema,
    targets: list[Target],
    codes: OdbCodes,
    properties: Mapping[str, str],
    draft: Path,
) -> OdbCounts:
    """Write `targets`, columns of `schema`, of all `files` to `draft`; where there is no target, there is no draft."""
    written = OdbCounts(first_number(properties))
    if not targets:
        return written
    height = next((name for name in HEIGHT_COLUMNS if name in columns_of(schema, "metadata")), None)
    columns = [name for name in ("datetime", "lat", "lon", STATION, WIGOS_COLUMN, height) if name in schema.names]
    columns += sorted({column for target in targets for column in target.columns})
    entries = entries_of(targets)
    same = constants(codes, properties.get("dataset", ""))
    encoder = Encoder(layout(entries), same, properties, ROWS_PER_FRAME)
    batch_rows = max(ROWS_PER_FRAME // 2, VALUES_PER_BATCH // len(entries))
    wanted = pa.schema([schema.field(name) for name in columns])
    with draft.open("wb") as file:
        for batch in _batches(files, wanted, batch_rows):
            reports = reports_of(batch, targets, entries, height, written)
            for frame in frames(reports, entries, ROWS_PER_FRAME):
                encoder.write(frame, file)
    return written


def _batches(files: Sequence[Path], wanted: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """The columns `wanted` of each file, null where it has none of that name."""
    for file in files:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 18) as source:
            there = [name for name in wanted.names if name in source.schema_arrow.names]
            for batch in source.iter_batches(rows, columns=there):
                for name in set(wanted.names).difference(there):
                    batch = batch.append_column(name, pa.nulls(batch.num_rows, wanted.field(name).type))
                yield batch
