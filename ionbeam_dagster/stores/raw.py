"""Raw partitions: what a source gave for a window, as it came, in one Parquet file with its ingestion metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from shutil import copyfile
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid5

import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import Window, window_from_key
from ionbeam_dagster.stores.damage import is_of_the_file
from ionbeam_dagster.stores.files import Files, name_of, within
from ionbeam_dagster.stores.publish import file_hash

_NAMESPACE = UUID("6f1f3c3e-5d0e-4f57-9a53-0c3b1d1c9f6e")
_KEY = b"ionbeam"
_BATCH = 128 * 1024


@dataclass(frozen=True, slots=True)
class RawFile:
    """An open raw partition: `collected` is the range that the source answered for, which an open window cuts short.

    `replaces` says of what a client sent that it takes the place of what its `sender` sent before for ranges in this
    one, and `notes` what else its writer put down. Of a sender who did not say who he is, the name is empty. One that
    was written again without some of its rows says its `ingestion`, which no longer follows from its content.
    """

    files: Files
    path: str
    metadata: IngestionMetadata
    collected: Window
    rows: int
    replaces: bool = False
    sender: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)
    ingestion: str = ""

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows, or these columns of them, in batches of bounded size; raises pyarrow.ArrowInvalid where they are
        damaged.

        A text that is no UTF-8 is damage, too: Arrow reads it without a fault, and polars panics at it later.
        """
        with self.files.parquet(self.path) as file:
            try:
                for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                    batch.validate(full=True)
                    yield batch
            except OSError as error:
                if not is_of_the_file(error):
                    raise
                raise pa.ArrowInvalid(f"{self.path} is damaged ({error})") from error


@dataclass(frozen=True, slots=True)
class Written:
    """A raw partition that was written: its ingestion id, which follows from content and range, its rows, and the size
    (bytes) and SHA-256 of its file."""

    ingestion: str
    rows: int
    bytes: int
    hash: str


class RawStore:
    """Raw partitions under one folder or prefix: ``<root>/<source>/<source>_<YYYYmmddTHHMMSS>_<span>.parquet``.

    What clients send is kept one file an ingestion, whatever its range: ``..._<span>_<ingestion>.parquet``.
    """

    def __init__(self, files: Files, root: str) -> None:
        self._files = files
        self._root = root

    def path(self, source: str, window: Window) -> str:
        return within(self._root, source, f"{source}_{window.label}.parquet")

    def write(
        self,
        source: str,
        window: Window,
        collected: Window,
        metadata: IngestionMetadata,
        batches: Iterable[pa.RecordBatch],
        is_as_before: Callable[[], bool] = lambda: False,
    ) -> Written:
        """Write a raw partition.

        Where `is_as_before` says so after the last batch, what the file held before is written again instead.
        """
        path, ingestion = self.path(source, window), ""
        with self._files.published(path) as draft:
            rows = _write(draft, collected, metadata, batches)
            if is_as_before():
                with self._files.fetched(path) as before:
                    copyfile(before, draft)
                rows, ingestion = pq.read_metadata(draft).num_rows, self.open(path).ingestion
            hash, size = file_hash(draft), draft.stat().st_size
        return Written(ingestion or _ingestion(source, window.label, hash), rows, size, hash)

    def write_sent(
        self,
        source: str,
        name: str,
        collected: Window,
        metadata: IngestionMetadata,
        batches: Iterable[pa.RecordBatch],
        replaces: bool = False,
        sender: str = "",
        **notes: object,
    ) -> RawPartition:
        """Write what a client sent under the ingestion's `name`.

        `notes`, of what JSON has, are kept in its footer.
        """
        path = self.sent_path(source, name, collected)
        said = {"replaces": replaces, "sender": sender, "notes": notes}
        footer = {name: value for name, value in said.items() if value}
        with self._files.published(path) as draft:
            rows = _write(draft, collected, metadata, batches, footer)
            hash, size = file_hash(draft), draft.stat().st_size
        return RawPartition(name, source, collected, path, rows, bytes=size, hash=hash, sender=sender)

    def write_again(self, file: RawFile, ingestion: str, left: Callable[[pa.RecordBatch], pa.RecordBatch]) -> None:
        """Write a raw partition with what is `left` of its rows, in its place and under the same `ingestion`."""
        said = {"replaces": file.replaces, "sender": file.sender, "notes": file.notes, "ingestion": ingestion}
        footer = {name: value for name, value in said.items() if value}
        with self._files.published(file.path) as draft:
            _write(draft, file.collected, file.metadata, map(left, file.batches()), footer)

    def sent_path(self, source: str, name: str, collected: Window) -> str:
        return within(self._root, source, f"{source}_{collected.label}_{name}.parquet")

    def files(self, source: str) -> list[str]:
        """Every raw file of a source that is there, in order of name."""
        found = self._files.under(within(self._root, source))
        return [path for path in found if name_of(path).startswith(f"{source}_") and path.endswith(".parquet")]

    def window_of(self, source: str, path: str, span: timedelta) -> Window:
        """The window of `span` of a file that was collected; raises ValueError when its name is none of ours."""
        return window_from_key(_label(source, path).split("_")[0], span)

    def collected(self, source: str, window: Window, path: str) -> RawPartition:
        """What the file of a window tells of itself; raises OSError or pyarrow.ArrowInvalid where it cannot be read."""
        rows, size, hash = self.measured(path)
        ingestion = self.open(path).ingestion or _ingestion(source, _label(source, path), hash)
        return RawPartition(ingestion, source, window, path, rows, bytes=size, hash=hash)

    def sent(self, source: str, path: str) -> RawPartition:
        """The same of a file that was sent."""
        rows, size, hash = self.measured(path)
        file, name = self.open(path), self.sent_ingestion(source, path)
        return RawPartition(name, source, file.collected, path, rows, bytes=size, hash=hash, sender=file.sender)

    def measured(self, path: str) -> tuple[int, int, str]:
        """The rows, the bytes and the SHA-256 of a file."""
        with self._files.fetched(path) as file:
            return pq.read_metadata(file).num_rows, file.stat().st_size, file_hash(file)

    def sent_ingestion(self, source: str, path: str) -> str:
        """The ingestion id of a file that was sent, as it stands in its name."""
        return _label(source, path).split("_", 2)[2]

    def sent_as(self, source: str, name: str) -> str | None:
        """A file in which what a client sent under the ingestion's `name` was written, if there is one."""
        return next((path for path in self.files(source) if path.endswith(f"_{name}.parquet")), None)

    def open(self, path: str) -> RawFile:
        """Open a raw partition; raises OSError or pyarrow.ArrowInvalid when there is none that can be read."""
        with self._files.parquet(path) as file:
            written = json.loads(file.schema_arrow.metadata[_KEY])
            rows = file.metadata.num_rows
        collected = Window(datetime.fromisoformat(written["start"]), datetime.fromisoformat(written["end"]))
        metadata = IngestionMetadata.model_validate(written["metadata"])
        return RawFile(
            self._files, path, metadata, collected, rows, written.get("replaces", False), written.get("sender", ""),
            written.get("notes", {}), written.get("ingestion", ""),
        )  # fmt: skip


def _label(source: str, path: str) -> str:
    """What a file's name says after its source."""
    return name_of(path).removeprefix(f"{source}_").removesuffix(".parquet")


def _ingestion(source: str, label: str, hash: str) -> str:
    return str(uuid5(_NAMESPACE, f"{source} {label} {hash}"))


def _write(
    draft: Path,
    collected: Window,
    metadata: IngestionMetadata,
    batches: Iterable[pa.RecordBatch],
    footer: Mapping[str, object] = MappingProxyType({}),
) -> int:
    stream = iter(batches)
    first = next(stream, None)
    schema = _empty_schema(metadata) if first is None else first.schema
    rows = 0
    with pq.ParquetWriter(draft, _described(schema, metadata, collected, footer), compression="zstd") as writer:
        for batch in chain([] if first is None else [first], stream):
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _described(
    schema: pa.Schema, metadata: IngestionMetadata, collected: Window, footer: Mapping[str, object]
) -> pa.Schema:
    written = {
        "metadata": metadata.model_dump(mode="json"),
        "start": collected.start.isoformat(),
        "end": collected.end.isoformat(),
    } | dict(footer)
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
