"""Queries over the windows of one dataset: from files to one Arrow table.

Belongs here: which files, row groups and rows answer a query, and the bounds that keep it from reading all of history
by accident. Does not belong here: how a request is read (asked.py) or an answer is written (answers.py).

Files are taken from the newest back: what a bound leaves out is the oldest, and the answer says from where on. A file
is opened once for a query, and all of its columns are read through that one handle: a window that is replaced meanwhile
gives its old rows or its new ones, never some of both.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ionbeam_dagster.domain import cf
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.geo import great_circle
from ionbeam_dagster.edr import footers
from ionbeam_dagster.edr.crs import CRS84, OFFERED, Crs
from ionbeam_dagster.edr.files import LocalFiles, WindowFile, overlapping, version_of
from ionbeam_dagster.edr.parameters import Column, Layout, Parameter, layout_of
from ionbeam_dagster.edr.regions import Circles, Region, touches
from ionbeam_dagster.exporters.geoparquet import curve_positions
from ionbeam_dagster.exporters.stations import position_ids

LOG = logging.getLogger(__name__)
NEWEST = 24 * 3600 * 1_000_000  # us: how far a query reaches back that names no time
NAMES = ("station_name", "name")
WIGOS = ("wigos_id", "wigosid", "wigos_station_identifier")
LOCATION = "location"
ROWS_AT_ONCE = 30_000
ROWS_IN_PART = 250_000
_ALL = 1 << 62
AT_ONCE = 8  # windows that are read between two looks at the bounds
_POOL = ThreadPoolExecutor(2, "ionbeam-query")
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
    crs: Crs = CRS84
    """In which the places are to be told; those of `table` are longitude and latitude in any case."""


class Collection:
    """One dataset's windows."""

    def __init__(
        self,
        name: str,
        files: LocalFiles,
        ever: dict[str, Parameter] | None = None,
        offered_crs: tuple[str, ...] = OFFERED,
    ) -> None:
        self.name = name
        self.files = files
        self.offered_crs = offered_crs
        self._ever = ever or {}
        self._newest: tuple[object, dict[str, Parameter], tuple[str, ...], frozenset[str]] | None = None
        self._layouts: dict[tuple[object, ...], Layout] = {}
        self.repeated: list[str] = []  # texts that are read as dictionaries

    def parameters(self) -> dict[str, Parameter]:
        """All parameters by id: those of the newest window that can be read, and those that any window ever had."""
        return self._described()[0]

    def described(self) -> tuple[str, ...]:
        """The metadata columns of the newest window that can be read."""
        return self._described()[1]

    def texts(self) -> frozenset[str]:
        """The ids of parameters whose values are texts: no quantity with a unit, and texts in the newest window."""
        return self._described()[2]

    def layout(self, schema: pa.Schema) -> Layout:
        """The layout of a file of this collection; files of the same columns and types share it."""
        columns = (*schema.names, *schema.types)
        known = self._layouts.get(columns)
        if known is None:
            if len(self._layouts) > 100:
                self._layouts.clear()
            known = self._layouts[columns] = layout_of(schema)
        return known

    def _described(self) -> tuple[dict[str, Parameter], tuple[str, ...], frozenset[str]]:
        windows = self.files.windows()
        for window in windows[: -20 - 1 : -1]:
            with suppress(OSError, pa.ArrowException):
                version = (window.name, self.files.version(window.name))
                if self._newest is None or self._newest[0] != version:
                    layout = layout_of(self._schema(window))
                    if not layout.fit:
                        continue
                    found = {column.parameter.id: column.parameter for column in layout.columns}
                    self.repeated = [name for name in (STATION, *NAMES, *WIGOS) if name in layout.described]
                    texts = (one.parameter for one in layout.columns if one.is_text)
                    without_unit = frozenset(one.id for one in texts if one.unit in ("", "1"))
                    known = dict(sorted({**self._ever, **found}.items()))
                    self._newest = version, known, layout.described, without_unit
                return self._newest[1:]
        return self._ever, (), frozenset()

    def _schema(self, window: WindowFile) -> pa.Schema:
        with self.files.open(window.name) as handle:
            return pq.read_schema(handle)

    def rows_in(self, window: WindowFile) -> int | None:
        """How many rows a window has, None where it cannot be read; remembered until the file is replaced."""
        path = self.files.path(window.name)
        try:
            found = footers.known(path, self.files.version(window.name))
            if found is None:
                with self.files.open(window.name) as handle:
                    metadata = pq.read_metadata(handle)
                    if not self.layout(metadata.schema.to_arrow_schema()).fit:
                        return None
                    found = footers.remembered(path, version_of(handle), metadata, footers.boxes_of(metadata))
        except FileNotFoundError:
            return 0  # taken away after it was listed
        except (OSError, pa.ArrowException):
            return None
        return found.rows


def run(collection: Collection, query: Query) -> Found:
    """All rows that `query` asks for, within its bounds."""
    windows, notes = _windows(collection, query)
    known = collection.parameters()
    wanted = known if query.parameters is None else {id: known[id] for id in query.parameters if id in known}
    deadline = time.monotonic() + query.bounds.seconds
    pieces: list[pa.Table] = []
    rows = 0
    newest_first = windows[::-1]
    for done in range(0, len(newest_first), AT_ONCE):
        if reason := _bounded(query.bounds, rows, done, deadline):
            end = newest_first[done].end
            notes.append(
                f"bounded at {reason}: nothing before {stamp(end)} was looked at; "
                f"ask again with datetime=../{stamp(end - 1)}"
            )
            break
        for piece, told in _together(collection, newest_first[done : done + AT_ONCE], query, wanted):
            notes += told
            if piece is not None:
                pieces.append(piece)
                rows += piece.num_rows
    if rows > query.bounds.rows:
        newest, told_of_bound = _newest_moments(
            pa.concat_tables(pieces, promote_options="permissive"), query.bounds.rows
        )
        pieces = [newest]
        notes = [note for note in notes if not note.startswith("bounded")]
        notes.append(told_of_bound)
    table = _joined(pieces, wanted, query, collection)
    if query.nearest and isinstance(query.region, Circles) and table.num_rows:
        table = _nearest(table, query.region)
    return Found(table, {id: wanted[id] for id in wanted if id in table.column_names}, notes)


def _newest_moments(rows: pa.Table, most: int) -> tuple[pa.Table, str]:
    """The newest of `rows`, which are more than `most`: whole moments of them, so that it can be gone on before the
    oldest; and a note that says how."""
    kept = _latest(rows, most + 1)
    moments = kept.column("datetime").to_numpy()
    before, first, last = int(moments[0]), int(moments[1]), int(moments[-1])
    if before < first:
        return kept.slice(1), _bound_told(most, first - 1)
    if first == last:
        told = (
            f"bounded at {most:,} rows: of the moment {stamp(first)} alone there are more; "
            "raise limit, or narrow the place"
        )
        return kept.slice(1), told
    return kept.slice(int(np.searchsorted(moments, first, side="right"))), _bound_told(most, first)


def _bound_told(most: int, until: int) -> str:
    return (
        f"bounded at {most:,} rows: older ones are left out; narrow the time or the place, "
        f"or ask again with datetime=../{stamp(until)}"
    )


def _bounded(bounds: Bounds, rows: int, files: int, deadline: float) -> str | None:
    """Which bound is reached, in words."""
    if rows >= bounds.rows:
        return f"{bounds.rows:,} rows"
    if files >= bounds.files:
        return f"{bounds.files:,} windows"
    return f"{bounds.seconds:g} seconds" if time.monotonic() > deadline else None


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
        asked = replace(query, described=False)
        piece, told, _ = _read(collection, window, asked, {}, named=True, each=_last_of_each, most=_ALL)
        notes += told
        if piece is not None:
            frame = pl.DataFrame(pl.from_arrow(_last_of_each(piece)))
            joined = frame if seen is None else pl.concat([seen, frame], how="diagonal")
            seen = joined.unique(LOCATION, keep="first", maintain_order=True)
    if seen is None:
        return Found(_joined([], {}, query, collection), {}, notes)
    return Found(seen.sort(LOCATION).to_arrow(), {}, notes)


def _last_of_each(rows: pa.Table) -> pa.Table:
    """The newest row of each location."""
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(rows)).sort("datetime", maintain_order=True)
    return frame.unique(LOCATION, keep="last", maintain_order=True).to_arrow()


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

    `after` is ``<start of a window>.<rows of it that were given>.<version of its file>.<place on the curve>.<id>`` of
    the last row that was given: the place of the next one, and a key by which it is found again when the window was
    revised meanwhile. Windows that `offset` passes over whole cost a look at their row count, once.
    """
    windows = overlapping(collection.files.windows(), query.start, query.end)
    notes: list[str] = []
    known = collection.parameters()
    wanted = known if query.parameters is None else {id: known[id] for id in query.parameters if id in known}
    plain = query.region is None and query.locations is None
    matched = sum(_rows_asked(collection, window, query) or 0 for window in windows) if plain else None
    skip = offset
    if after is not None:
        begin = int(after.split(".")[0])
        windows = [window for window in windows if window.start >= begin]
        skip = _rows_before(collection, windows[0], query, after) if windows and windows[0].start == begin else 0
    deadline = time.monotonic() + query.bounds.seconds
    pieces: list[pa.Table] = []
    room, cursor = limit, None
    for window in windows:
        if time.monotonic() > deadline:
            notes.append(f"bounded at {query.bounds.seconds:g} seconds: follow the link `next` for what is left")
            cursor = f"{window.start}.0"
            break
        if plain and after is None and (count := _rows_asked(collection, window, query)) is not None and skip >= count:
            skip -= count
            continue
        asked = query if _partly(window, query) else replace(query, start=None, end=None)
        piece, told, passed = _read(collection, window, asked, wanted, identified=True, skip=skip, most=room + 1)
        notes += told
        skip -= passed
        if piece is None:
            continue
        pieces.append(piece.slice(0, room))
        if piece.num_rows > room:
            cursor = _cursor(collection, window, passed + room, piece.slice(room - 1, 1) if room else None)
            break
        room -= piece.num_rows
    table = _joined(pieces, wanted, query, collection, ordered=False)
    return Page(Found(table, {id: wanted[id] for id in wanted if id in table.column_names}, notes), cursor, matched)


def _cursor(collection: Collection, window: WindowFile, given: int, last: pa.Table | None) -> str:
    """Where a page goes on behind `given` rows of a window, of which `last` is the last."""
    if last is None:
        return f"{window.start}.{given}"
    key = f"{int(curve_positions(last)[0])}.{last.column('id')[0].as_py()}"
    return f"{window.start}.{given}.{_mark(collection, window)}.{key}"


def _mark(collection: Collection, window: WindowFile) -> str:
    """A short text that tells a window's file from the one that takes its place."""
    version = "/".join(map(str, collection.files.version(window.name)))
    return blake2b(version.encode(), digest_size=4).hexdigest()


def _rows_before(collection: Collection, window: WindowFile, query: Query, after: str) -> int:
    """How many rows of a window, of those that are asked for, lie before where a page goes on.

    Where the window was revised meanwhile, that is not the number that the page before counted: rows are in the order
    of the curve, then of station and time, in every revision, so that the last row's key is looked for.
    """
    _, given, *key = after.split(".", 4)
    with suppress(FileNotFoundError):
        if not key or key[0] == _mark(collection, window):
            return int(given)
    _, place, id = key
    asked = query if _partly(window, query) else replace(query, start=None, end=None)
    keys = lambda part: part.select(["id", "lon", "lat"])  # noqa: E731
    rows, _, _ = _read(collection, window, asked, {}, identified=True, each=keys, most=_ALL)
    if rows is None:
        return 0
    curve = curve_positions(rows)
    found = np.flatnonzero(pc.equal(rows.column("id"), id).to_numpy())
    if len(found):
        return int(found[0]) + 1
    return int(np.searchsorted(curve, int(place)))  # it is gone: from the first row of its place on


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
        piece, notes, _ = _read(collection, window, query, wanted, identified=True, most=_ALL)
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


def _together(
    collection: Collection, windows: list[WindowFile], query: Query, wanted: dict[str, Parameter]
) -> Iterator[tuple[pa.Table | None, list[str]]]:
    """The rows of some windows that are asked for, and notes. What was read whole is looked through together where the
    columns are the same: a step costs the same for one small table as for eight."""
    whole: list[list[tuple[pa.Table, _Given]]] = [[] for _ in windows]
    for piece, told, _ in _POOL.map(
        lambda window, later: _read(collection, window, query, wanted, later=later), windows, whole
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


def _read(
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
                    kept = [_latest(pa.concat_tables(kept, promote_options="permissive"), enough)]
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
        table = file.read_row_groups(part, columns=[*first, *rest] if at_once else first, use_threads=False)
        if at_once and not every and not groups and later is not None:
            later.append((table, given))
            return
        mask = _mask(table, query, has_station)
        if mask is not None and not mask.any():
            continue
        if not at_once and rest:
            more = file.read_row_groups(part, columns=rest, use_threads=False)
            table = pa.table({name: (table if name in first else more).column(name) for name in [*first, *rest]})
        yield 0, _named(_kept(table, mask), given, wanted, notes)


def _opened(handle: pa.NativeFile, collection: Collection) -> pq.ParquetFile:
    """The file, its texts as dictionaries where it has the columns that the collection's others have."""
    try:
        return pq.ParquetFile(handle, read_dictionary=collection.repeated, pre_buffer=False)
    except KeyError:
        return pq.ParquetFile(handle, pre_buffer=False)


def _groups_of_stations(file: pq.ParquetFile, groups: list[int], stations: tuple[str, ...]) -> list[int]:
    """Those of `groups` that have a row of one of `stations`."""
    if not groups:
        return []
    column = file.read_row_groups(groups, columns=[STATION], use_threads=False).column(0)
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
    """The columns under the names of `Found`, values in the units of `wanted`."""
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
        metres = great_circle(lat, lon, north, east)
        best = int(np.argmin(metres))
        if metres[best] <= circles.radius:
            chosen.add(location[best])
    return table.filter(pc.is_in(table.column(LOCATION), value_set=pa.array(sorted(chosen), pa.string())))


def _rows_asked(collection: Collection, window: WindowFile, query: Query) -> int | None:
    """How many rows of a window lie in the time that is asked for; None where it cannot be read."""
    if not _partly(window, query):
        return collection.rows_in(window)
    timed = Query(query.start, query.end)
    times = lambda part: part.select(["datetime"])  # noqa: E731
    piece, notes, _ = _read(collection, window, timed, {}, each=times, most=_ALL)
    if piece is None:
        return None if notes else 0
    return int(piece.num_rows)


def _partly(window: WindowFile, query: Query) -> bool:
    """Whether the time that is asked for leaves out a part of a window."""
    begins = query.start is not None and query.start > window.start
    return begins or (query.end is not None and query.end < window.end - 1)
