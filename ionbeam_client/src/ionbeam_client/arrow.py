"""Rows on their way out: what `ingest` accepts, and how it becomes record batches of the declared columns.

Belongs here: taking tables, frames and iterators apart, types, and the checks of names and units. Does not belong here:
messages (wire.py), or sending.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any
from uuid import UUID, uuid5

import pyarrow as pa
import pyarrow.compute as pc

from ionbeam_client import cf, wire
from ionbeam_client.errors import DataError, MessageError
from ionbeam_client.models import IngestDataCommand, IngestionMetadata

CHUNK_ROWS = 16_384
"""Rows are hashed and sent in chunks of so many, however they come: the id does not depend on the caller's batches."""

_INGESTION = UUID("b3a3c9a4-5a0e-5d2c-9c4f-6f0f0c3f7a11")


# -- names and units -------------------------------------------------------------------------------------------------


def checked_schema(metadata: IngestionMetadata) -> pa.Schema:
    """The columns that `metadata` declares. Raises DataError that names the column where a name or a unit is wrong."""
    if faults := cf.faults(metadata.model_dump_json()):
        raise DataError(faults)
    try:
        return wire.declared_schema(metadata)
    except MessageError as error:
        raise DataError(str(error)) from error


# -- what a caller may give ------------------------------------------------------------------------------------------


async def batches_of(data: Any) -> AsyncIterator[pa.RecordBatch]:
    """Arrow record batches out of whatever `data` is: an async or plain iterable of batches, tables or frames, or one
    Arrow table, batch or reader, polars (lazy) frame or pandas frame."""
    if isinstance(data, AsyncIterable):
        async for item in data:
            for batch in _batches_of_one(item):
                yield batch
    else:
        for batch in plain_batches_of(data):
            yield batch


def plain_batches_of(data: Any) -> Iterator[pa.RecordBatch]:
    """`batches_of` without the async iterables."""
    if _is_tabular(data):
        yield from _batches_of_one(data)
    elif isinstance(data, Iterable) and not isinstance(data, (str, bytes, dict)):
        for item in data:
            yield from _batches_of_one(item)
    else:
        raise _not_rows(data)


def _is_tabular(item: Any) -> bool:
    return isinstance(item, (pa.RecordBatch, pa.Table)) or _kind(item) != "" or hasattr(item, "__arrow_c_stream__")


def _kind(item: Any) -> str:
    module = type(item).__module__.partition(".")[0]
    return module if module in ("pandas", "polars") else ""


def _batches_of_one(item: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(item, pa.RecordBatch):
        yield item
    elif isinstance(item, pa.Table):
        yield from item.to_batches()
    elif _kind(item) == "pandas" and type(item).__name__ == "DataFrame":
        yield from pa.Table.from_pandas(item, preserve_index=False).to_batches()
    elif _kind(item) == "polars" and type(item).__name__ in ("DataFrame", "LazyFrame"):
        frame = item.collect() if type(item).__name__ == "LazyFrame" else item
        yield from frame.to_arrow().to_batches()
    elif hasattr(item, "__arrow_c_stream__"):
        yield from pa.RecordBatchReader.from_stream(item)
    else:
        raise _not_rows(item)


def _not_rows(item: Any) -> DataError:
    return DataError(
        f"{type(item).__name__} cannot be ingested; give Arrow record batches (also from an iterator, plain or async), "
        "an Arrow table, a polars frame or a pandas frame"
    )


# -- types -----------------------------------------------------------------------------------------------------------


def coerce(batch: pa.RecordBatch, declared: pa.Schema) -> pa.RecordBatch:
    """`batch` with exactly the declared columns, in their order and types.

    Values are never changed silently: only sub-microsecond digits of times are cut, and NaN in a column of integers is
    missing. Raises DataError that names the column, what it holds and what was declared.
    """
    duplicated = sorted({name for name in batch.schema.names if batch.schema.names.count(name) > 1})
    absent = [name for name in declared.names if name not in batch.schema.names]
    unknown = [name for name in batch.schema.names if name not in declared.names]
    if duplicated:
        raise DataError(f"column {duplicated[0]!r} is there twice")
    if absent:
        raise DataError(
            f"column {absent[0]!r} is declared in the ingestion map, but the rows have only {batch.schema.names}"
        )
    if unknown:
        raise DataError(
            f"column {unknown[0]!r} is not declared in the ingestion map; declare it as a canonical or metadata "
            "variable, or leave it out"
        )
    return pa.RecordBatch.from_arrays([_cast(batch.column(field.name), field) for field in declared], schema=declared)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if column.type == field.type:
        return column
    try:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_timestamp(field.type):
            return _as_time(column)
        if pa.types.is_integer(field.type) and pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        return column.cast(field.type)
    except (pa.ArrowException, DataError) as error:
        raise DataError(f"column {field.name!r} holds {column.type}, declared is {field.type}: {error}") from error


def _as_time(column: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        raise DataError("times without a time zone; give them as UTC, such as pa.timestamp('us', tz='UTC')")
    if not (pa.types.is_timestamp(column.type) or pa.types.is_string(column.type) or pa.types.is_null(column.type)):
        raise DataError("not times")
    return column.cast(wire.TIME, safe=not pa.types.is_timestamp(column.type))


# -- chunks and identity ---------------------------------------------------------------------------------------------


class Rechunker:
    """Turns batches of any size into chunks of `CHUNK_ROWS` rows (the last one: fewer)."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Take rows in; yields the chunks that became full."""
        self._pending.append(batch)
        self._rows += batch.num_rows
        if self._rows < CHUNK_ROWS:
            return
        whole = pa.concat_batches(self._pending) if len(self._pending) > 1 else batch
        full = self._rows - self._rows % CHUNK_ROWS
        self._pending, self._rows = [whole.slice(full)], self._rows - full
        for start in range(0, full, CHUNK_ROWS):
            yield whole.slice(start, CHUNK_ROWS)

    def rest(self) -> Iterator[pa.RecordBatch]:
        """The last chunk, when there is one."""
        if self._rows:
            yield pa.concat_batches(self._pending)


class Fingerprint:
    """The identity of an ingestion: a hash of its rows, range and metadata."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, chunk: pa.RecordBatch) -> None:
        """Take a chunk into account: its values, whatever lies in memory behind the missing ones."""
        for column in chunk.columns:
            for buffer in _values(column):
                self._digest.update(buffer)

    def id(self, command: IngestDataCommand) -> UUID:
        """The same for the same rows, range and metadata, on every machine."""
        told = command.model_dump_json(include={"metadata", "start_time", "end_time"})
        if command.source_name is not None:  # two sources may find the same, nothing above all
            told += f"\n{command.source_name}"
        if command.replaces:
            told += "\nreplaces"
        return uuid5(_INGESTION, f"{told}\n{self._digest.hexdigest()}")


def _values(column: pa.Array) -> Iterator[Any]:
    yield str(len(column)).encode()
    if column.null_count:
        yield pc.is_valid(column).cast(pa.uint8()).buffers()[1]
        column = pc.fill_null(column, pa.scalar(0).cast(column.type) if column.type != pa.string() else "")
    if pa.types.is_string(column.type):
        yield pc.binary_length(column).buffers()[1]
        yield pc.binary_join(pa.ListArray.from_arrays([0, len(column)], column), "")[0].as_buffer()
        return
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    width = column.type.bit_width // 8
    yield column.buffers()[1].slice(column.offset * width, len(column) * width)
