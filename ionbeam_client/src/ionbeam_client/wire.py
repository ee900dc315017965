"""How messages look on the broker: names of queues and exchanges, and the bytes of a message.

Belongs here: what both ends, client and platform, must agree on. Does not belong here: connections, state, or files
(payloads.py).

A message is the JSON of its model, or an Arrow IPC stream (zstd) that has this JSON in its schema's metadata under the
key ``ionbeam``. Rows that do not fit into one message travel in several: each is a whole Arrow stream, and its JSON
says ``"part": 3, "parts": 7`` under the same id.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import pyarrow as pa
from pydantic import ValidationError

from ionbeam_client.errors import MessageError
from ionbeam_client.models import (
    CanonicalVariable,
    DataSetAvailableEvent,
    IngestDataCommand,
    IngestionMetadata,
    MetadataVariable,
    ReplayDatasetsCommand,
    StartSourceCommand,
)

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
METADATA_KEY = b"ionbeam"
TIME = pa.timestamp("us", tz="UTC")

MAX_JSON_BYTES = 4_000_000
MAX_ROWS = 5_000_000
MAX_BYTES = 512_000_000
PART_ROWS = 1_000_000
PART_BYTES = 128_000_000
"""A part keeps far from the bounds of those who read it, however well it compresses."""

_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")

Message = IngestDataCommand | DataSetAvailableEvent | StartSourceCommand | ReplayDatasetsCommand
M = TypeVar("M", IngestDataCommand, DataSetAvailableEvent, StartSourceCommand, ReplayDatasetsCommand)


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue, bound to the fanout exchange `bound_to` if there is one. It is for ever, or until nobody has
    used it for `expires` seconds.

    Every queue has a dead queue, where messages that cannot be handled are kept with the reason in their headers.
    """

    name: str
    bound_to: str | None = None
    expires: int = 0

    @property
    def dead(self) -> Queue:
        return Queue(f"{self.name}{_DEAD}")

    @property
    def is_dead(self) -> bool:
        return self.name.endswith(_DEAD)


_DEAD = ".dead"
DATA_EXCHANGE = "ionbeam.data.available"
DATASET_EXCHANGE = "ionbeam.dataset.available"
INGESTION = Queue("ionbeam.ingestion.ingestV1")
REPLAY = Queue("ionbeam.dataset.replay")
RETURNED = "ionbeam.returned."


def source_queue(source: str) -> Queue:
    """Where a source's StartSourceCommands wait."""
    return Queue(f"ionbeam.source.{source}.start")


def exporter_queue(exporter: str) -> Queue:
    """Where an exporter's DataSetAvailableEvents wait."""
    return Queue(f"{DATASET_EXCHANGE}.{exporter}", bound_to=DATASET_EXCHANGE)


def returned_queue(user: str, client: str) -> Queue:
    """Where the client `client` of a broker's user is told what became of messages that were parked.

    Nobody but its user may read it, and the platform writes into it for nobody else.
    """
    return Queue(f"{RETURNED}{user}.{client}", expires=30 * 86_400)


# Headers of a message in a dead queue: why it is there, how often it was tried, how often a person sent it back, and
# the broker's user who sent it first.
ERROR_HEADER = "x-ionbeam-error"
DETAILS_HEADER = "x-ionbeam-traceback"
ATTEMPTS_HEADER = "x-ionbeam-attempts"
PARKED_HEADER = "x-ionbeam-parked-at"
REQUEUES_HEADER = "x-ionbeam-requeues"
SENDER_HEADER = "x-ionbeam-sender"


# -- columns ---------------------------------------------------------------------------------------------------------


def declared_schema(metadata: IngestionMetadata) -> pa.Schema:
    """The raw columns that `metadata` declares, as they travel: time in UTC microseconds, positions as float64, the
    variables and the metadata columns in their declared types, quality codes as int8."""
    mapping = metadata.ingestion_map
    columns = {mapping.datetime.column: TIME, mapping.lat.column: pa.float64(), mapping.lon.column: pa.float64()}
    variables: list[CanonicalVariable | MetadataVariable] = [*mapping.canonical_variables, *mapping.metadata_variables]
    variables += [MetadataVariable(column=flag, dtype="int8") for flag in mapping.flag_columns]
    for variable in variables:
        declared = pa.bool_() if variable.dtype == "bool" else pa.type_for_alias(variable.dtype)
        if columns.setdefault(variable.column, declared) != declared:
            raise MessageError(f"column {variable.column!r} is declared twice, with different types")
    return pa.schema(columns.items())


def check_columns(schema: pa.Schema, metadata: IngestionMetadata) -> None:
    """Raise MessageError when a message's columns are not those that it declares itself."""
    declared = declared_schema(metadata)
    if schema.names != declared.names:
        raise MessageError(f"the rows have the columns {schema.names}, the metadata declare {declared.names}")
    for field, wanted in zip(schema, declared, strict=True):
        if field.type != wanted.type:
            raise MessageError(f"column {field.name!r} is {field.type}, the metadata declare {wanted.type}")


# -- writing ---------------------------------------------------------------------------------------------------------


def json_body(message: Message) -> bytes:
    """A message without rows."""
    return message.model_dump_json().encode()


def message_id(message: Message) -> str:
    """The id of a message among all others: parts of one thing have different ones."""
    part = getattr(message, "part", 1)
    return f"{message.id}" if getattr(message, "parts", 1) == 1 else f"{message.id}/{part}"


def part_bodies(schema: pa.Schema, batches: Iterable[pa.RecordBatch], limit: int) -> Iterator[tuple[bytes, int]]:
    """Cut rows into parts of at most `limit` compressed bytes; yields (bytes, rows).

    The bytes lack the head, which says how many parts there are and is known only at the end; `sealed` puts it on. A
    single row that is larger than `limit` is a part of its own. Without a row there is one empty part.
    """
    cutter = PartCutter(schema, limit)
    for batch in batches:
        yield from cutter.add(batch)
    yield cutter.rest()


class PartCutter:
    """`part_bodies`, batch by batch."""

    def __init__(self, schema: pa.Schema, limit: int) -> None:
        self._schema = schema
        self._limit = limit
        self._pending: list[bytes] = []
        self._size = self._rows = self._decompressed = 0

    def add(self, batch: pa.RecordBatch) -> Iterator[tuple[bytes, int]]:
        """Take rows in; yields the parts that became full."""
        encoded = _encoded(self._schema, batch)
        if len(encoded) > self._limit and batch.num_rows > 1:
            half = batch.num_rows // 2
            yield from self.add(batch.slice(0, half))
            yield from self.add(batch.slice(half))
            return
        too_large = self._size + len(encoded) > self._limit or self._decompressed + batch.nbytes > PART_BYTES
        if self._pending and (too_large or self._rows + batch.num_rows > PART_ROWS):
            yield self.rest()
        self._pending.append(encoded)
        self._size += len(encoded)
        self._rows += batch.num_rows
        self._decompressed += batch.nbytes

    def rest(self) -> tuple[bytes, int]:
        """The part that is not full yet."""
        part = b"".join(self._pending), self._rows
        self._pending = []
        self._size = self._rows = self._decompressed = 0
        return part


def head(message: IngestDataCommand | DataSetAvailableEvent, schema: pa.Schema) -> bytes:
    """What stands before a part: the columns and the message's JSON."""
    described = schema.with_metadata({METADATA_KEY: json_body(message)})
    return bytes(described.serialize().to_pybytes())


def sealed(head_bytes: bytes, part: bytes) -> bytes:
    """The body of a message with rows: a whole Arrow IPC stream."""
    return head_bytes + part + _END_OF_STREAM


def with_rows(
    message: IngestDataCommand | DataSetAvailableEvent, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> bytes:
    """One message with all its rows, however large."""
    return sealed(head(message, schema), b"".join(_encoded(schema, batch) for batch in batches))


def _encoded(schema: pa.Schema, batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=_COMPRESSED) as writer:
        writer.write_batch(batch)
    stream = sink.getvalue()
    start = schema.serialize().size
    return bytes(stream[start : stream.size - len(_END_OF_STREAM)])


# -- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decoded(Generic[M]):
    """A message, and its rows as an Arrow IPC stream when they came with it."""

    message: M
    rows: bytes | None


def decode(model: type[M], body: bytes) -> Decoded[M]:
    """Read a message. Its rows are not looked at: `batches` does that.

    Raises MessageError with the reason when the body is not one.
    """
    text = json_of(body)
    try:
        return Decoded(model.from_wire(text), None if text is body else body)
    except ValidationError as error:
        raise MessageError(f"not a {model.__name__}: {_first_line(error)}") from error


def json_of(body: bytes) -> bytes:
    """The JSON of a message, with or without rows. Raises MessageError when there is none."""
    if body[:100].lstrip()[:1] == b"{":
        if len(body) > MAX_JSON_BYTES:
            raise MessageError(f"its JSON has {len(body)} bytes; at most {MAX_JSON_BYTES} are read")
        return body
    try:
        described = pa.ipc.read_schema(pa.py_buffer(body)).metadata or {}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise MessageError(f"neither JSON nor an Arrow IPC stream: {error}") from error
    if METADATA_KEY not in described:
        raise MessageError("an Arrow stream without its message (the schema metadata lack the key 'ionbeam')")
    return bytes(described[METADATA_KEY])


def batches(rows: bytes, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES) -> Iterator[pa.RecordBatch]:
    """The rows of a message, batch by batch, each validated; the message's JSON is taken off the schema.

    The bounds hold before anything is decompressed: what each buffer would become is written in the stream. Raises
    MessageError when a bound is exceeded or the stream is broken.
    """
    try:
        _check_size(rows, max_rows, max_bytes)
        with pa.ipc.open_stream(rows) as reader:
            for batch in reader:
                batch.validate(full=True)
                yield batch.replace_schema_metadata(None)
    except (pa.ArrowException, OSError, struct.error, IndexError, UnicodeDecodeError) as error:
        raise MessageError(f"a broken Arrow IPC stream: {error}") from error


def schema_of(rows: bytes) -> pa.Schema:
    """The columns of a message's rows, without the message's JSON."""
    return pa.ipc.read_schema(pa.py_buffer(rows)).remove_metadata()


def _check_size(rows: bytes, max_rows: int, max_bytes: int) -> None:
    total_rows = total_bytes = 0
    for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(rows)):
        if message.type == "dictionary":
            raise MessageError("dictionary-encoded columns are not accepted; send plain ones")
        if message.type != "record batch":
            continue
        length, size = _announced_size(memoryview(message.metadata), memoryview(message.body))
        total_rows += length
        total_bytes += size
        if total_rows > max_rows:
            raise MessageError(f"more than {max_rows} rows in one message")
        if total_bytes > max_bytes:
            raise MessageError(f"it would decompress to more than {max_bytes} bytes")


def _announced_size(metadata: memoryview, body: memoryview) -> tuple[int, int]:
    """(rows, decompressed bytes) of a record batch message, read from its flatbuffer (Arrow's Message.fbs)."""
    (root,) = struct.unpack_from("<I", metadata, 0)
    batch = _indirect(metadata, _field(metadata, root, 2))
    rows_at = _field(metadata, batch, 0)
    rows = struct.unpack_from("<q", metadata, rows_at)[0] if rows_at else 0
    compressed = _field(metadata, batch, 3) != 0
    buffers_at = _field(metadata, batch, 2)
    if rows < 0:
        raise MessageError("a record batch with a negative number of rows")
    if not buffers_at:
        return rows, 0
    vector = _indirect(metadata, buffers_at)
    (count,) = struct.unpack_from("<I", metadata, vector)
    size = 0
    for i in range(count):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * i)
        announced = struct.unpack_from("<q", body, offset)[0] if compressed and length >= 8 else -1
        size += length if announced == -1 else announced
        if offset < 0 or length < 0 or announced < -1:
            raise MessageError("a record batch with a buffer of negative size")
    return rows, size


def _indirect(data: memoryview, at: int) -> int:
    """Follow a flatbuffer offset."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: memoryview, table: int, index: int) -> int:
    """Where field `index` of a flatbuffer table stands; 0 when it is absent."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    (size,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * index + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * index)
    return table + offset if offset else 0


def _first_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(step) for step in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}"
