"""Queries over the windows of one dataset: from files to one Arrow table.

Belongs here: which windows answer a query, and the bounds that keep it from reading all of history by accident.
Does not belong here: the rows of one window (reading.py), how a request is read (requests.py), or the writing of an
answer (answers.py).

Files are taken from the newest back: what a bound leaves out is the oldest, and the answer says from where on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ionbeam_dagster.domain.geo import great_circle
from ionbeam_dagster.edr.collection import LOCATION, Collection, stamp
from ionbeam_dagster.edr.files import WindowFile, overlapping
from ionbeam_dagster.edr.query import Before, Bounds, Query, Rows
from ionbeam_dagster.edr.reading import ALL, AT_ONCE, joined, latest, rows_of_window, rows_of_windows
from ionbeam_dagster.edr.regions import Circles

LARGE, MANY_WINDOWS = 5_000, 200  # rows, and windows, of a query that takes its time
NEWEST = 24 * 3600 * 1_000_000  # us: how far a query reaches back that names no time


def run(collection: Collection, query: Query, is_large: Callable[[], None] = lambda: None) -> Rows:
    """All rows that `query` asks for, within its bounds. `is_large` is called once it is known to read, or give, much,
    and may raise."""
    windows, notes = _windows(collection, query)
    known = collection.parameters()
    wanted = known if query.parameters is None else {id: known[id] for id in query.parameters if id in known}
    deadline = time.monotonic() + query.bounds.seconds
    pieces: list[pa.Table] = []
    rows = 0
    more: Before | None = None
    reason: str | None = None
    newest_first = windows[::-1]
    for done in range(0, len(newest_first), AT_ONCE):
        if reason := _bounded(query.bounds, rows, done, deadline):
            more = Before(newest_first[done].end)
            break
        if rows > LARGE or done > MANY_WINDOWS:
            is_large()
        for piece, told in rows_of_windows(collection, newest_first[done : done + AT_ONCE], query, wanted):
            notes += told
            if piece is not None:
                pieces.append(piece)
                rows += piece.num_rows
    if rows > query.bounds.rows:
        newest, more = _newest_moments(pa.concat_tables(pieces, promote_options="permissive"), query.bounds.rows)
        pieces, reason = [newest], f"{query.bounds.rows:,} rows"
    since = windows[0].start if query.newest_day and windows else None
    if more is not None:
        notes.append(_bound_note(reason, more, query.start if since is None else since))
    if rows > LARGE:
        is_large()
    table = joined(pieces, wanted, query, collection)
    if query.nearest and isinstance(query.region, Circles) and table.num_rows:
        table = _nearest(table, query.region)
    given = {id: wanted[id] for id in wanted if id in table.column_names}
    return Rows(table, given, notes, more=more, since=since)


def _newest_moments(rows: pa.Table, most: int) -> tuple[pa.Table, Before]:
    """The newest `most` of `rows`, which are more, and where it goes on: whole moments of them, where they are of more
    than one."""
    kept = latest(rows, most)
    moments = kept.column("datetime").to_numpy()
    oldest = int(moments.min())
    if np.count_nonzero(rows.column("datetime").to_numpy() == oldest) == np.count_nonzero(moments == oldest):
        return kept, Before(oldest)
    if oldest < moments.max():
        return kept.filter(pa.array(moments > oldest)), Before(oldest + 1)
    return kept, Before(oldest, pc.max(pc.fill_null(kept.column(LOCATION), "")).as_py())


def _bound_note(reason: str | None, more: Before, start: int | None) -> str:
    """What is left out, and how it is got without the link `next`: where there are pages of one moment, not at all."""
    if more.location is not None:
        return (
            f"bounded at {reason}: of the moment {stamp(more.moment)} alone there are more; raise limit, "
            "or follow the link `next`"
        )
    return (
        f"bounded at {reason}: what is before {stamp(more.moment)} is left out; follow the link `next`, "
        f"or ask again with datetime={'..' if start is None else stamp(start)}/{stamp(more.moment - 1)}"
    )


def _bounded(bounds: Bounds, rows: int, files: int, deadline: float) -> str | None:
    """Which bound is reached, in words."""
    if rows >= bounds.rows:
        return f"{bounds.rows:,} rows"
    if files >= bounds.files:
        return f"{bounds.files:,} windows"
    return f"{bounds.seconds:g} seconds" if time.monotonic() > deadline else None


def places(collection: Collection, query: Query, is_large: Callable[[], None] = lambda: None) -> Rows:
    """One row a location, where it was last: the columns of `run` without parameters. Where parameters are asked for,
    the locations that have a value of one."""
    import polars as pl

    windows, notes = _windows(collection, query)
    known = collection.parameters()
    wanted = {id: known[id] for id in query.parameters or () if id in known}

    def last_with_values(rows: pa.Table) -> pa.Table:
        return _last_of_each(_with_values(rows, list(wanted)) if query.parameters is not None else rows)

    deadline = time.monotonic() + query.bounds.seconds
    newest: pl.DataFrame | None = None
    if len(windows) > MANY_WINDOWS:
        is_large()
    for window in reversed(windows):
        if time.monotonic() > deadline or (newest is not None and newest.height > query.bounds.rows):
            notes.append(f"bounded: locations that were last seen before {stamp(window.end)} are left out")
            break
        asked = replace(query, described=False)
        piece, told, _ = rows_of_window(collection, window, asked, wanted, named=True, each=last_with_values, most=ALL)
        notes += told
        if piece is not None and piece.num_rows:
            frame = pl.DataFrame(pl.from_arrow(_last_of_each(piece))).drop(wanted, strict=False)
            both = frame if newest is None else pl.concat([newest, frame], how="diagonal")
            newest = both.unique(LOCATION, keep="first", maintain_order=True)
    since = windows[0].start if query.newest_day and windows else None
    if newest is None:
        return Rows(joined([], {}, query, collection), {}, notes, since=since)
    return Rows(newest.sort(LOCATION).to_arrow(), {}, notes, since=since)


def listed(found: Rows, after: str | None, limit: int) -> Rows:
    """Of `places` the first behind the location `after`, at most `limit`."""
    table = found.table
    if after is not None:
        table = table.filter(pc.greater(pc.fill_null(table.column(LOCATION), ""), after))
    if table.num_rows <= limit:
        return replace(found, table=table)
    counted = f"{table.num_rows:,} locations were found, {limit:,} are given"
    told = f"{counted}: follow the link `next`, raise limit, or give a bbox"
    last = table.column(LOCATION)[limit - 1].as_py() or ""
    return replace(found, table=table.slice(0, limit), notes=[*found.notes, told], more=Before(0, last))


def _with_values(rows: pa.Table, ids: list[str]) -> pa.Table:
    """The rows that have a value of one of the parameters."""
    held = np.zeros(rows.num_rows, bool)
    for id in ids:
        if id in rows.column_names:
            held |= ~pc.is_null(rows.column(id), nan_is_null=True).to_numpy()
    return rows.filter(pa.array(held))


def _last_of_each(rows: pa.Table) -> pa.Table:
    """The newest row of each location."""
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(rows)).sort("datetime", maintain_order=True)
    return frame.unique(LOCATION, keep="last", maintain_order=True).to_arrow()


def _windows(collection: Collection, query: Query) -> tuple[list[WindowFile], list[str]]:
    windows = collection.files.windows()
    if query.newest_day and windows:
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
