"""Reports (one a station and time) become rows (one a value), without a loop over either.

Belongs here: what stands in each column of a row, and the order of columns and rows. Does not belong here: reading
datasets and writing files (writing.py), or what stations are called (station_ids.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ionbeam_dagster.domain.canonical import STATION, whole_seconds
from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.exporters.odb.mapping import Entry, Target
from ionbeam_dagster.exporters.odb.settings import OdbCodes
from ionbeam_dagster.exporters.odb.tables import (
    ACTIVE,
    COLUMNS,
    EASTWARD,
    GEOPOTENTIAL,
    HIGHEST,
    HUMIDITY,
    LOWEST,
    OF_SEA_LEVEL,
    OF_STATION,
    PERIOD_OF_RAIN,
    PRESSURE,
    REJECTED,
    SOURCE_WIDTH,
    STANDARD_GRAVITY,
    STATUS_BY_FLAG,
    STATUS_OF,
    SURFACE_PRESSURE,
    VARNOS,
    Arrays,
    Column,
)
from ionbeam_dagster.exporters.odb.tally import OdbCounts
from ionbeam_dagster.exporters.stations import fitting, numbers_in, wigos_ids_of

DAY = 86_400  # s
ANALYSES = 6 * 3600  # s from one analysis to the next
MOST_REPORTS = 2**31 - 1
"""Numbers of reports of a day, as far as 32 bits go: each of its windows has an equal share of them."""
_AT_STATION = Entry(VARNOS[SURFACE_PRESSURE])


def layout(entries: list[Entry]) -> list[Column]:
    """The columns of a row in the order that takes least room for `entries`."""
    by_pressure = _AT_STATION in entries and Entry(VARNOS[HUMIDITY]) in entries
    if not by_pressure and not any(entry.at_sea_level for entry in entries):
        return list(COLUMNS)
    vertical = [column for column in COLUMNS if column[0].startswith(("vertco", "ppcode"))]
    others = [column for column in COLUMNS if column not in vertical]
    entry = others.index(("entryno@body", "INTEGER"))
    return others[:entry] + vertical + others[entry:]


def constants(codes: OdbCodes, dataset: str) -> dict[str, int | bytes]:
    """The columns that are the same in every row."""
    return {
        "source@hdr": (fitting(dataset, SOURCE_WIDTH) if dataset else "").encode().ljust(SOURCE_WIDTH, b"\0"),
        "type": codes.type,
        "class": codes.class_,
        "stream": codes.stream,
        "expver": codes.expver.rjust(8).encode(),  # as IFS writes it
        "reportype": codes.reportype,
        "groupid@hdr": codes.groupid,
        "obstype@hdr": codes.obstype,
        "codetype@hdr": codes.codetype,
    }


def first_number(about: Mapping[str, str]) -> int:
    """One less than the number of a file's first report, so that no two reports of a dataset and day share one.

    `about` tells the file's window, or cycle; a day's windows follow one another from midnight on.
    """
    if "window_start" not in about or "window_end" not in about:
        return 0
    start, end = (datetime.fromisoformat(about[edge]).astimezone(UTC) for edge in ("window_start", "window_end"))
    span = int((end - start).total_seconds())
    return int(start.timestamp()) % DAY // span * (MOST_REPORTS // max(1, DAY // span))


@dataclass(frozen=True, slots=True)
class Reports:
    """`values`: float32, a row a report and a column an entry, NaN where there is none; `flags`: of each, its quality.

    `header`: an array a column.
    """

    values: npt.NDArray[np.float32]
    flags: npt.NDArray[np.uint8]
    header: Arrays


def reports_of(
    batch: pa.RecordBatch, targets: list[Target], entries: list[Entry], height: str | None, written: OdbCounts
) -> Reports:
    """The rows of `batch` that have at least one value, in the units of their varnos, one analysis after another."""
    values = np.full((batch.num_rows, len(entries)), np.nan, np.float32)
    flags = np.full(values.shape, Flag.NOT_EVALUATED, np.uint8)
    place = {entry: number for number, entry in enumerate(entries)}
    for target in targets:
        number = place[target.entry]
        values[:, number], flags[:, number] = _converted(batch, target, written)
        written.add(target.varno.number, values[:, number])
        if target.hours:
            period = place[Entry(VARNOS[PERIOD_OF_RAIN])]
            values[:, period] = np.where(np.isnan(values[:, number]), np.nan, np.float32(target.hours))
            flags[:, period] = flags[:, number]
            written.add(PERIOD_OF_RAIN, values[:, period])
    absent = np.isnan(values)
    written.flags += np.bincount(flags[~absent], minlength=len(written.flags))
    some = ~absent.all(axis=1)
    if not some.all():
        batch, values, flags, absent = batch.filter(pa.array(some)), values[some], flags[some], absent[some]
    header = _header(batch, height, written)
    # A report is as good as its best value.
    header["report_status@hdr"] = np.where(absent, REJECTED, STATUS_BY_FLAG[flags]).min(axis=1)
    analyses, count = np.unique(_analysis(header), return_counts=True)
    written.analyses.update(dict(zip(analyses.tolist(), count.tolist(), strict=True)))
    if len(analyses) > 1:
        order = np.argsort(_analysis(header), kind="stable")
        values, flags = values[order], flags[order]
        header = {name: column[order] for name, column in header.items()}
    return Reports(values, flags, header)


def _analysis(header: Arrays) -> npt.NDArray[np.int64]:
    """The analysis of each report, as YYYYMMDDHHMMSS."""
    return np.asarray(header["andate"] * 1_000_000 + header["antime"])


def _converted(
    batch: pa.RecordBatch, target: Target, written: OdbCounts
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """A column's values in the unit of its varno, as REAL keeps them, NaN where there is none; and their flags."""
    values, flags = _scaled(batch, target), _flags(batch, target)
    if target.direction:
        values, flags = _component(values, flags, batch, target)
    with np.errstate(over="ignore"):
        converted = values.astype(np.float32)
    beyond = np.isinf(converted)
    written.beyond += int(np.count_nonzero(beyond))
    converted[beyond] = np.nan
    return converted, flags


def _component(
    speed: npt.NDArray[np.float64], flags: npt.NDArray[np.uint8], batch: pa.RecordBatch, target: Target
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """The component of a wind along `target.varno`, as good as the worse of speed and direction. A calm has none."""
    assert target.direction is not None
    direction = np.radians(_scaled(batch, target.direction))
    turn = np.sin if target.varno.number == EASTWARD else np.cos
    calm = speed == 0
    flags = np.where(calm, flags, np.maximum(flags, _flags(batch, target.direction)))
    return np.where(calm, 0.0, -speed * turn(direction)), flags


def _scaled(batch: pa.RecordBatch, target: Target) -> npt.NDArray[np.float64]:
    raw = batch.column(target.column).to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return np.asarray(raw * target.scale + target.offset)


def _flags(batch: pa.RecordBatch, target: Target) -> npt.NDArray[np.uint8]:
    """The quality flags of a column; what has none, or one that is not known, was not evaluated."""
    if target.flag is None:
        return np.full(batch.num_rows, Flag.NOT_EVALUATED, np.uint8)
    flags = batch.column(target.flag).fill_null(int(Flag.NOT_EVALUATED)).to_numpy(zero_copy_only=False)
    known = np.isin(flags, np.array([int(flag) for flag in STATUS_OF], np.uint8))
    return np.where(known, flags, Flag.NOT_EVALUATED).astype(np.uint8)


def _header(batch: pa.RecordBatch, height: str | None, written: OdbCounts) -> Arrays:
    seconds = whole_seconds(batch.column("datetime"))
    date, time = _calendar(seconds)
    # The analyses of 00, 06, 12 and 18 take what was observed after three hours before, until three hours after.
    andate, antime = _calendar((seconds + ANALYSES // 2 - 1) // ANALYSES * ANALYSES)
    lat, lon = batch.column("lat").to_numpy(), batch.column("lon").to_numpy()
    altitude = numbers_in(batch.column(height)) if height else np.full(batch.num_rows, np.nan)
    impossible = (altitude < LOWEST) | (altitude > HIGHEST)
    written.heights += int(np.count_nonzero(impossible))
    altitude[impossible] = np.nan
    names = batch.column(STATION) if STATION in batch.schema.names else pa.nulls(batch.num_rows, pa.string())
    statid, wigosid = written.station_ids.of(names, lat, lon, wigos_ids_of(batch))
    seqno = np.arange(1, batch.num_rows + 1) + (written.first_number + written.lat.count)
    written.lat.add(lat.astype(np.float32))
    written.lon.add(lon.astype(np.float32))
    return {
        "andate": andate,
        "antime": antime,
        "statid@hdr": statid,
        "wigosid@hdr": wigosid,
        "stalt@hdr": altitude,
        "lat@hdr": lat,
        "lon@hdr": lon,
        "date@hdr": date,
        "time@hdr": time,
        "seqno@hdr": seqno,
    }


def _calendar(seconds: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """YYYYMMDD and HHMMSS, as integers, of seconds since 1970."""
    days, second = np.divmod(seconds, DAY)
    first, last = (days.min(), days.max()) if len(days) else (0, 0)
    dates = np.arange(first, last + 1).astype("datetime64[D]").astype(str)
    of_day = np.char.replace(dates, "-", "").astype(np.int64)
    return of_day[days - first], second // 3600 * 10_000 + second // 60 % 60 * 100 + second % 60


def frames(reports: Reports, entries: list[Entry], rows_per_frame: int) -> Iterator[Arrays]:
    """The rows of `reports`, in the order of reports and then entries, a frame at a time.

    A frame has one analysis: who files observations by analysis takes frames whole.
    """
    numbers = np.array([entry.varno.number for entry in entries])
    at_sea_level = np.array([entry.at_sea_level for entry in entries])
    by_pressure = _AT_STATION in entries
    is_humidity = numbers == HUMIDITY
    geopotential = reports.header["stalt@hdr"] * STANDARD_GRAVITY
    values, flags = reports.values.ravel(), reports.flags.ravel()
    present = np.flatnonzero(~np.isnan(values))
    first_of_analyses = np.flatnonzero(np.diff(_analysis(reports.header))) + 1
    for taken in _cut(present, first_of_analyses * len(entries), rows_per_frame):
        report, entry = np.divmod(taken, len(entries))
        # IFS takes a surface value as one at the station's height; a reduced pressure as one at height 0.
        reference = np.where(at_sea_level[entry], 0.0, geopotential[report])
        kind = np.where(np.isnan(reference), np.nan, GEOPOTENTIAL)
        if by_pressure:
            # ... and humidity as one at the pressure of the same report, if that is one to be used.
            place = entries.index(_AT_STATION)
            pressure, is_used = reports.values[report, place], STATUS_BY_FLAG[reports.flags[report, place]] == ACTIVE
            told = is_humidity[entry] & ~np.isnan(pressure) & is_used
            reference, kind = np.where(told, pressure, reference), np.where(told, PRESSURE, kind)
        yield {name: column[report] for name, column in reports.header.items()} | {
            "ppcode@conv_body": np.where(at_sea_level[entry], OF_SEA_LEVEL, OF_STATION),
            "vertco_type@body": kind,
            "vertco_reference_1@body": reference,
            "entryno@body": entry + 1,
            "varno@body": numbers[entry],
            "obsvalue@body": values[taken],
            "datum_status@body": STATUS_BY_FLAG[flags[taken]],
            "quality@body": flags[taken],
        }


def _cut(rows: npt.NDArray[np.int64], first_rows: npt.NDArray[np.int64], most: int) -> Iterator[npt.NDArray[np.int64]]:
    """Parts of at most `most` of the `rows`, each before or from one of the `first_rows` on."""
    for part in np.split(rows, np.searchsorted(rows, first_rows)):
        for start in range(0, len(part), most):
            yield part[start : start + most]
