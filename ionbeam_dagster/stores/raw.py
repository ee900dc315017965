"""Raw partitions: what a source gave for a window, as it came, in one Parquet file with its ingestion metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from uuid import UUID, uuid5

import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.windows import Window, window_from_key
from ionbeam_dagster.stores.publish import file_hash, published, remove, size_of

_NAMESPACE = UUID("6f1f3c3e-5d0e-4f57-9a53-0c3b1d1c9f6e")
_KEY = b"ionbeam"
_BATCH = 128 * 1024


@dataclass(frozen=True, slots=True)
class RawFile:
    """An open raw partition: `swept` is the range that the source answered for, which an open window cuts short."""

    path: Path
    metadata: IngestionMetadata
    swept: Window
    rows: int

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, in batches of bounded size."""
        # Buffering ahead keeps what was read until the file is closed: memory would grow with the file.
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            yield from file.iter_batches(batch_size=_BATCH)


class RawStore:
    """Raw partitions under one folder: ``<root>/<source>/<source>_<YYYYmmddTHHMMSS>_<span>.parquet``.

    What clients send is kept one file an ingestion, whatever its range: ``..._<span>_<ingestion>.parquet``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, source: str, window: Window) -> Path:
        return self._root / source / f"{source}_{window.label}.parquet"

    def write(
        self, source: str, window: Window, swept: Window, metadata: IngestionMetadata, batches: Iterable[pa.RecordBatch]
    ) -> tuple[str, int]:
        """Write a raw partition; returns its ingestion id, which follows from content and range, and its rows."""
        with published(self.path(source, window)) as draft:
            rows = _write(draft, swept, metadata, batches)
            ingestion = _ingestion(source, window.label, draft)
        return ingestion, rows

    def write_sent(
        self, source: str, name: str, swept: Window, metadata: IngestionMetadata, batches: Iterable[pa.RecordBatch]
    ) -> tuple[Path, int]:
        """Write what a client sent under the ingestion's `name`; returns the file and its rows."""
        path = self._root / source / f"{source}_{swept.label}_{name}.parquet"
        with published(path) as draft:
            rows = _write(draft, swept, metadata, batches)
        return path, rows

    def size(self, path: Path) -> int:
        """The bytes of a raw partition, 0 where there is none."""
        return size_of(path)

    def remove(self, path: Path) -> None:
        remove(path)

    def files(self, source: str) -> list[Path]:
        """Every raw file of a source that is there, in order of name."""
        folder = self._root / source
        return sorted(folder.glob(f"{source}_*.parquet")) if folder.is_dir() else []

    def window_of(self, source: str, path: Path, span: timedelta) -> Window:
        """The window of `span` of a file that was collected; raises ValueError when its name is none of ours."""
        return window_from_key(path.stem.removeprefix(f"{source}_").split("_")[0], span)

    def collected_ingestion(self, source: str, path: Path) -> str:
        """The ingestion id of a file that was collected."""
        return _ingestion(source, path.stem.removeprefix(f"{source}_"), path)

    def sent_ingestion(self, source: str, path: Path) -> str:
        """The ingestion id of a file that was sent, as it stands in its name."""
        return path.stem.removeprefix(f"{source}_").split("_", 2)[2]

    def open(self, path: Path) -> RawFile:
        """Open a raw partition; raises OSError or pyarrow.ArrowInvalid when there is none that can be read."""
        with pq.ParquetFile(path) as file:
            written = json.loads(file.schema_arrow.metadata[_KEY])
            rows = file.metadata.num_rows
        swept = Window(datetime.fromisoformat(written["start"]), datetime.fromisoformat(written["end"]))
        return RawFile(path, IngestionMetadata.model_validate(written["metadata"]), swept, rows)


def _ingestion(source: str, label: str, file: Path) -> str:
    return str(uuid5(_NAMESPACE, f"{source} {label} {file_hash(file)}"))


def _write(draft: Path, swept: Window, metadata: IngestionMetadata, batches: Iterable[pa.RecordBatch]) -> int:
    stream = iter(batches)
    first = next(stream, None)
    schema = _empty_schema(metadata) if first is None else first.schema
    rows = 0
    with pq.ParquetWriter(draft, _described(schema, metadata, swept), compression="zstd") as writer:
        for batch in chain([] if first is None else [first], stream):
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _described(schema: pa.Schema, metadata: IngestionMetadata, swept: Window) -> pa.Schema:
    written = {
        "metadata": metadata.model_dump(mode="json"),
        "start": swept.start.isoformat(),
        "end": swept.end.isoformat(),
    }
    return schema.with_metadata({**(schema.metadata or {}), _KEY: json.dumps(written, sort_keys=True).encode()})


def _empty_schema(metadata: IngestionMetadata) -> pa.Schema:
    columns = metadata.ingestion_map
    return pa.schema(
        [
            (columns.datetime.column, pa.timestamp("us", tz="UTC")),
            (columns.lat.column, pa.float64()),
            (columns.lon.column, pa.float64()),
            *[(variable.column, pa.float64()) for variable in columns.canonical_variables],
            *[(flag, pa.int8()) for flag in columns.flag_columns],
            *[(variable.column, pa.string()) for variable in columns.metadata_variables],
        ]
    )
