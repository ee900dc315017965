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
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ionbeam_client import cf
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.edr import footers
from ionbeam_dagster.edr.collection import LOCATION, NAMES, WIGOS, Collection, stamp
from ionbeam_dagster.edr.files import WindowFile, version_of
from ionbeam_dagster.edr.matching import Mask, among, as_text, mask_of, micros
from ionbeam_dagster.edr.parameters import Column, Parameter
from ionbeam_dagster.edr.query import Query
from ionbeam_dagster.edr.regions import touches
from ionbeam_dagster.exporters.stations import position_ids

LOG = logging.getLogger(__name__)
ROWS_AT_ONCE = 30_000
ROWS_IN_PART = 250_000
ALL = 1 << 62
AT_ONCE = 8  # windows that are read between two looks at the bounds
_POOL = ThreadPoolExecutor(2, "ionbeam-query")


def rows_of_windows(
    collection: Collection, windows: list[WindowFile], query: Query, wanted: dict[str, Parameter]
) -> Iterator[tuple[pa.Table | None, list[str]]]:
    """The rows of some windows that are asked for, and notes. What was read whole is looked through together where the
    columns are the same: a step costs the same for one small table as for eight."""
    whole: list[list[_Whole]] = [[] for _ in windows]
    for piece, told, _ in _POOL.map(
        lambda window, later: rows_of_window(collection, window, query, wanted, later=later), windows, whole
    ):
        yield piece, told
    alike: dict[tuple[object, ...], list[_Whole]] = {}
    for one in chain.from_iterable(whole):
        alike.setdefault((*one.table.column_names, *one.table.schema.types), []).append(one)
    for some in alike.values():
        try:
            yield _asked_for(some, query, wanted)
        except pa.ArrowException:  # of one of them, which is left out
            for one in some:
                try:
                    yield _asked_for([one], query, wanted)
                except pa.ArrowException as error:
                    yield None, [_left_out(one.window, error)]


def _asked_for(some: list[_Whole], query: Query, wanted: dict[str, Parameter]) -> tuple[pa.Table | None, list[str]]:
    """The rows that are asked for of windows of the same columns, and notes."""
    notes: list[str] = []
    given = some[0].given
    table = pa.concat_tables([one.table for one in some], promote_options="permissive")
    mask = mask_of(table, query, given.has_station)
    if mask is not None and not mask.any():
        return None, notes
    return _named(_kept(table, mask), given, wanted, notes), notes


def _left_out(window: WindowFile, error: Exception) -> str:
    LOG.warning("%s cannot be read and is left out: %s", window.name, error)
    why = f": {error}" if isinstance(error, _Unfit) else ""
    return f"the window {stamp(window.start)}/{stamp(window.end)} cannot be read and is left out{why}"


@dataclass(frozen=True, slots=True)
class _Given:
    """What is given of the columns of a file."""

    chosen: Sequence[Column]
    described: Sequence[str]
    has_station: bool
    identified: bool


class _Whole(NamedTuple):
    """A window that was read without a look at which of its rows are asked for."""

    window: WindowFile
    table: pa.Table
    given: _Given


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
    later: list[_Whole] | None = None,
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
            for over, part in _parts(handle, window, collection, query, wanted, notes, identified, named, skip, later):
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
        return None, [_left_out(window, error)], 0
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
    window: WindowFile,
    collection: Collection,
    query: Query,
    wanted: dict[str, Parameter],
    notes: list[str],
    identified: bool,
    named: bool,
    skip: int,
    later: list[_Whole] | None,
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
        footers.remembered(collection.files.path(window.name), version_of(handle), file.metadata, boxes)
    if query.locations is not None and has_station:
        groups = _groups_of_stations(file, groups, query.locations)
    chosen = [column for column in layout.columns if column.parameter.id in wanted]
    if odd := [one.name for one in chosen if not collection.takes(one)]:
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
            later.append(_Whole(window, table, given))
            return
        mask = mask_of(table, query, has_station)
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
    rows = np.flatnonzero(among(column, stations))
    ends = np.cumsum([file.metadata.row_group(number).num_rows for number in groups])
    return [groups[place] for place in np.unique(np.searchsorted(ends, rows, side="right"))]


def _kept(table: pa.Table, mask: Mask | None) -> pa.Table:
    return table if mask is None else table.filter(pa.array(mask))


def _named(rows: pa.Table, given: _Given, wanted: dict[str, Parameter], notes: list[str]) -> pa.Table:
    """The columns under the names of `Rows`, values in the units of `wanted`."""
    lon, lat = (rows.column(name).cast(pa.float64()).to_numpy() for name in ("lon", "lat"))
    columns: dict[str, Any] = {"datetime": pa.array(micros(rows.column("datetime"))), "lon": lon, "lat": lat}
    if given.has_station:
        columns[LOCATION] = as_text(rows.column(STATION))
    else:
        columns[LOCATION] = pa.array(position_ids(lat, lon).astype(str), pa.string())
    columns |= {name: as_text(rows.column(name)) for name in given.described}
    if given.identified:
        columns["id"] = as_text(rows.column("id"))
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


def latest(piece: pa.Table, rows: int) -> pa.Table:
    """The newest rows; of the oldest moment of them those of the first locations, in the order of texts."""
    if piece.num_rows <= rows:
        return piece
    moments = piece.column("datetime").to_numpy()
    oldest = np.partition(moments, -rows)[-rows]
    newer, at = np.flatnonzero(moments > oldest), np.flatnonzero(moments == oldest)
    names = pc.fill_null(piece.column(LOCATION).take(pa.array(at)), "")
    first = at[pc.sort_indices(names).to_numpy()[: rows - len(newer)]]
    return piece.take(pa.array(np.sort(np.concatenate([newer, first]))))


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
