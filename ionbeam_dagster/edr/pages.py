"""Rows page by page, and single ones by their id.

Belongs here: where a page begins and goes on, also when its window was revised meanwhile. Does not belong here: the
rows of a window (reading.py).
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ionbeam_dagster.edr.collection import Collection, stamp
from ionbeam_dagster.edr.files import WindowFile, overlapping
from ionbeam_dagster.edr.query import Query, Rows
from ionbeam_dagster.edr.reading import ALL, joined, rows_of_window
from ionbeam_dagster.exporters.geoparquet import curve_positions


@dataclass(slots=True)
class Page:
    """Some of the rows that a query asks for, in the order of windows and of rows in them, with the column ``id``.

    `after` continues behind the last row, None at the end; `matched` is how many there are in all, None where that is
    not known without reading them.
    """

    found: Rows
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
    matched = sum(_timed_rows(collection, window, query) or 0 for window in windows) if plain else None
    skip = offset
    if after is not None:
        begin = int(after.split(".")[0])
        windows = [window for window in windows if window.start >= begin]
        skip = 0
        if windows and windows[0].start == begin:
            skip, told = _rows_before(collection, windows[0], query, after)
            notes += told
    deadline = time.monotonic() + query.bounds.seconds
    pieces: list[pa.Table] = []
    room, cursor = limit, None
    for window in windows:
        if time.monotonic() > deadline:
            notes.append(f"bounded at {query.bounds.seconds:g} seconds: follow the link `next` for what is left")
            cursor = f"{window.start}.0"
            break
        if plain and after is None and (rows := _timed_rows(collection, window, query)) is not None and skip >= rows:
            skip -= rows
            continue
        asked = query if _partly(window, query) else replace(query, start=None, end=None)
        mark = _mark(collection, window)  # before it is read: of what is replaced meanwhile the key is looked for
        piece, told, passed = rows_of_window(
            collection, window, asked, wanted, identified=True, skip=skip, most=room + 1
        )
        notes += told
        skip -= passed
        if piece is None:
            continue
        pieces.append(piece.slice(0, room))
        if piece.num_rows > room:
            cursor = _cursor(window, mark, passed + room, piece.slice(room - 1, 1) if room else None)
            break
        room -= piece.num_rows
    table = joined(pieces, wanted, query, collection, ordered=False)
    return Page(Rows(table, {id: wanted[id] for id in wanted if id in table.column_names}, notes), cursor, matched)


def _cursor(window: WindowFile, mark: str, given: int, last: pa.Table | None) -> str:
    """Where a page goes on behind `given` rows of a window, of which `last` is the last."""
    if last is None:
        return f"{window.start}.{given}"
    key = f"{int(curve_positions(last)[0])}.{last.column('id')[0].as_py()}"
    return f"{window.start}.{given}.{mark}.{key}"


def _mark(collection: Collection, window: WindowFile) -> str:
    """A short text that tells a window's file from the one that takes its place."""
    version = ""
    with suppress(FileNotFoundError):
        version = "/".join(map(str, collection.files.version(window.name)))
    return blake2b(version.encode(), digest_size=4).hexdigest()


def _rows_before(collection: Collection, window: WindowFile, query: Query, after: str) -> tuple[int, list[str]]:
    """How many rows of a window, of those that are asked for, lie before where a page goes on, and notes.

    Where the window was revised meanwhile, that is not the number that the page before counted: rows are in the order
    of the curve, then of station and time, in every revision, so that the last row's key is looked for.
    """
    _, given, *key = after.split(".", 4)
    if not key or key[0] == _mark(collection, window):
        return int(given), []
    _, place, id = key
    told = f"the window {stamp(window.start)}/{stamp(window.end)} was revised since the page before: "
    asked = query if _partly(window, query) else replace(query, start=None, end=None)
    keys = lambda part: part.select(["id", "lon", "lat", "datetime"])  # noqa: E731
    rows, _, _ = rows_of_window(collection, window, asked, {}, identified=True, each=keys, most=ALL)
    if rows is None:
        return 0, []
    behind = told + "rows that it got before this page are not among these; ask for the window again"
    time_of_row, _, station = id.partition("-")
    at = np.flatnonzero(pc.ends_with(rows.column("id"), f"-{station}").to_numpy())
    place_of = curve_positions(rows)
    at = at[place_of[at] == int(place)]
    if len(at):
        earlier = np.count_nonzero(rows.column("datetime").to_numpy()[at] <= _micros_of(time_of_row))
        return int(at[0] + earlier), [behind]
    # The station is gone from there, and others may stand at the same place.
    first, end = (int(np.searchsorted(place_of, int(place), side)) for side in ("left", "right"))
    return first, [behind if first == end else f"{behind}, and some are given twice"]


def _micros_of(text: str) -> int:
    """The time in an id, ``20250101T000000Z`` with or without a fraction of the second, in microseconds since 1970."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    moment = datetime.strptime(whole, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000 + int(fraction.ljust(6, "0")[:6])


def item(collection: Collection, id: str) -> Rows:
    """The row of an id (``<time>-<hash>``), from the window that its time lies in, or none, and notes."""
    nothing = Rows(joined([], {}, Query(), collection), {})
    try:
        start = _micros_of(id.split("-")[0]) // 1_000_000 * 1_000_000
    except ValueError:
        return nothing
    query = Query(start, start + 999_999, described=True)
    wanted = collection.parameters()
    for window in overlapping(collection.files.windows(), start, start + 999_999):
        piece, notes, _ = rows_of_window(collection, window, query, wanted, identified=True, most=ALL)
        nothing.notes += notes
        if piece is not None:
            piece = piece.filter(pc.equal(piece.column("id"), id))
            if piece.num_rows:
                return Rows(joined([piece], wanted, query, collection, ordered=False), wanted, notes)
    return nothing


def _timed_rows(collection: Collection, window: WindowFile, query: Query) -> int | None:
    """How many rows of a window lie in the time that is asked for; None where it cannot be read."""
    if not _partly(window, query):
        return collection.rows_in(window)
    timed = Query(query.start, query.end)
    times = lambda part: part.select(["datetime"])  # noqa: E731
    piece, notes, _ = rows_of_window(collection, window, timed, {}, each=times, most=ALL)
    if piece is None:
        return None if notes else 0
    return int(piece.num_rows)


def _partly(window: WindowFile, query: Query) -> bool:
    """Whether the time that is asked for leaves out a part of a window."""
    begins = query.start is not None and query.start > window.start
    return begins or (query.end is not None and query.end < window.end - 1)
