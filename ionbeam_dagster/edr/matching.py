"""Which rows of a window a query asks for, by its time, its places, and where it goes on.

Belongs here: a mask for a table of times, places and stations. Does not belong here: files (reading.py), or regions
(regions.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.edr.query import Query
from ionbeam_dagster.edr.regions import Region
from ionbeam_dagster.exporters.stations import position_ids

Mask = npt.NDArray[np.bool_]


def mask_of(keys: pa.Table, query: Query, has_station: bool) -> Mask | None:
    """Which rows are asked for; None for all of them."""
    moment = micros(keys.column("datetime"))
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
    if query.before is not None and query.before.location is not None:
        parts.append(_behind(keys, moment, query.before.moment, query.before.location, has_station))
    return np.logical_and.reduce(parts) if parts else None


def _behind(keys: pa.Table, moment: npt.NDArray[np.int64], last: int, location: str, has_station: bool) -> Mask:
    """Which rows are of another moment than the `last`, or at a location behind the one given."""
    behind: Mask = moment != last
    at = np.flatnonzero(~behind)
    rows = keys.take(pa.array(at))
    if has_station:
        names = pc.fill_null(as_text(rows.column(STATION)), "")
    else:
        names = pa.array(position_ids(rows.column("lat").to_numpy(), rows.column("lon").to_numpy()).astype(str))
    behind[at] = np.asarray(pc.greater(names, location))
    return behind


def _of_locations(keys: pa.Table, locations: tuple[str, ...], has_station: bool) -> Mask:
    if has_station:
        return among(keys.column(STATION), locations)
    places = position_ids(keys.column("lat").to_numpy(), keys.column("lon").to_numpy())
    return np.isin(places, np.array([location.encode("ascii", "replace") for location in locations]))


def among(column: pa.ChunkedArray, stations: tuple[str, ...]) -> Mask:
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


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if column.type != pa.string() else column


def micros(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    if column.null_count:
        raise pa.ArrowInvalid("a row has no time")
    return np.asarray(column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy())
