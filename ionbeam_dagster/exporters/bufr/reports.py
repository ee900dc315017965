"""Rows become reports: a batch of a dataset as columns of integers, as they are packed, without a loop over rows.

Belongs here: what every template says of a report (its station, time and place), which stations are mobile, values and
flags as integers. Does not belong here: where a column goes (mapping.py), what a station is called (station_ids.py), or
the packing (messages.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ionbeam_dagster.domain.canonical import STATION, whole_seconds
from ionbeam_dagster.domain.geo import chord
from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.exporters.bufr.mapping import Form
from ionbeam_dagster.exporters.bufr.tally import BufrCounts
from ionbeam_dagster.exporters.bufr.templates import (
    BAROMETER_HEIGHT,
    DAY,
    FIXED,
    HOUR,
    LATITUDE,
    LONGITUDE,
    MINUTE,
    MISSING,
    MOBILE,
    MONTH,
    QUALITY_OF,
    SECOND,
    STATION_HEIGHT,
    STATION_PRESSURE,
    TEMPLATES,
    WIND,
    YEAR,
    Element,
    Integers,
    Place,
    expansion,
)
from ionbeam_dagster.exporters.stations import numbers_in, wigos_ids_of

ROWS_PER_BATCH = 65_536
MOVED = 100.0  # m: a station that goes farther within a window is a mobile one
MOBILE_COLUMN = "mobile"  # a metadata column: ``true`` of a mobile station, even one that stands still, else ``false``

Columns = dict[Place, npt.NDArray[Any]]


def moving_stations(source: pq.ParquetFile) -> pa.Array:
    """The ids of the stations that go farther than `MOVED` from where they are first."""
    found: list[pa.Array] = []
    last: tuple[Any, npt.NDArray[np.float64]] | None = None
    for batch in source.iter_batches(ROWS_PER_BATCH, columns=[STATION, "lat", "lon"]):
        names = batch.column(STATION).cast(pa.string())
        lat, lon = batch.column("lat").to_numpy(), batch.column("lon").to_numpy()
        if not len(lat):
            continue
        begins = np.ones(len(lat), bool)
        begins[1:] = pc.fill_null(pc.not_equal(names[1:], names[:-1]), True)
        starts = np.flatnonzero(begins)
        first = np.column_stack([lat[starts], lon[starts]])
        if last is not None and last[0] == names[0].as_py():
            first[0] = last[1]
        last = names[-1].as_py(), first[-1]
        station = np.cumsum(begins) - 1
        elsewhere = np.flatnonzero((lat != first[station, 0]) | (lon != first[station, 1]))
        begun = first[station[elsewhere]]
        far = chord(begun[:, 0], begun[:, 1], lat[elsewhere], lon[elsewhere]) > MOVED
        found.append(pc.unique(names.take(pa.array(elsewhere[far]))))
    return pc.unique(pa.concat_arrays([pa.array([], pa.string()), *found])).drop_null()


def mobile_rows(batch: pa.RecordBatch, moved: pa.Array) -> npt.NDArray[np.bool_]:
    """Which rows are of a station that is said to be mobile, or of which that is not said and which `moved`."""
    mobile = np.zeros(batch.num_rows, bool)
    if STATION in batch.schema.names and len(moved):
        mobile |= pc.is_in(batch.column(STATION).cast(pa.string()), moved).to_numpy(zero_copy_only=False)
    if MOBILE_COLUMN in batch.schema.names:
        said = pc.utf8_lower(batch.column(MOBILE_COLUMN).cast(pa.string()))
        mobile |= pc.fill_null(pc.equal(said, "true"), False).to_numpy(zero_copy_only=False)
        mobile &= ~pc.fill_null(pc.equal(said, "false"), False).to_numpy(zero_copy_only=False)
    return mobile


def count_homeless(
    batch: pa.RecordBatch, forms: Sequence[Form], is_mobile: npt.NDArray[np.bool_], written: BufrCounts
) -> None:
    """Count the values of fixed or mobile stations for which their template has no place, while the other's has one."""
    for stations, rows in ((FIXED.stations, ~is_mobile), (MOBILE.stations, is_mobile)):
        taken = {column for form in forms if form.template.stations in (stations, "all") for column in form.columns}
        for column in {column for form in forms for column in form.columns} - taken:
            there = ~np.isnan(batch.column(column).to_numpy(zero_copy_only=False).astype(np.float64, copy=False))
            lost = int(np.count_nonzero(there & rows))
            reason = next(form.left_out[column] for form in forms if form.template.stations == stations)
            written.beyond.update({f"{column} of {stations} stations: {reason}": lost} if lost else {})


def header_of(
    batch: pa.RecordBatch,
    height: str | None,
    is_mobile: npt.NDArray[np.bool_],
    written: BufrCounts,
) -> dict[int, npt.NDArray[Any]]:
    """What every template says of a report, by descriptor: identifiers as bytes, all else as packed integers."""
    numbers = {LATITUDE: batch.column("lat").to_numpy(), LONGITUDE: batch.column("lon").to_numpy()}
    numbers[STATION_HEIGHT] = numbers_in(batch.column(height)) if height else np.full(batch.num_rows, np.nan)
    header = _clock(batch.column("datetime"))
    for code, values in numbers.items():
        element = _element_of(code)
        header[code], beyond = _packable(values, element, (-math.inf, math.inf))
        written.beyond.update({f"{element.descriptor} {element.name}: {why}": n for why, n in beyond.items()})
    names = batch.column(STATION) if STATION in batch.schema.names else pa.nulls(batch.num_rows, pa.string())
    ids = written.station_ids.of(names, numbers[LATITUDE], numbers[LONGITUDE], is_mobile, wigos_ids_of(batch))
    return header | ids


def _element_of(code: int) -> Element:
    """The element of a descriptor that is the same in every template that has it."""
    expansions = map(expansion, TEMPLATES)
    return next(found.elements[node] for found in expansions if (node := found.node(code)) is not None)


def _clock(moments: pa.Array) -> dict[int, npt.NDArray[Any]]:
    times = whole_seconds(moments).astype("M8[s]")
    years, months, days = (times.astype(f"M8[{unit}]") for unit in "YMD")
    seconds = (times - days).astype(np.int64)
    return {
        YEAR: years.astype(np.int64) + 1970,
        MONTH: (months - years).astype(np.int64) + 1,
        DAY: (days - months).astype(np.int64) + 1,
        HOUR: seconds // 3600,
        MINUTE: seconds // 60 % 60,
        SECOND: seconds % 60,
    }


def _packable(
    values: npt.NDArray[np.float64], element: Element, limits: tuple[float, float]
) -> tuple[Integers, dict[str, int]]:
    """Values as they are packed, `MISSING` where there is none or none that can be carried; and why how many cannot."""
    coded = element.coded(values)
    given = ~np.isnan(values)
    carried = (coded >= 0) & (coded <= 2**element.width - 2)  # all bits set mean that there is no value
    sensible = (values >= limits[0]) & (values <= limits[1])
    integers = np.full(len(values), MISSING)
    np.copyto(integers, coded, where=given & carried & sensible, casting="unsafe")
    low, high = (bound / 10.0**element.scale for bound in (element.reference, 2**element.width - 2 + element.reference))
    low, high = max(low, limits[0]), min(high, limits[1])
    outside = int(np.count_nonzero(given & ~(carried & sensible)))
    return integers, {f"not in {low:g} to {high:g} {element.unit}": outside} if outside else {}


def values_of(form: Form, batch: pa.RecordBatch, rows: npt.NDArray[np.int64], written: BufrCounts) -> Columns:
    """The values of `rows` as integers, by where they go in `form`."""
    expanded = expansion(form.template)
    columns: Columns = {}
    counted: set[str] = set()
    for target in form.targets:
        raw = batch.column(target.column).to_numpy(zero_copy_only=False).astype(np.float64, copy=False)[rows]
        converted = raw * target.scale + target.offset
        columns[target.place], beyond = _packable(converted, target.element, target.limits)
        if target.flag and target.quality is None:
            # Nothing in this template could warn of it.
            bad = (_flags(batch, target.flag)[rows] == Flag.FAIL) & (columns[target.place] != MISSING)
            columns[target.place][bad] = MISSING
            why = f"bad, which {form.template.name} cannot tell"
            beyond |= {why: int(np.count_nonzero(bad))} if bad.any() else {}
        if target.column not in counted:  # once, where it goes to two descriptors
            counted.add(target.column)
            written.beyond.update({f"{target.column}: {why}": n for why, n in beyond.items()})
    for place, column in columns.items():
        speed_node = expanded.node(WIND.get(expanded.codes[place[0]], 0))
        if speed_node is not None:
            # 0 is the direction of a calm; wind from the north has 360.
            speed = columns.get((speed_node, place[1]), np.full(len(rows), MISSING))
            column[(column == 0) & (speed != 0)] = 360
            column[(column != MISSING) & (speed == 0)] = 0
    return columns


def barometers_of(form: Form, present: Mapping[Place, npt.NDArray[np.bool_]], heights: Integers) -> Columns:
    """The heights of barometers above the sea, of which a template has the place: by those of stations, as packed.

    Where there is no pressure, there is no barometer.
    """
    expanded = expansion(form.template)
    node = expanded.node(BAROMETER_HEIGHT)
    if node is None:
        return {}
    there = [present[target.place] for target in form.targets if target.element.code == STATION_PRESSURE]
    element = expanded.elements[node]
    coded = heights + round(form.barometer * 10.0**element.scale)
    known = (heights != MISSING) & (coded <= 2**element.width - 2) & (there[0] if there else False)
    return {(node, 0): np.where(known, coded, MISSING)}


def quality_of(
    form: Form,
    batch: pa.RecordBatch,
    rows: npt.NDArray[np.int64],
    present: Mapping[Place, npt.NDArray[np.bool_]],
    shapes: Integers,
    written: BufrCounts,
) -> Columns:
    """The associated fields of the values that are `present`, and in the same round those of absent ones."""
    blocks, rounds = expansion(form.template).blocks, form.rounds
    columns: Columns = {}
    counted: set[str] = set()
    for target in form.targets:
        if target.flag and target.quality:
            flags = _flags(batch, target.flag)[rows]
            there = present[target.place]
            coded = _ASSOCIATED[np.minimum(flags, len(_ASSOCIATED) - 1)]
            for flag in QUALITY_OF if target.column not in counted else ():
                written.quality[flag.name.lower()] += int(np.count_nonzero(flags[there] == flag))
            counted.add(target.column)
            where = blocks[target.place[0]], target.place[1]
            in_message = shapes >> rounds.index(where) & 1 == 1
            # Beside a missing value stands what packs best: it says nothing.
            columns[target.quality] = np.where(there, coded, np.where(in_message, 0, MISSING))
    return columns


def shapes_of(form: Form, present: Mapping[Place, npt.NDArray[np.bool_]], rows: int) -> Integers:
    """For each row, which rounds of replications have a value: a bit each."""
    blocks, rounds = expansion(form.template).blocks, form.rounds
    shapes = np.zeros(rows, np.int64)
    for place, there in present.items():
        where = blocks[place[0]], place[1]
        if where in rounds:
            shapes |= there.astype(np.int64) << rounds.index(where)
    return shapes


_ASSOCIATED = np.full(max(Flag) + 1, MISSING)
_ASSOCIATED[list(QUALITY_OF)] = list(QUALITY_OF.values())


def _flags(batch: pa.RecordBatch, column: str) -> npt.NDArray[np.uint8]:
    flags = batch.column(column).fill_null(int(Flag.NOT_EVALUATED))
    return np.asarray(flags.to_numpy(zero_copy_only=False), np.uint8)
