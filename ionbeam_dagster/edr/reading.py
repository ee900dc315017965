"""The rows of single windows that a query asks for.

Belongs here: which row groups and rows of a file answer a query, its columns under the service's names, and what is
said of a window that cannot be read. Does not belong here: which windows are looked at (search.py, pages.py).

A file is opened once for a query, and all of its columns are read through that one handle: a window that is replaced
meanwhile gives its old rows or its new ones, never some of both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ionbeam_client import cf
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.edr import footers
from ionbeam_dagster.edr.collection import LOCATION, NAMES, WIGOS, Collection, stamp
from ionbeam_dagster.edr.files import WindowFile, version_of
from ionbeam_dagster.edr.parameters import Column, Parameter
from ionbeam_dagster.edr.query import Query
from ionbeam_dagster.edr.regions import Region, touches
from ionbeam_dagster.exporters.stations import position_ids

LOG = logging.getLogger(__name__)
ROWS_AT_ONCE = 30_000
ROWS_IN_PART = 250_000
ALL = 1 << 62
AT_ONCE = 8  # windows that are read between two looks at the bounds
_POOL = ThreadPoolExecutor(2, "ionbeam-query")
Mask = npt.NDArray[np.bool_]


def rows_of_windows(
    collection: Collection, windows: list[WindowFile], query: Query, wanted: dict[str, Parameter]
) -> Iterator[tuple[pa.Table | None, list[str]]]:
    """The rows of some windows that are asked for, and notes. What was read whole is looked through together where the
    columns are the same: a step costs the same for one small table as for eight."""
    whole: list[list[tuple[pa.Table, _Given]]] = [[] for _ in windows]
    for piece, told, _ in _POOL.map(
        lambda window, later: rows_of_window(collection, window, query, wanted, later=later), windows, whole
    ):
        yield piece, told
    alike: dict[tuple[object, ...], list[tuple[pa.Table, _Given]]] = {}
    for table, given in chain.from_iterable(whole):
        alike.setdefault((*table.column_names, *table.schema.types), []).append((table, given))
    for some in alike.values():
        notes: list[str] = []
        given = some[0][1]
        table = pa.concat_tables([table for table, _ in some], promote_options="permissive")
        mask = _mask(table, query, given.has_station)
        if mask is None or mask.any():
            yield _named(_kept(table, mask), given, wanted, notes), notes


@dataclass(frozen=True, slots=True)
class _Given:
    """What is given of the columns of a file."""

    chosen: Sequence[Column]
    described: Sequence[str]
    has_station: bool
    identified: bool


def rows_of_window(
    collection: Collection,
    window: WindowFile,
    query: Query,
    wanted: dict[str, Parameter],
    *,
    identified: bool = False,
    named: bool = False,
    each: Callable[[pa.Table], pa.Table] = lambda part: part,
    skip: int = 0,
    most: int | None = None,
    later: list[tuple[pa.Table, _Given]] | None = None,
) -> tuple[pa.Table | None, list[str], int]:
    """The rows of one window that are asked for (None: there are none), notes, and how many rows were passed over.

    A window is read in parts, and `each` is applied to them. `skip` rows are passed over and `most` given, in the order
    of the file; without `most` the newest are kept where there are more than the query's bound, and one more, to tell.
    Into `later` goes what was read without a look at which rows are asked for; it is not among the rows given.
    """
    notes: list[str] = []
    kept: list[pa.Table] = []
    passed = rows = 0
    enough = query.bounds.rows + 1
    try:
        if _elsewhere(collection, window, query):
            return None, notes, 0
        with collection.files.open(window.name) as handle:
            path = collection.files.path(window.name)
            for over, part in _parts(handle, path, collection, query, wanted, notes, identified, named, skip, later):
                passed += over
                if part is None:
                    continue
                drop = min(skip - passed, part.num_rows)
                passed += drop
                kept.append(each(part.slice(drop)))
                rows += kept[-1].num_rows
                if most is not None and rows >= most:
                    break
                if most is None and rows > 2 * enough:
                    kept = [latest(pa.concat_tables(kept, promote_options="permissive"), enough)]
                    rows = enough
    except FileNotFoundError:
        return None, notes, 0  # taken away after it was listed
    except (OSError, pa.ArrowException, _Unfit) as error:
        LOG.warning("%s cannot be read and is left out: %s", window.name, error)
        why = f": {error}" if isinstance(error, _Unfit) else ""
        return None, [f"the window {stamp(window.start)}/{stamp(window.end)} cannot be read and is left out{why}"], 0
    table = pa.concat_tables(kept, promote_options="permissive") if kept else None
    return table, notes, passed


class _Unfit(Exception):
    """A Parquet file that is no window of observations."""


def _elsewhere(collection: Collection, window: WindowFile, query: Query) -> bool:
    """Whether it is known without opening it that a window has no place that is asked for."""
    if query.region is None:
        return False
    footer = footers.known(collection.files.path(window.name), collection.files.version(window.name))
    return footer is not None and footer.box is not None and not touches(query.region.bounds, footer.box)


def _parts(
    handle: pa.NativeFile,
    path: str,
    collection: Collection,
    query: Query,
    wanted: dict[str, Parameter],
    notes: list[str],
    identified: bool,
    named: bool,
    skip: int,
    later: list[tuple[pa.Table, _Given]] | None,
) -> Iterator[tuple[int, pa.Table | None]]:
    """The rows that are asked for, in parts of at most `ROWS_IN_PART`. Where every row is asked for, row groups among
    the first `skip` rows are told by their number alone."""
    file = _opened(handle, collection)
    layout = collection.layout(file.schema_arrow)
    if not layout.fit:
        raise _Unfit("it lacks time or place")
    has_station = STATION in layout.described
    groups = list(range(file.num_row_groups))
    if query.region is not None:
        boxes = footers.boxes_of(file.metadata)
        groups = [number for number, box in enumerate(boxes) if box is None or touches(query.region.bounds, box)]
        footers.remembered(path, version_of(handle), file.metadata, boxes)
    if query.locations is not None and has_station:
        groups = _groups_of_stations(file, groups, query.locations)
    chosen = [column for column in layout.columns if column.parameter.id in wanted]
    texts = collection.texts()
    if odd := [one.name for one in chosen if one.is_text is not (one.parameter.id in texts)]:
        raise _Unfit(f"the values of {odd[0]} are of another type than in other windows")
    told = (STATION, *WIGOS, *(NAMES if named else ()))
    described = [name for name in layout.described if query.described or identified or name in told]
    given = _Given(chosen, described, has_station, identified)
    first = ["datetime", "lon", "lat", *([STATION] if has_station else [])]
    rest = [*described, *(["id"] if identified else []), *(column.name for column in chosen)]
    rest = [name for name in rest if name not in first]
    every = query.region is None and query.locations is None and query.start is None and query.end is None
    sizes = {number: file.metadata.row_group(number).num_rows for number in groups}
    while every and groups and sizes[groups[0]] <= skip:
        skip -= sizes[groups[0]]
        yield sizes[groups.pop(0)], None
    while groups:
        part = [groups.pop(0)]
        while groups and sum(sizes[number] for number in (*part, groups[0])) <= ROWS_IN_PART:
            part.append(groups.pop(0))
        # A second look at the same row groups costs more than a few columns of few rows.
        at_once = every or sum(sizes[number] for number in part) <= ROWS_AT_ONCE
        table = _read(file, part, [*first, *rest] if at_once else first)
        if at_once and not every and not groups and later is not None:
            later.append((table, given))
            return
        mask = _mask(table, query, has_station)
        if mask is not None and not mask.any():
            continue
        if not at_once and rest:
            more = _read(file, part, rest)
            table = pa.table({name: (table if name in first else more).column(name) for name in [*first, *rest]})
        yield 0, _named(_kept(table, mask), given, wanted, notes)


def _opened(handle: pa.NativeFile, collection: Collection) -> pq.ParquetFile:
    """The file, its texts as dictionaries where it has the columns that the collection's others have."""
    try:
        return pq.ParquetFile(handle, read_dictionary=collection.repeated, pre_buffer=False)
    except KeyError:
        return pq.ParquetFile(handle, pre_buffer=False)


def _read(file: pq.ParquetFile, groups: list[int], columns: list[str]) -> pa.Table:
    """Row groups; raises pyarrow.ArrowInvalid where a text is none, as damage makes it: Arrow reads it without a
    fault, and the whole answer would fail by it."""
    table = file.read_row_groups(groups, columns=columns, use_threads=False)
    for column in table.columns:
        if pa.types.is_dictionary(column.type) or pa.types.is_string(column.type):
            for chunk in column.chunks:
                chunk.validate(full=True)
    return table


def _groups_of_stations(file: pq.ParquetFile, groups: list[int], stations: tuple[str, ...]) -> list[int]:
    """Those of `groups` that have a row of one of `stations`."""
    if not groups:
        return []
    column = _read(file, groups, [STATION]).column(0)
    rows = np.flatnonzero(_among(column, stations))
    ends = np.cumsum([file.metadata.row_group(number).num_rows for number in groups])
    return [groups[place] for place in np.unique(np.searchsorted(ends, rows, side="right"))]


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
        return _among(keys.column(STATION), locations)
    places = position_ids(keys.column("lat").to_numpy(), keys.column("lon").to_numpy())
    return np.isin(places, np.array([location.encode("ascii", "replace") for location in locations]))


def _among(column: pa.ChunkedArray, stations: tuple[str, ...]) -> Mask:
    """Which rows have one of `stations`; compared once a distinct value where the column is a dictionary."""
    wanted = pa.array(stations, pa.string())
    if not pa.types.is_dictionary(column.type):
        return np.asarray(pc.is_in(column, value_set=wanted).to_numpy())
    if not column.num_chunks:
        return np.zeros(0, bool)
    distinct = pa.concat_arrays([chunk.dictionary for chunk in column.chunks])
    hits = pc.is_in(distinct, value_set=wanted.cast(distinct.type)).to_numpy(zero_copy_only=False)
    found = []
    for chunk in column.chunks:
        held, hits = hits[: len(chunk.dictionary)], hits[len(chunk.dictionary) :]
        if not held.any():
            found.append(np.zeros(len(chunk), bool))
            continue
        codes = chunk.indices.fill_null(0).to_numpy(zero_copy_only=False)
        found.append(held[codes] & chunk.is_valid().to_numpy(zero_copy_only=False) if chunk.null_count else held[codes])
    return np.concatenate(found)


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
    lon, lat = lon[near], lat[near]
    moved = np.ones(len(near), bool)
    if not getattr(region, "times", ()):
        moved[1:] = (lon[1:] != lon[:-1]) | (lat[1:] != lat[:-1])
    starts = np.flatnonzero(moved)
    inside = region.holds(lon[starts], lat[starts], moment[near][starts])
    held[near] = np.repeat(inside, np.diff(starts, append=len(near)))
    return held


def _kept(table: pa.Table, mask: Mask | None) -> pa.Table:
    return table if mask is None else table.filter(pa.array(mask))


def _named(rows: pa.Table, given: _Given, wanted: dict[str, Parameter], notes: list[str]) -> pa.Table:
    """The columns under the names of `Rows`, values in the units of `wanted`."""
    lon, lat = (rows.column(name).to_numpy() for name in ("lon", "lat"))
    columns: dict[str, Any] = {"datetime": pa.array(_micros(rows.column("datetime"))), "lon": lon, "lat": lat}
    if given.has_station:
        columns[LOCATION] = _text(rows.column(STATION))
    else:
        columns[LOCATION] = pa.array(position_ids(lat, lon).astype(str), pa.string())
    columns |= {name: _text(rows.column(name)) for name in given.described}
    if given.identified:
        columns["id"] = rows.column("id")
    for one in given.chosen:
        id = one.parameter.id
        values = _in_unit(rows.column(one.name), one.parameter, wanted[id], notes)
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


def latest(piece: pa.Table, rows: int) -> pa.Table:
    order = np.argsort(piece.column("datetime").to_numpy(), kind="stable")[-rows:]
    return piece.take(pa.array(order))


def joined(
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
