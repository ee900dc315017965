"""Queries over the windows of one dataset: from files to one Arrow table.

Belongs here: which windows answer a query, and the bounds that keep it from reading all of history by accident.
Does not belong here: the rows of one window (reading.py), how a request is read (requests.py), or the writing of an
answer (answers.py).

Files are taken from the newest back: what a bound leaves out is the oldest, and the answer says from where on.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ionbeam_dagster.domain.geo import great_circle
from ionbeam_dagster.edr.collection import LOCATION, Collection, stamp
from ionbeam_dagster.edr.files import WindowFile, overlapping
from ionbeam_dagster.edr.query import Bounds, Query, Rows
from ionbeam_dagster.edr.reading import ALL, AT_ONCE, joined, latest, rows_of_window, rows_of_windows
from ionbeam_dagster.edr.regions import Circles

NEWEST = 24 * 3600 * 1_000_000  # us: how far a query reaches back that names no time


def run(collection: Collection, query: Query) -> Rows:
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
        for piece, told in rows_of_windows(collection, newest_first[done : done + AT_ONCE], query, wanted):
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
    table = joined(pieces, wanted, query, collection)
    if query.nearest and isinstance(query.region, Circles) and table.num_rows:
        table = _nearest(table, query.region)
    return Rows(table, {id: wanted[id] for id in wanted if id in table.column_names}, notes)


def _newest_moments(rows: pa.Table, most: int) -> tuple[pa.Table, str]:
    """The newest of `rows`, which are more than `most`: whole moments of them, so that it can be gone on before the
    oldest; and a note that says how."""
    kept = latest(rows, most + 1)
    moments = kept.column("datetime").to_numpy()
    before, first, last = int(moments[0]), int(moments[1]), int(moments[-1])
    if before < first:
        return kept.slice(1), _bound_note(most, first - 1)
    if first == last:
        told = (
            f"bounded at {most:,} rows: of the moment {stamp(first)} alone there are more; "
            "raise limit, or narrow the place"
        )
        return kept.slice(1), told
    return kept.slice(int(np.searchsorted(moments, first, side="right"))), _bound_note(most, first)


def _bound_note(most: int, until: int) -> str:
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


def places(collection: Collection, query: Query) -> Rows:
    """One row a location, where it was last: the columns of `run` without parameters."""
    import polars as pl

    windows, notes = _windows(collection, query)
    deadline = time.monotonic() + query.bounds.seconds
    newest: pl.DataFrame | None = None
    for window in reversed(windows):
        if time.monotonic() > deadline or (newest is not None and newest.height > query.bounds.rows):
            notes.append(f"bounded: locations that were last seen before {stamp(window.end)} are left out")
            break
        asked = replace(query, described=False)
        piece, told, _ = rows_of_window(collection, window, asked, {}, named=True, each=_last_of_each, most=ALL)
        notes += told
        if piece is not None:
            frame = pl.DataFrame(pl.from_arrow(_last_of_each(piece)))
            both = frame if newest is None else pl.concat([newest, frame], how="diagonal")
            newest = both.unique(LOCATION, keep="first", maintain_order=True)
    if newest is None:
        return Rows(joined([], {}, query, collection), {}, notes)
    return Rows(newest.sort(LOCATION).to_arrow(), {}, notes)


def _last_of_each(rows: pa.Table) -> pa.Table:
    """The newest row of each location."""
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(rows)).sort("datetime", maintain_order=True)
    return frame.unique(LOCATION, keep="last", maintain_order=True).to_arrow()


def _windows(collection: Collection, query: Query) -> tuple[list[WindowFile], list[str]]:
    windows = collection.files.windows()
    if query.start is None and query.end is None and windows:
        newest = max(window.end for window in windows[-50:])
        kept = overlapping(windows, newest - NEWEST, None)
        told = f"no datetime was asked for: the newest 24 hours are given, from {stamp(kept[0].start)} on"
        return kept, [told] if len(kept) < len(windows) else []
    return overlapping(windows, query.start, query.end), []


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
