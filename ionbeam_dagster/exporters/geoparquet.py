"""GeoParquet 1.1: one file a window, every row a point feature, as PyGeoAPI and any GeoParquet reader take it.

Belongs here: the layout of that file (ids, geometry, covering, spatial order, row groups) and the reading back. Does
not belong here: PyGeoAPI's configuration, or the answering of queries.

Rows lie along a Hilbert curve, then by station and time. A window is short and its file is one of many, so that a query
by time picks files; within a file it is the place that tells row groups and pages apart, and the series of a station
stays in one piece.

The layout follows https://geoparquet.org/releases/v1.1.0 and its guide to distribution.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from glob import escape
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from ionbeam_dagster.domain.canonical import point_key
from ionbeam_dagster.errors import ExportError
from ionbeam_dagster.exporters import ExportPlan, ExportReport, WindowExporter
from ionbeam_dagster.exporters.settings import ExporterSettings
from ionbeam_dagster.stores.contents import Contents, parquet_contents, parquet_schema
from ionbeam_dagster.stores.publish import room_beside

ROWS_PER_GROUP = 5_000, 50_000  # a query of one place reads one group; a long window has no more groups than it needs
GROUPS = 100
ROWS_IN_MEMORY = 500_000
ROWS_PER_BATCH = 65_536
PAGE_SIZE = 1 << 16
SAMPLED_ROWS = 1_000_000

BBOX = pa.struct([pa.field(name, pa.float32(), nullable=False) for name in ("xmin", "ymin", "xmax", "ymax")])
ADDED = (
    pa.field("id", pa.string(), nullable=False),
    pa.field("geometry", pa.binary(), nullable=False),
    pa.field("bbox", BBOX, nullable=False),
)
_WKB_POINT = np.dtype([("byte_order", "u1"), ("type", "<u4"), ("x", "<f8"), ("y", "<f8")])
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), "S2")


class PyGeoApiService(ExporterSettings):
    """The GeoParquet exports (pygeoapi), and the web service that shows them."""

    apart_from_content: ClassVar[frozenset[str]] = ExporterSettings.apart_from_content | {"config_path"}

    config_path: Path | None = Field(
        default=None,
        description="PyGeoAPI's configuration, which the platform keeps; without it one in state_path.",
        examples=["./pygeoapi/local.config.yml"],
    )


class GeoParquetExporter(WindowExporter):
    """Writes dataset windows as GeoParquet 1.1 (zstd, CRS OGC:CRS84, points, bbox covering).

    The columns are ``id``, ``geometry``, ``bbox``, then those of the dataset with their field metadata; the dataset's
    own schema metadata stay. An id is ``<time>-<hash of the station key>``: it is the same in every revision of the
    window and unique in the file.
    """

    Settings: ClassVar[type[PyGeoApiService]] = PyGeoApiService
    format = "pygeoapi"
    title = "GeoParquet, which PyGeoAPI serves as OGC API - EDR: one row a point, with its geometry"
    extension = "parquet"
    media_type = "application/vnd.apache.parquet"
    kinds = ("parquet",)
    version = "1"

    def __init__(self, settings: PyGeoApiService | None = None) -> None:
        self.settings: PyGeoApiService = settings or PyGeoApiService()

    def notes(self) -> list[str]:
        if self.settings.config_path is None or find_spec("pygeoapi") is not None:
            return []
        return [
            f"projections.{self.section()}.config_path is set, but PyGeoAPI is not installed: its "
            "configuration is not written; pip install 'ionbeam-dagster[edr]'"
        ]

    def plan(self, schema: pa.Schema) -> ExportPlan:
        """Every column keeps its name, except that one named as an added column is (in any case) gets a ``_``."""
        taken = {column.name for column in ADDED} | {name.lower() for name in schema.names}
        mapped = {}
        for name in schema.names:
            mapped[name] = name
            if name.lower() in (column.name for column in ADDED):
                while mapped[name].lower() in taken:
                    mapped[name] += "_"
                taken.add(mapped[name].lower())
        return ExportPlan(mapped)

    def export(self, dataset_file: Path, draft: Path) -> ExportReport:
        """Write `draft` from a dataset file; see `exporters.WindowExporter`. It is read back by DuckDB."""
        try:
            with pq.ParquetFile(dataset_file, pre_buffer=False, buffer_size=1 << 18) as source:
                plan = self.plan(source.schema_arrow)
                if source.metadata.num_rows == 0:
                    return ExportReport(rows=0, stations=0, plan=plan)
                written = _write(source, plan, draft)
                read = _read_back(draft, written)
        except (OSError, pa.ArrowException, _Refused) as error:
            raise ExportError(f"was not written from {dataset_file}: {error}") from error
        return ExportReport(rows=written.rows, stations=written.stations, plan=plan, read_back=read)

    @classmethod
    def describe(cls, path: Path) -> Contents | None:
        """Its columns and first rows."""
        schema = parquet_schema(path)
        if schema is None or b"geo" not in (schema.metadata or {}):
            return None
        return parquet_contents(path, "GeoParquet export")


class _Refused(Exception):
    """Why a file is not published."""


@dataclass(slots=True)
class _Counts:
    """What went into a file: rows, stations, the values of each dataset column, and the extent in degrees."""

    extent: tuple[float, float, float, float]
    rows: int = 0
    stations: int = 0
    values: Counter[str] = field(default_factory=Counter)

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        self.values.update({name: table.num_rows - table.column(name).null_count for name in table.schema.names})


def _write(source: pq.ParquetFile, plan: ExportPlan, draft: Path) -> _Counts:
    schema = source.schema_arrow
    rows = source.metadata.num_rows
    written = _Counts(_extent(source.metadata))
    # Readers look for `geo` in the schema that stands at the head of the writing, not only in the footer.
    about = {key: value for key, value in (source.metadata.metadata or {}).items() if key != b"ARROW:schema"}
    about |= (schema.metadata or {}) | {b"geo": json.dumps(_geo_metadata(written.extent)).encode()}
    columns = [column.with_name(plan.mapped[column.name]) for column in schema]
    layout = pa.schema([*ADDED, *columns], metadata=about)
    # Ids differ in every row, times in many: deltas are smaller than a dictionary that overflows.
    deltas = {"id": "DELTA_BYTE_ARRAY", "datetime": "DELTA_BINARY_PACKED"}
    boxes = [f"bbox.{side.name}" for side in BBOX]
    repeated = ["geometry", *boxes, *(column.name for column in columns if column.name not in deltas)]
    fewest, most = ROWS_PER_GROUP
    group = math.ceil(rows / math.ceil(rows / min(max(rows / GROUPS, fewest), most)))
    batches = _stations_counted(source.iter_batches(ROWS_PER_BATCH), point_key(schema), written)
    with (
        pq.ParquetWriter(
            draft,
            layout,
            compression="zstd",
            use_dictionary=repeated,
            column_encoding=deltas,
            data_page_size=PAGE_SIZE,
            write_page_index=True,
            write_page_checksum=True,  # who takes a copy finds what was damaged where it lies
        ) as writer,
        ThreadPoolExecutor(1) as encoder,
    ):
        encoded: Future[None] | None = None  # one row group is encoded while the next is prepared
        for table in _regrouped(_in_spatial_order(source, batches, draft), group):
            features = pa.Table.from_arrays([_ids(table), _points(table), _boxes(table), *table.columns], schema=layout)
            written.add(table)
            if encoded:
                encoded.result()
            encoded = encoder.submit(writer.write_table, features, row_group_size=group)
        if encoded:
            encoded.result()
    return written


def _extent(metadata: pq.FileMetaData) -> tuple[float, float, float, float]:
    """West, south, east and north of a dataset file, from its statistics."""
    column_of = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    lon, lat = ([group.column(column_of[name]).statistics for group in groups] for name in ("lon", "lat"))
    if not all(found is not None and found.has_min_max for found in (*lon, *lat)):
        raise _Refused("it has no statistics of lon and lat, which every dataset file has")
    return min(s.min for s in lon), min(s.min for s in lat), max(s.max for s in lon), max(s.max for s in lat)


def _geo_metadata(extent: tuple[float, float, float, float]) -> dict[str, object]:
    covering = {"bbox": {part.name: ["bbox", part.name] for part in BBOX}}
    geometry = {"encoding": "WKB", "geometry_types": ["Point"], "bbox": list(extent), "covering": covering}
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}


# Order: a file that fits into memory is sorted there, a larger one is first dealt out to buckets along the curve.


def _in_spatial_order(source: pq.ParquetFile, batches: Iterator[pa.RecordBatch], draft: Path) -> Iterator[pa.Table]:
    """The rows of `batches` along the Hilbert curve; those of one place stay in their order (station, then time)."""
    schema = source.schema_arrow
    if source.metadata.num_rows <= ROWS_IN_MEMORY:
        yield from _sorted(pa.Table.from_batches(batches, schema))
        return
    edges = _bucket_edges(source)
    with room_beside(draft) as room:
        buckets = [room / f"{number}.arrow" for number in range(len(edges) + 1)]
        _deal_out(batches, schema, edges, buckets)
        for number, bucket in enumerate(buckets):
            one_place = 0 < number < len(edges) and edges[number] - edges[number - 1] == 1
            with pa.OSFile(str(bucket)) as file, pa.ipc.open_stream(file) as stream:
                if one_place:
                    yield from (pa.Table.from_batches([batch]) for batch in stream)
                else:
                    yield from _sorted(stream.read_all())
            bucket.unlink()


def _sorted(table: pa.Table) -> Iterator[pa.Table]:
    table = table.combine_chunks()
    order = np.argsort(curve_positions(table), kind="stable")
    for start in range(0, len(order), ROWS_PER_BATCH):
        yield table.take(pa.array(order[start : start + ROWS_PER_BATCH]))


def _bucket_edges(source: pq.ParquetFile) -> npt.NDArray[np.int64]:
    """Where to cut the curve so that each piece has at most about `ROWS_IN_MEMORY` rows.

    A place with more rows than that (a network of one station) fills a bucket of its own, which needs no sorting.
    """
    rows = source.metadata.num_rows
    step = -(-rows // SAMPLED_ROWS)
    places = source.iter_batches(ROWS_PER_BATCH, columns=["lat", "lon"])
    sample = np.sort(np.concatenate([curve_positions(batch)[::step] for batch in places]))
    pieces = -(-rows // ROWS_IN_MEMORY)
    cuts = sample[np.arange(1, pieces) * len(sample) // pieces]
    return np.unique(np.concatenate([cuts, cuts + 1]))


def _deal_out(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, edges: npt.NDArray[np.int64], buckets: list[Path]
) -> None:
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with ExitStack() as stack:
        files = [stack.enter_context(pa.OSFile(str(bucket), "wb")) for bucket in buckets]
        writers = [stack.enter_context(pa.ipc.new_stream(file, schema, options=options)) for file in files]
        for batch in batches:
            bucket_of_row = np.searchsorted(edges, curve_positions(batch), side="right")
            order = np.argsort(bucket_of_row, kind="stable")
            present, starts = np.unique(bucket_of_row[order], return_index=True)
            dealt = batch.take(pa.array(order))
            for bucket, start, end in zip(present, starts, [*starts[1:], len(order)], strict=True):
                writers[bucket].write_batch(dealt.slice(start, end - start))


def _regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` each (the last may be shorter)."""
    waiting: list[pa.Table] = []
    lacking = rows
    for table in tables:
        rest = table
        while rest.num_rows >= lacking:
            yield pa.concat_tables([*waiting, rest.slice(0, lacking)]).combine_chunks()
            rest = rest.slice(lacking)
            waiting, lacking = [], rows
        if rest.num_rows:
            waiting.append(rest)
            lacking -= rest.num_rows
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


# Columns, computed from a whole batch or table at once.


def _positions(rows: pa.Table | pa.RecordBatch) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return rows.column("lon").to_numpy(), rows.column("lat").to_numpy()


def curve_positions(rows: pa.Table | pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Where each row lies on a Hilbert curve over the globe (2^16 x 2^16 cells, about 600 m)."""
    lon, lat = _positions(rows)
    # Most rows stand where the row before them stands: compute each such run once.
    moved = np.ones(len(lon), bool)
    moved[1:] = (lon[1:] != lon[:-1]) | (lat[1:] != lat[:-1])
    run_starts = np.flatnonzero(moved)
    curve = hilbert(_cell(lon[run_starts], 180.0), _cell(lat[run_starts], 90.0))
    return np.repeat(curve, np.diff(run_starts, append=len(lon)))


def _cell(degrees: npt.NDArray[np.float64], limit: float) -> npt.NDArray[np.int64]:
    return np.clip((degrees + limit) * (65_536 / (2 * limit)), 0, 65_535).astype(np.int64)


def hilbert(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The positions (0 .. 2^32 - 1) of cells (0 <= x, y < 2^16) along a Hilbert curve."""
    position = np.zeros_like(x)
    for bit in reversed(range(16)):
        right, upper = (x >> bit) & 1, (y >> bit) & 1
        position = (position << 2) | (3 * right ^ upper)
        # The two lower quadrants hold the curve turned, the right one of them also mirrored.
        mirrored = -(right & (1 - upper))
        x, y = x ^ mirrored, y ^ mirrored
        turned = -(1 - upper) & (x ^ y)
        x, y = x ^ turned, y ^ turned
    return position


def _stations_counted(batches: Iterable[pa.RecordBatch], key: list[str], written: _Counts) -> Iterator[pa.RecordBatch]:
    """Pass `batches` (sorted by station, then time) on, counting stations; refuse two rows of one station and time."""
    last_station, last_time = np.empty(0, np.uint64), np.empty(0, "datetime64[us]")
    for batch in batches:
        station = np.concatenate([last_station, _station_hashes(batch, key)])
        time = np.concatenate([last_time, batch.column("datetime").to_numpy()])
        same = station[1:] == station[:-1]
        twice = np.flatnonzero(same & (time[1:] == time[:-1]))
        if len(twice):
            raise _Refused(
                f"{len(twice)} rows repeat the {', '.join(key)} and time of another, first at {time[twice[0]]}"
            )
        written.stations += int(np.count_nonzero(~same)) + (len(last_station) == 0)
        last_station, last_time = station[-1:], time[-1:]
        yield batch


def _ids(table: pa.Table) -> pa.Array:
    """``20250101T000000Z-0123456789abcdef``, with a fraction of the second where there is one."""
    moments = table.column("datetime").combine_chunks().dictionary_encode()
    texts = pl.Series(moments.dictionary).dt.strftime("%Y%m%dT%H%M%S%.fZ").to_arrow().cast(pa.string())
    hashes = _station_hashes(table, point_key(table.schema)).astype(">u8")
    digits = _HEX[hashes.view(np.uint8)].view("S16")
    offsets = np.arange(0, 16 * len(digits) + 1, 16, dtype=np.int32)
    suffix = pa.Array.from_buffers(pa.string(), len(digits), [None, pa.py_buffer(offsets), pa.py_buffer(digits)])
    return pc.binary_join_element_wise(texts.take(moments.indices), suffix, "-")


def _station_hashes(rows: pa.Table | pa.RecordBatch, key: list[str]) -> npt.NDArray[np.uint64]:
    """64 bits for each row's station key, the same for ever and everywhere."""
    total = np.zeros(rows.num_rows, np.uint64)
    for name in key:
        total = _mixed(total * np.uint64(31) + _value_hashes(rows.column(name)))
    return total


def _value_hashes(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    if pa.types.is_floating(column.type):
        return _mixed((column.to_numpy() + 0.0).view(np.uint64))  # + 0.0 makes one of the two zeros
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    encoded = column.dictionary_encode(null_encoding="encode")
    distinct = b"".join(_hash(value) for value in encoded.dictionary.to_pylist())
    hashes: npt.NDArray[np.uint64] = np.frombuffer(distinct, ">u8").astype(np.uint64)[encoded.indices.to_numpy()]
    return hashes


def _hash(value: str | None) -> bytes:
    return bytes(8) if value is None else blake2b(str(value).encode(), digest_size=8).digest()


def _mixed(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread every bit over all 64 (the finaliser of SplitMix64)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _points(table: pa.Table) -> pa.Array:
    """Well-known binary, little endian, 21 bytes a point."""
    points = np.empty(table.num_rows, _WKB_POINT)
    points["byte_order"], points["type"] = 1, 1
    points["x"], points["y"] = _positions(table)
    offsets = np.arange(0, 21 * len(points) + 1, 21, dtype=np.int32)
    return pa.Array.from_buffers(pa.binary(), len(points), [None, pa.py_buffer(offsets), pa.py_buffer(points)])


def _boxes(table: pa.Table) -> pa.StructArray:
    lon, lat = _positions(table)
    sides = (not_above(lon), not_above(lat), -not_above(-lon), -not_above(-lat))
    return pa.StructArray.from_arrays([pa.array(side) for side in sides], fields=list(BBOX))


def not_above(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The greatest float32 that is not greater than each value: a box must hold its point."""
    nearest = values.astype(np.float32)
    return np.where(nearest > values, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _read_back(path: Path, written: _Counts) -> dict[str, object]:
    """Read `path` with DuckDB; raises _Refused when it does not hold what was written."""
    import duckdb

    alias = {name: f"c{number}" for number, name in enumerate(written.values)}
    lon, lat = alias["lon"], alias["lat"]
    query = f"""
        SELECT count(*), min({lon}), min({lat}), max({lon}), max({lat}),
            count_if(octet_length(geometry) = 21 AND {lon} BETWEEN bbox.xmin AND bbox.xmax
                AND {lat} BETWEEN bbox.ymin AND bbox.ymax),
            {", ".join(f"count({column})" for column in alias.values())}
        FROM read_parquet(?) AS feature(id, geometry, bbox, {", ".join(alias.values())})
    """  # noqa: S608 (names of our own)
    try:
        with duckdb.connect(config={"threads": 1, "memory_limit": "256MB"}) as connection:
            connection.execute("SET enable_geoparquet_conversion = false")
            [row] = connection.execute(query, [escape(str(path))]).fetchall()
    except duckdb.Error as error:
        raise _Refused(f"DuckDB cannot read it: {error}") from error
    rows, west, south, east, north, boxed, *counts = row
    values = dict(zip(alias, counts, strict=True))
    expected = {"rows": written.rows, "extent": written.extent, "points in their box": written.rows}
    found = {"rows": rows, "extent": (west, south, east, north), "points in their box": boxed}
    expected |= {f"values of {name}": number for name, number in written.values.items()}
    found |= {f"values of {name}": number for name, number in values.items()}
    wrong = [f"{what}: {found[what]}, not {right}" for what, right in expected.items() if found[what] != right]
    if wrong:
        raise _Refused(f"DuckDB reads other than was written ({'; '.join(wrong)})")
    return {"rows": rows, "extent": [west, south, east, north], "values": values}
