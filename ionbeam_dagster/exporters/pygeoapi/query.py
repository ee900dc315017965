"""Queries over the windows of one dataset: from files to one Arrow table.

Belongs here: which files, row groups and rows answer a query, and the bounds that keep it from reading all of history
by accident. Does not belong here: how a request is read (asked.py) or an answer is written (answers.py).

Files are taken from the newest back: what a bound leaves out is the oldest, and the answer says from where on. A file
is opened once for a query, and all of its columns are read through that one handle: a window that is replaced meanwhile
gives its old rows or its new ones, never some of both.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ionbeam_dagster.domain import cf
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.exporters.pygeoapi.files import Files, WindowFile, overlapping
from ionbeam_dagster.exporters.pygeoapi.parameters import Column, Parameter, layout_of
from ionbeam_dagster.exporters.pygeoapi.regions import Circles, Region, distance, touches
from ionbeam_dagster.exporters.stations import position_ids

LOG = logging.getLogger(__name__)
NEWEST = 24 * 3600 * 1_000_000  # us: how far a query reaches back that names no time
NAMES = ("station_name", "name")
WIGOS = ("wigos_id", "wigosid", "wigos_station_identifier")
LOCATION = "location"
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one query may read: rows that it gives, files that it opens, seconds that it takes."""

    rows: int = 100_000
    files: int = 5_000
    seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a collection. Times are microseconds since 1970, both ends included; None leaves a side open.

    `parameters` and `locations` are ids, None for all. `described` asks for every metadata column.
    """

    start: int | None = None
    end: int | None = None
    region: Region | None = None
    locations: tuple[str, ...] | None = None
    parameters: tuple[str, ...] | None = None
    nearest: bool = False
    described: bool = False
    bounds: Bounds = Bounds()


@dataclass(slots=True)
class Found:
    """Rows ordered by location and time: ``datetime`` (int64, us), ``lon``, ``lat``, ``location``, the metadata
    columns, and one column a parameter, by its id. `notes` say what the rows leave out, and why."""

    table: pa.Table
    parameters: dict[str, Parameter]
    notes: list[str] = field(default_factory=list)


class Collection:
    """One dataset's windows."""

    def __init__(self, name: str, files: Files, ever: dict[str, Parameter] | None = None) -> None:
        self.name = name
        self.files = files
        self._ever = ever or {}
        self._newest: tuple[object, dict[str, Parameter], tuple[str, ...]] | None = None
        self._counts: dict[str, tuple[tuple[int, int], int]] = {}
        self._lock = threading.Lock()

    def parameters(self) -> dict[str, Parameter]:
        """All parameters by id: those of the newest window that can be read, and those that any window ever had."""
        return self._described()[0]

    def described(self) -> tuple[str, ...]:
        """The metadata columns of the newest window that can be read."""
        return self._described()[1]

    def _described(self) -> tuple[dict[str, Parameter], tuple[str, ...]]:
        windows = self.files.windows()
        for window in windows[: -20 - 1 : -1]:
            with suppress(OSError, pa.ArrowException):
                version = (window.name, self.files.version(window.name))
                if self._newest is None or self._newest[0] != version:
                    layout = layout_of(self._schema(window))
                    if not layout.fit:
                        continue
                    found = {column.parameter.id: column.parameter for column in layout.columns}
                    self._newest = version, dict(sorted({**self._ever, **found}.items())), layout.described
                return self._newest[1], self._newest[2]
        return self._ever, ()

    def _schema(self, window: WindowFile) -> pa.Schema:
        with self.files.open(window.name) as handle:
            return pq.read_schema(handle)

    def rows_in(self, window: WindowFile) -> int:
        """How many rows a window has, 0 where it cannot be read; remembered until the file is replaced."""
        try:
            version = self.files.version(window.name)
            known = self._counts.get(window.name)
            if known is None or known[0] != version:
                with self.files.open(window.name) as handle:
                    known = version, pq.read_metadata(handle).num_rows
                with self._lock:
                    self._counts[window.name] = known
        except (OSError, pa.ArrowException):
            return 0
        return known[1]


def run(collection: Collection, query: Query) -> Found:
    """All rows that `query` asks for, within its bounds."""
    windows, notes = _windows(collection, query)
    known = collection.parameters()
    wanted = known if query.parameters is None else {id: known[id] for id in query.parameters if id in known}
    deadline = time.monotonic() + query.bounds.seconds
    pieces: list[pa.Table] = []
    rows = 0
    for done, window in enumerate(reversed(windows)):
        if done >= query.bounds.files or time.monotonic() > deadline or rows >= query.bounds.rows:
            reason = (
                f"{query.bounds.rows:,} rows"
                if rows >= query.bounds.rows
                else f"{query.bounds.files:,} windows"
                if done >= query.bounds.files
                else f"{query.bounds.seconds:g} seconds"
            )
            notes.append(
                f"bounded at {reason}: nothing before {stamp(window.end)} was looked at; "
                f"ask again with datetime=../{stamp(window.end - 1)}"
            )
            break
        piece = _read(collection, window, query, wanted, notes)
        if piece is not None and piece.num_rows:
            left = query.bounds.rows - rows
            if piece.num_rows > left:
                piece = _latest(piece, left)
                first = int(piece.column("datetime")[0].as_py())
                notes.append(
                    f"bounded at {query.bounds.rows:,} rows: the oldest are left out; narrow the time or the place, "
                    f"or ask again with datetime=../{stamp(first)}"
                )
            pieces.append(piece)
            rows += piece.num_rows
            if len(notes) and notes[-1].startswith("bounded"):
                break
    table = _joined(pieces, wanted, query, collection)
    if query.nearest and isinstance(query.region, Circles) and table.num_rows:
        table = _nearest(table, query.region)
    return Found(table, {id: wanted[id] for id in wanted if id in table.column_names}, notes)


def places(collection: Collection, query: Query) -> Found:
    """One row a location, where it was last: the columns of `run` without parameters."""
    import polars as pl

    windows, notes = _windows(collection, query)
    deadline = time.monotonic() + query.bounds.seconds
    seen: pl.DataFrame | None = None
    for window in reversed(windows):
        if time.monotonic() > deadline or (seen is not None and seen.height > query.bounds.rows):
            notes.append(f"bounded: locations that were last seen before {stamp(window.end)} are left out")
            break
        piece = _read(collection, window, replace(query, described=False), {}, notes, named=True)
        if piece is not None and piece.num_rows:
            frame = pl.DataFrame(pl.from_arrow(piece)).sort("datetime").unique(LOCATION, keep="last")
            seen = (
                frame
                if seen is None
                else pl.concat([seen, frame], how="diagonal").unique(LOCATION, keep="first", maintain_order=True)
            )
    if seen is None:
        return Found(_joined([], {}, query, collection), {}, notes)
    return Found(seen.sort(LOCATION).to_arrow(), {}, notes)


@dataclass(slots=True)
class Page:
    """Some of the rows that a query asks for, in the order of windows and of rows in them, with the column ``id``.

    `after` continues behind the last row, None at the end; `matched` is how many there are in all, None where that is
    not known without reading them.
    """

    found: Found
    after: str | None
    matched: int | None


def page(collection: Collection, query: Query, limit: int, offset: int = 0, after: str | None = None) -> Page:
    """At most `limit` rows behind `offset` others, or behind where the page before ended.

    `after` is ``<start of a window>.<rows of it that were given>``. Windows that `offset` passes over whole cost a look
    at their row count, once.
    """
    windows = overlapping(collection.files.windows(), query.start, query.end)
    notes: list[str] = []
    known = collection.parameters()
    wanted = known if query.parameters is None else {id: known[id] for id in query.parameters if id in known}
    plain = query.region is None and query.locations is None
    matched = sum(_rows_asked(collection, window, query) for window in windows) if plain else None
    skip = offset
    if after is not None:
        begin, given = (int(part) for part in after.split("."))
        windows = [window for window in windows if window.start >= begin]
        skip = given if windows and windows[0].start == begin else 0
    deadline = time.monotonic() + query.bounds.seconds
    pieces: list[pa.Table] = []
    room, cursor = limit, None
    for window in windows:
        if time.monotonic() > deadline:
            notes.append(f"bounded at {query.bounds.seconds:g} seconds: follow the link `next` for what is left")
            cursor = f"{window.start}.0"
            break
        if plain and after is None and skip >= (count := _rows_asked(collection, window, query)):
            skip -= count
            continue
        piece = _read(collection, window, query, wanted, notes, identified=True)
        if piece is None:
            continue
        passed = min(skip, piece.num_rows)
        skip -= passed
        if piece.num_rows - passed > room:
            pieces.append(piece.slice(passed, room))
            cursor = f"{window.start}.{passed + room}"
            break
        pieces.append(piece.slice(passed))
        room -= piece.num_rows - passed
    table = _joined(pieces, wanted, query, collection, ordered=False)
    return Page(Found(table, {id: wanted[id] for id in wanted if id in table.column_names}, notes), cursor, matched)


def item(collection: Collection, id: str) -> Found | None:
    """The row of an id (``<time>-<hash>``), from the one window that its time lies in; None where there is none."""
    try:
        moment = datetime.strptime(id.split("-")[0].split(".")[0].rstrip("Z"), "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    start = int(moment.timestamp()) * 1_000_000
    query = Query(start, start + 999_999, described=True)
    wanted = collection.parameters()
    for window in overlapping(collection.files.windows(), start, start + 999_999):
        notes: list[str] = []
        piece = _read(collection, window, query, wanted, notes, identified=True)
        if piece is not None:
            piece = piece.filter(pc.equal(piece.column("id"), id))
            if piece.num_rows:
                return Found(_joined([piece], wanted, query, collection, ordered=False), wanted, notes)
    return None


def stamp(moment: int) -> str:
    """Microseconds since 1970 as RFC 3339 text."""
    text = datetime.fromtimestamp(moment / 1e6, UTC)
    return text.strftime("%Y-%m-%dT%H:%M:%SZ") if moment % 1_000_000 == 0 else text.isoformat().replace("+00:00", "Z")


def _windows(collection: Collection, query: Query) -> tuple[list[WindowFile], list[str]]:
    windows = collection.files.windows()
    if query.start is None and query.end is None and windows:
        newest = max(window.end for window in windows[-50:])
        kept = overlapping(windows, newest - NEWEST, None)
        told = f"no datetime was asked for: the newest 24 hours are given, from {stamp(kept[0].start)} on"
        return kept, [told] if len(kept) < len(windows) else []
    return overlapping(windows, query.start, query.end), []


def _read(
    collection: Collection,
    window: WindowFile,
    query: Query,
    wanted: dict[str, Parameter],
    notes: list[str],
    identified: bool = False,
    named: bool = False,
) -> pa.Table | None:
    """The rows of one window that are asked for; None where there are none, or it cannot be read, which is noted."""
    try:
        with collection.files.open(window.name) as handle:
            return _rows_of(handle, query, wanted, notes, identified, named)
    except FileNotFoundError:
        return None  # taken away after it was listed
    except (OSError, pa.ArrowException, _Unfit) as error:
        LOG.warning("%s cannot be read and is left out: %s", window.name, error)
        notes.append(f"the window {stamp(window.start)}/{stamp(window.end)} cannot be read and is left out")
        return None


class _Unfit(Exception):
    """A Parquet file that is no window of observations."""


def _rows_of(
    handle: pa.NativeFile, query: Query, wanted: dict[str, Parameter], notes: list[str], identified: bool, named: bool
) -> pa.Table | None:
    metadata = pq.read_metadata(handle)
    texts = [name for name in (STATION, *NAMES, *WIGOS) if name in metadata.schema.names]
    file = pq.ParquetFile(handle, metadata=metadata, read_dictionary=texts, pre_buffer=False)
    schema = file.schema_arrow
    layout = layout_of(schema)
    if not layout.fit:
        raise _Unfit(f"its columns are {', '.join(schema.names) or 'none'}")
    groups = _groups(metadata, query)
    if not groups:
        return None
    has_station = STATION in layout.described
    by_station = query.locations is not None and has_station
    first = ["datetime", "lon", "lat", *([STATION] if by_station else [])]
    if identified and query.region is None and query.locations is None:
        first.append("id")
    keys = file.read_row_groups(groups, columns=first, use_threads=False)
    mask = _mask(keys, query, has_station)
    if mask is not None and not mask.any():
        return None
    chosen = [column for column in layout.columns if column.parameter.id in wanted]
    described = [
        name
        for name in layout.described
        if query.described or identified or name in (STATION, *WIGOS) or (named and name in NAMES)
    ]
    others = [
        name
        for name in [*described, *(["id"] if identified else []), *(column.name for column in chosen)]
        if name not in keys.column_names
    ]
    rest = file.read_row_groups(groups, columns=others, use_threads=False) if others else None
    if mask is not None:
        rows = pa.array(np.flatnonzero(mask))
        keys = keys.take(rows)
        rest = rest.take(rows) if rest is not None else None
    return _named(keys, rest, chosen, described, wanted, has_station, identified, notes)


def _groups(metadata: pq.FileMetaData, query: Query) -> list[int]:
    """The row groups that may hold what is asked for, by their statistics."""
    if query.start is None and query.end is None and query.region is None:
        return list(range(metadata.num_row_groups))
    place = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
    bounds = query.region.bounds if query.region is not None else None
    kept = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if bounds is not None:
            lon, lat = (group.column(place[name]).statistics for name in ("lon", "lat"))
            known = lon is not None and lon.has_min_max and lat is not None and lat.has_min_max
            if known and not touches(bounds, (lon.min, lat.min, lon.max, lat.max)):
                continue
        kept.append(number)
    return kept


def _mask(keys: pa.Table, query: Query, has_station: bool) -> Mask | None:
    """Which rows are asked for; None for all of them."""
    moment = _micros(keys.column("datetime"))
    lon, lat = (keys.column(name).to_numpy() for name in ("lon", "lat"))
    parts: list[Mask] = []
    if query.start is not None and (low := moment >= query.start) is not None and not low.all():
        parts.append(low)
    if query.end is not None and (high := moment <= query.end) is not None and not high.all():
        parts.append(high)
    if query.locations is not None:
        parts.append(_of_locations(keys, query.locations, has_station))
    if query.region is not None:
        parts.append(_in_region(query.region, lon, lat, moment))
    return np.logical_and.reduce(parts) if parts else None


def _of_locations(keys: pa.Table, locations: tuple[str, ...], has_station: bool) -> Mask:
    if has_station:
        held = pc.is_in(keys.column(STATION), value_set=pa.array(locations, pa.string()))
        return np.asarray(held.to_numpy())
    places = position_ids(keys.column("lat").to_numpy(), keys.column("lon").to_numpy())
    return np.isin(places, np.array([location.encode("ascii", "replace") for location in locations]))


def _in_region(
    region: Region, lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64], moment: npt.NDArray[np.int64]
) -> Mask:
    """Tested once a run of rows at one place and in its bounds, where the region does not ask for the time."""
    held = np.zeros(len(lon), bool)
    rough = np.zeros(len(lon), bool)
    for west, south, east, north in region.bounds:
        rough |= (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)
    near = np.flatnonzero(rough)
    if not len(near):
        return held
    east, north = lon[near], lat[near]
    moved = np.ones(len(near), bool)
    if not getattr(region, "times", ()):
        moved[1:] = (east[1:] != east[:-1]) | (north[1:] != north[:-1])
    starts = np.flatnonzero(moved)
    inside = region.holds(east[starts], north[starts], moment[near][starts])
    held[near] = np.repeat(inside, np.diff(starts, append=len(near)))
    return held


def _named(
    keys: pa.Table,
    rest: pa.Table | None,
    chosen: Sequence[Column],
    described: list[str],
    wanted: dict[str, Parameter],
    has_station: bool,
    identified: bool,
    notes: list[str],
) -> pa.Table:
    """The columns under the names of `Found`, values in the units of `wanted`."""

    def column(name: str) -> pa.ChunkedArray:
        return keys.column(name) if name in keys.column_names else rest.column(name)  # type: ignore[union-attr]

    lon, lat = (keys.column(name).to_numpy() for name in ("lon", "lat"))
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "datetime": pa.array(_micros(keys.column("datetime"))),
        "lon": lon,
        "lat": lat,
    }
    if has_station:
        columns[LOCATION] = _text(column(STATION))
    else:
        columns[LOCATION] = pa.array(position_ids(lat, lon).astype(str), pa.string())
    columns |= {name: _text(column(name)) for name in described}
    if identified:
        columns["id"] = column("id")
    for one in chosen:
        id = one.parameter.id
        values = _in_unit(column(one.name), one.parameter, wanted[id], notes)
        if values is not None:
            columns[id] = pc.coalesce(columns[id], values.cast(columns[id].type)) if id in columns else values
    return pa.table(columns)


def _in_unit(values: pa.ChunkedArray, has: Parameter, wanted: Parameter, notes: list[str]) -> pa.ChunkedArray | None:
    if has.unit == wanted.unit:
        return values
    try:
        scale, offset = cf.conversion(has.unit, wanted.unit)
    except cf.UnitError:
        told = f"values of {has.id} in {has.unit!r} are left out: they cannot be given in {wanted.unit!r}"
        if told not in notes:
            notes.append(told)
        return None
    return pc.add(pc.multiply(values.cast(pa.float64()), scale), offset)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if column.type != pa.string() else column


def _micros(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy())


def _latest(piece: pa.Table, rows: int) -> pa.Table:
    order = np.argsort(piece.column("datetime").to_numpy(), kind="stable")[-rows:]
    return piece.take(pa.array(order))


def _joined(
    pieces: Sequence[pa.Table], wanted: dict[str, Parameter], query: Query, collection: Collection, ordered: bool = True
) -> pa.Table:
    """One table of all pieces (newest first), ordered by location and time."""
    if not pieces:
        empty = {"datetime": pa.int64(), "lon": pa.float64(), "lat": pa.float64(), LOCATION: pa.string()}
        return pa.schema(list(empty.items())).empty_table()
    table = pa.concat_tables(list(pieces) if not ordered else list(pieces)[::-1], promote_options="permissive")
    if not ordered:
        return table.combine_chunks()
    return table.combine_chunks().sort_by([(LOCATION, "ascending"), ("datetime", "ascending")])


def _nearest(table: pa.Table, circles: Circles) -> pa.Table:
    """The rows of the location that came nearest to each centre."""
    lon, lat, location = (table.column(name).to_numpy(zero_copy_only=False) for name in ("lon", "lat", LOCATION))
    chosen = set()
    for east, north in circles.centres:
        metres = distance(lon, lat, east, north)
        best = int(np.argmin(metres))
        if metres[best] <= circles.radius:
            chosen.add(location[best])
    return table.filter(pc.is_in(table.column(LOCATION), value_set=pa.array(sorted(chosen), pa.string())))


def _rows_asked(collection: Collection, window: WindowFile, query: Query) -> int:
    """How many rows of a window lie in the time that is asked for."""
    whole = (query.start is None or query.start <= window.start) and (query.end is None or query.end >= window.end - 1)
    if whole:
        return collection.rows_in(window)
    piece = _read(collection, window, Query(query.start, query.end), {}, [])
    return 0 if piece is None else piece.num_rows
