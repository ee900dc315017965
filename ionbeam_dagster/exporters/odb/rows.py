"""Reports (one a station and time) become rows (one a value), without a loop over either.

Belongs here: what stands in each column of a row, and the order of columns and rows. Does not belong here: reading
datasets and writing files (writing.py), or what stations are called (station_ids.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.exporters.odb.mapping import Target
from ionbeam_dagster.exporters.odb.settings import OdbCodes
from ionbeam_dagster.exporters.odb.tables import (
    COLUMNS,
    EASTWARD,
    GEOPOTENTIAL,
    HIGHEST,
    LOWEST,
    PERIOD_OF_RAIN,
    REJECTED,
    STANDARD_GRAVITY,
    STATUS_BY_FLAG,
    STATUS_OF,
    Arrays,
    Column,
    Varno,
)
from ionbeam_dagster.exporters.odb.tally import OdbCounts
from ionbeam_dagster.exporters.stations import numbers_in, wigos_ids_of


def layout(varnos: list[Varno]) -> list[Column]:
    """The columns of a row in the order that takes least room for `varnos`."""
    if all(varno.at == "station" for varno in varnos):
        return list(COLUMNS)
    vertical = [column for column in COLUMNS if column[0].startswith("vertco")]
    others = [column for column in COLUMNS if column not in vertical]
    entry = others.index(("entryno@body", "INTEGER"))
    return others[:entry] + vertical + others[entry:]


def constants(codes: OdbCodes) -> dict[str, int | bytes]:
    """The columns that are the same in every row."""
    return {
        "type": codes.type,
        "class": codes.class_,
        "stream": codes.stream,
        "expver": codes.expver.rjust(8).encode(),  # as IFS writes it
        "reportype": codes.reportype,
        "groupid@hdr": codes.groupid,
        "obstype@hdr": codes.obstype,
        "codetype@hdr": codes.codetype,
    }


@dataclass(frozen=True, slots=True)
class Reports:
    """`values`: float32, a row a report and a column a varno, NaN where there is none; `flags`: of each, its quality.

    `header`: an array a column.
    """

    values: npt.NDArray[np.float32]
    flags: npt.NDArray[np.uint8]
    header: Arrays


def reports_of(
    batch: pa.RecordBatch, targets: list[Target], varnos: list[Varno], height: str | None, written: OdbCounts
) -> Reports:
    """The rows of `batch` that have at least one value, in the units of their varnos."""
    values = np.full((batch.num_rows, len(varnos)), np.nan, np.float32)
    flags = np.full(values.shape, Flag.NOT_EVALUATED, np.uint8)
    place = {varno.number: number for number, varno in enumerate(varnos)}
    for target in targets:
        number = place[target.varno.number]
        values[:, number], flags[:, number] = _converted(batch, target, written)
        written.add(target.varno.number, values[:, number])
        if target.hours:
            period = place[PERIOD_OF_RAIN]
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
    return Reports(values, flags, header)


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
    seconds = batch.column("datetime").cast(pa.timestamp("s", "UTC"), safe=False).cast(pa.int64()).to_numpy()
    date, time = _calendar(seconds)
    # The analyses of 00, 06, 12 and 18 take what was observed from three hours before to three hours after.
    andate, antime = _calendar((seconds + 3 * 3600) // (6 * 3600) * (6 * 3600))
    lat, lon = batch.column("lat").to_numpy(), batch.column("lon").to_numpy()
    altitude = numbers_in(batch.column(height)) if height else np.full(batch.num_rows, np.nan)
    impossible = (altitude < LOWEST) | (altitude > HIGHEST)
    written.heights += int(np.count_nonzero(impossible))
    altitude[impossible] = np.nan
    names = batch.column(STATION) if STATION in batch.schema.names else pa.nulls(batch.num_rows, pa.string())
    statid, wigosid = written.station_ids.of(names, lat, lon, wigos_ids_of(batch))
    seqno = np.arange(written.lat.count + 1, written.lat.count + batch.num_rows + 1)
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
    days, second = np.divmod(seconds, 86_400)
    first, last = (days.min(), days.max()) if len(days) else (0, 0)
    dates = np.arange(first, last + 1).astype("datetime64[D]").astype(str)
    of_day = np.char.replace(dates, "-", "").astype(np.int64)
    return of_day[days - first], second // 3600 * 10_000 + second // 60 % 60 * 100 + second % 60


def frames(reports: Reports, varnos: list[Varno], rows_per_frame: int) -> Iterator[Arrays]:
    """The rows of `reports`, in the order of reports and then varnos, a frame at a time."""
    numbers = np.array([varno.number for varno in varnos])
    at_sea_level = np.array([varno.at == "sea level" for varno in varnos])
    geopotential = reports.header["stalt@hdr"] * STANDARD_GRAVITY
    values, flags = reports.values.ravel(), reports.flags.ravel()
    present = np.flatnonzero(~np.isnan(values))
    for start in range(0, len(present), rows_per_frame):
        taken = present[start : start + rows_per_frame]
        report, entry = np.divmod(taken, len(varnos))
        reference = np.where(at_sea_level[entry], 0.0, geopotential[report])
        yield {name: column[report] for name, column in reports.header.items()} | {
            # IFS takes a surface value as one at the station's height; a reduced pressure as one at height 0.
            "vertco_type@body": np.where(np.isnan(reference), np.nan, GEOPOTENTIAL),
            "vertco_reference_1@body": reference,
            "entryno@body": entry + 1,
            "varno@body": numbers[entry],
            "obsvalue@body": values[taken],
            "datum_status@body": STATUS_BY_FLAG[flags[taken]],
            "quality@body": flags[taken],
        }
