"""From a file's rows to a source's: times in UTC, values in the declared units, every row in one window.

Belongs here: what is done to rows whatever format they come from. Does not belong here: reading files (readers.py), and
the conversion to canonical rows, which also rejects what cannot be used (domain/canonical.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import NamedTuple

import polars as pl

from ionbeam_client.cf import UnitError, conversion
from ionbeam_dagster.domain.canonical import EARLIEST, LATEST, NO_VALUE, STATION
from ionbeam_dagster.domain.quality import SAYS_GOOD, SAYS_POOR
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.sources.files.config import (
    FileQuality,
    FilesConfig,
    FileVariable,
    LongTable,
    TimeColumn,
    offset_of,
)
from ionbeam_dagster.sources.files.readers import PROBLEM, ROW, Layout, Unreadable

FILE = "x_file"
UTC_TIME = pl.Datetime("us", "UTC")
FILED = "x_filed"
NO_DESCRIPTION = ("", "-", "nan", "null", "none", "unknown", "unavailable")
"""Texts, in lower case, that say nothing in a descriptive column; NA may be a name there."""

_ISO_8601 = (
    "%+",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%d %H:%M%#z",
)


class Reach(NamedTuple):
    """The times of the windows that are collected: from `start` on, before `end` (None: any), not after `latest`."""

    start: datetime | None
    end: datetime | None
    latest: datetime


@dataclass(frozen=True, slots=True)
class Shaping:
    """How the columns of one file become those of the source.

    `conversions` are the scale and offset of each variable, `texts` the variables that are no numbers, `described`
    further columns of the file that are kept as texts under their own name.
    """

    config: FilesConfig
    layout: Layout
    conversions: dict[str, tuple[float, float]]
    texts: frozenset[str]
    described: tuple[str, ...]

    def columns(self) -> list[str]:
        """The columns to be read from the file."""
        layout = self.layout
        long = self.config.long
        values = self.conversions if long is None else [long.variable, long.value]
        codes = [stated.quality.column for stated in self.config.variables if stated.quality]
        found = [*layout.times, *layout.place.values(), *values, *codes, *layout.metadata.values(), *self.described]
        return list(dict.fromkeys(found))

    def shape(self, frame: pl.DataFrame, of_file: Mapping[str, pl.Expr], keep: Sequence[str] = ()) -> pl.DataFrame:
        """The source's columns, and of `frame` the rows that have a value, or a problem to be shown.

        `of_file` are the columns that follow from a row's file (`constants_of`), and ``x_file``, its name; columns of
        `frame` to `keep` stay as they are.
        """
        if self.config.long is not None:
            frame = self._widened(frame, self.config.long)
        metadata = {name: self._descriptive(frame, name, column) for name, column in self.layout.metadata.items()}
        metadata |= {name: self._described_text(pl.col(name)) for name in self.described}
        shaped = frame.select(
            pl.col("datetime"),
            self._place(frame, "lat", self.config.latitude),
            self._place(frame, "lon", self.config.longitude),
            *(self._variable(frame, column) for column in self.conversions),
            *(_said(one, one.quality) for one in self.config.variables if one.quality),
            *(expression.alias(name) for name, expression in metadata.items()),
            *(expression.alias(name) for name, expression in of_file.items()),
            pl.col(ROW, PROBLEM, *keep),
        )
        shaped = shaped.filter(pl.any_horizontal(pl.col(*self.conversions, PROBLEM).is_not_null()))
        return _without_wrong_stations(shaped) if STATION in self.layout.metadata else shaped

    def _widened(self, frame: pl.DataFrame, long: LongTable) -> pl.DataFrame:
        """`frame` with a column for each variable, which has the values of its rows."""
        name = pl.col(long.variable).cast(pl.String).str.strip_chars()
        return frame.with_columns(
            pl.when(name == column).then(pl.col(long.value)).alias(column) for column in self.conversions
        )

    def _place(self, frame: pl.DataFrame, name: str, stated: str | float | None) -> pl.Expr:
        constant = isinstance(stated, float)
        return (pl.lit(stated) if constant else self._number(frame, self.layout.place[name])).alias(name)

    def _variable(self, frame: pl.DataFrame, column: str) -> pl.Expr:
        if column in self.texts:
            return self._text(pl.col(column))
        number, (scale, offset) = self._number(frame, column), self.conversions[column]
        if (scale, offset) == (1.0, 0.0):
            return number
        converted = number.cast(pl.Float64, strict=False) * scale + offset
        # A text that is no number stays as it is, to be rejected where every bad value is.
        return pl.coalesce(converted.cast(pl.String), number) if frame.schema[column] == pl.String else converted

    def _number(self, frame: pl.DataFrame, column: str) -> pl.Expr:
        kind, (texts, numbers) = frame.schema[column], self.config.no_values
        if kind == pl.String:
            text = _present(pl.col(column).str.strip_chars(), texts)
            text = text.str.replace(",", ".", literal=True) if self.config.csv.decimal == "," else text
            if not numbers:
                return text
            return pl.when(~text.cast(pl.Float64, strict=False).is_in(numbers).fill_null(False)).then(text)
        value = pl.col(column).fill_nan(None) if kind.is_float() else pl.col(column)
        if not numbers or not kind.is_numeric():
            return value
        return pl.when(~value.cast(pl.Float64).is_in(numbers)).then(value)

    def _text(self, expression: pl.Expr) -> pl.Expr:
        return _present(expression.cast(pl.String), self.config.no_values[0])

    def _descriptive(self, frame: pl.DataFrame, name: str, column: str) -> pl.Expr:
        """A descriptive column as text; a whole number that is a float (an id beside a missing one) without fraction,
        and a height in metres."""
        kind, value = frame.schema[column], pl.col(column)
        unit = self.layout.heights.get(name)
        if unit is not None and unit not in ("m", "metre", "metres", "meter", "meters"):
            try:
                scale, offset = conversion(unit, "m")
            except UnitError as error:
                raise Unreadable(
                    f"the heights in {column!r} are in a unit that is none of a length ({error}); state it: "
                    f"metadata.{name}: {{column: {column}, unit: ft}}"
                ) from error
            number = self._number(frame, column).cast(pl.Float64, strict=False)
            return (number * scale + offset).round(6).cast(pl.String)
        if kind.is_float():
            whole = value.is_finite() & (value == value.floor()) & (value.abs() < 2.0**53)
            whole_text = value.cast(pl.Int64, strict=False).cast(pl.String)
            return self._described_text(pl.when(whole).then(whole_text).otherwise(value.fill_nan(None).cast(pl.String)))
        text = self._described_text(value)
        return text.str.replace(r"^(\d+)\.0$", "$1") if name == STATION else text

    def _described_text(self, expression: pl.Expr) -> pl.Expr:
        text = expression.cast(pl.String)
        absent = text.str.strip_chars().str.to_lowercase().is_in(NO_DESCRIPTION) | text.is_in(self.config.no_values[0])
        return pl.when(~absent).then(text)


def _without_wrong_stations(shaped: pl.DataFrame) -> pl.DataFrame:
    """`shaped`, where a row whose station is a text that says that there is no value has no time, and says so."""
    named = pl.col(STATION).str.strip_chars().str.to_lowercase()
    wrong = named.is_in([text for text in NO_VALUE if text not in NO_DESCRIPTION])
    why = pl.format(f"{STATION}: {{}} is no station's name; correct the file", pl.col(STATION))
    return shaped.with_columns(
        pl.when(~wrong.fill_null(False)).then(pl.col("datetime")),
        pl.when(wrong).then(why).otherwise(pl.col(PROBLEM)).alias(PROBLEM),
    )


def _said(stated: FileVariable, quality: FileQuality) -> pl.Expr:
    """What a file says of each value that there is, as a provider's code: good, poor, or neither."""
    code = pl.col(quality.column).cast(pl.String).str.strip_chars().str.replace(r"^(-?\d+)\.0$", "$1")
    good, poor = ([str(one).removesuffix(".0") for one in codes] for codes in (quality.good, quality.poor))
    said = pl.when(code.is_in(poor)).then(SAYS_POOR).when(code.is_in(good)).then(SAYS_GOOD)
    there = pl.col(stated.column).is_not_null() & (code != "")
    return pl.when(there).then(said.otherwise(0)).cast(pl.Int8).alias(f"{stated.flag_column}")


def constants_of(config: FilesConfig, file: str, path: str) -> dict[str, str | None]:
    """The descriptive columns that are the same for all rows of `file`, which is at `path`; null where its name tells
    none."""
    name = PurePath(file).name.removesuffix(".gz")
    stem = name.rpartition(".")[0] or name
    folder = PurePath(path).parent.name
    told = config.name.search(file) if config.name is not None else None
    constants: dict[str, str | None] = {
        column: text.replace("{stem}", stem).replace("{folder}", folder) for column, text in config.constants.items()
    }
    return constants | {column: told[column] if told else None for column in config.named}


def timed(frame: pl.DataFrame, columns: Sequence[str], time: TimeColumn, station: str | None = None) -> pl.DataFrame:
    """`frame` with ``datetime`` in UTC, null where `columns` hold no time (several together, as one text), with an
    ``x_problem`` if they hold another thing; and ``x_filed``, which is ``datetime`` where that can be the time of an
    observation. `station` is the column that tells stations apart, for times that follow from the rows' order.

    Raises Unreadable for a column of a type that cannot be a time.
    """
    column = " ".join(columns)
    given = frame[columns[0]] if len(columns) == 1 else _together(frame, columns).alias(column)
    if time.unit is not None:
        found = _since_1970(given, time.unit)
    else:
        of = frame[station].cast(pl.String) if station else None
        found = _times(given, time, of) if given.dtype == pl.String else _in_utc(_microseconds(given), time, of)
    plausible = found.is_between(EARLIEST, LATEST, closed="left")
    frame = frame.with_columns(found.alias("datetime"), found.set(~plausible, None).alias(FILED))
    if not found.has_nulls():
        return frame
    text = _present(pl.lit(given.cast(pl.String)))
    why = pl.format(f"{{}}: {{}} is not a time{_expected(time)}", pl.lit(column), text)
    return frame.with_columns(pl.col(PROBLEM).fill_null(pl.when(pl.col("datetime").is_null()).then(why)))


def filed(frame: pl.DataFrame, before: int, reach: Reach) -> pl.DataFrame:
    """`frame` with ``x_filed`` filled up, so that each row belongs to exactly one window, and to one that is collected
    where its neighbours are: a row without a time, and one that is too far in the future, are filed where the nearest
    row within `reach` is, and a row without a time at the top under `before` (microseconds since 1970)."""
    if _has_a_place(frame, reach):
        return frame
    return frame.with_columns(_beside(pl.lit(before, pl.Int64).cast(UTC_TIME), reach, None))


def filed_by(frame: pl.DataFrame, of: str, before: pl.Series, reach: Reach) -> pl.DataFrame:
    """The same of rows of several files; `of` is the column with the place that a row's file has in `before`."""
    if _has_a_place(frame, reach):
        return frame
    top = pl.Series(FILED, before.gather(frame[of])).cast(UTC_TIME)
    return frame.with_columns(_beside(pl.lit(top), reach, of))


def _has_a_place(frame: pl.DataFrame, reach: Reach) -> bool:
    return not frame[FILED].has_nulls() and not (frame[FILED] > reach.latest).any()


def _beside(before: pl.Expr, reach: Reach, of: str | None) -> pl.Expr:
    """``x_filed`` of every row. What is before the reach's start or after its end stays where it is: all of it is
    told together, and not set aside row by row."""

    def within(times: pl.Expr) -> pl.Expr:
        early = times < reach.start if reach.start is not None else pl.lit(False)
        late = times >= reach.end if reach.end is not None else pl.lit(False)
        return pl.when(~(early | late | (times > reach.latest))).then(times)

    def filled(times: pl.Expr, forward: bool = True) -> pl.Expr:
        found = times.forward_fill() if forward else times.backward_fill()
        return found if of is None else found.over(of)

    own = pl.col(FILED)
    above, below, last = filled(within(own)), filled(within(own), forward=False), filled(own)
    at_top = pl.when(last.is_null()).then(within(before))
    return (
        pl.when(own <= reach.latest)
        .then(own)
        .when(own.is_not_null())
        .then(pl.coalesce(above, below, own))
        .otherwise(pl.coalesce(at_top, above, below, last, before))
        .alias(FILED)
    )


def of_window(frame: pl.DataFrame, window: Window) -> pl.DataFrame:
    """The rows that are filed in `window`."""
    return frame.filter(filed_in(window)).drop(FILED)


def filed_in(window: Window) -> pl.Expr:
    return (pl.col(FILED) >= window.start) & (pl.col(FILED) < window.end)


def _times(texts: pl.Series, time: TimeColumn, stations: pl.Series | None) -> pl.Series:
    found = pl.Series(texts.name, [None], UTC_TIME).new_from_index(0, len(texts))
    stripped = texts.str.strip_chars()
    forms = _ISO_8601 if time.format is None else (time.format,)
    if time.format is not None and not re.search(r"%[-_0]?[MTRsXcr+]", time.format):
        stripped, forms = stripped + " 00", (f"{time.format} %M",)  # an hour and no minute is the full hour
    for form in forms:
        parsed = stripped.str.to_datetime(form, time_unit="us", strict=False)
        found = found.fill_null(_in_utc(parsed, time, stations))
        if not found.has_nulls():
            break
    return found


def _together(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    texts = [pl.col(column).cast(pl.String).str.strip_chars() for column in columns]
    return frame.select(pl.concat_str(texts, separator=" ")).to_series()


def _since_1970(given: pl.Series, unit: str) -> pl.Series:
    """Times from numbers of a unit since 1970, null where there is none."""
    numbers = given.str.strip_chars() if given.dtype == pl.String else given
    whole = numbers.cast(pl.Int64, strict=False) if not numbers.dtype.is_float() else numbers.round().cast(pl.Int64)
    if unit in ("s", "ms"):
        fine = numbers.cast(pl.Float64, strict=False) * {"s": 1e6, "ms": 1e3}[unit]
        whole = (whole * {"s": 1_000_000, "ms": 1000}[unit]).fill_null(
            fine.fill_nan(None).round().cast(pl.Int64, strict=False)
        )
    elif unit == "ns":
        whole = whole // 1000
    return whole.cast(UTC_TIME)


def _in_utc(times: pl.Series, time: TimeColumn, stations: pl.Series | None) -> pl.Series:
    """Times in UTC; naive ones are taken to be in the zone, and null where its clock shows them never, or twice and
    the rows do not tell which it is."""
    zone = time.zone
    if getattr(times.dtype, "time_zone", None) is not None:
        return times.dt.convert_time_zone("UTC")
    if (ahead := offset_of(zone)) is not None:
        return (times - ahead).dt.replace_time_zone("UTC")
    certain = times.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    if time.ambiguous == "in_order" and certain.null_count() > times.null_count():
        certain = certain.fill_null(_in_order(times, zone, stations))
    return certain.dt.convert_time_zone("UTC")


def _in_order(times: pl.Series, zone: str, stations: pl.Series | None) -> pl.Series:
    """The times of the hour that clocks show twice: its first pass until a station's times go back, then its second.

    Null where neither that nor a row of the station before the hour tells which pass it is, and everywhere else.
    """
    shown = times.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").alias("first")
    second = times.dt.replace_time_zone(zone, ambiguous="latest", non_existent="null").alias("second")
    station = (stations if stations is not None else pl.repeat("", len(times), eager=True)).alias("station")
    twice = (shown != second).fill_null(False).alias("twice")
    goes_back = twice & pl.col("twice").shift().over("station") & (pl.col("time").diff().over("station") < 0)
    run = (pl.col("twice") != pl.col("twice").shift()).fill_null(True).cum_sum().over("station")
    rows = pl.DataFrame([times.alias("time"), shown, second, station, twice]).with_columns(
        goes_back.alias("goes_back"), run.alias("run")
    )
    back = pl.col("goes_back").fill_null(False).cum_sum().over("station", "run")
    known = (pl.col("run") > 1) | (back.max().over("station", "run") > 0)
    found = pl.when(pl.col("twice") & known & (back == 0)).then("first").when(back == 1).then("second")
    return rows.select(found).to_series()


def _microseconds(times: pl.Series) -> pl.Series:
    if times.dtype == pl.Date:
        raise Unreadable(
            f"column {times.name!r} holds dates without a clock, so that all of a day would be at midnight; name the "
            "columns of date and clock under `time.columns`"
        )
    if times.dtype != pl.Datetime:
        raise Unreadable(f"column {times.name!r} is of type {times.dtype}, not a time; name the right one under `time`")
    return times.cast(pl.Datetime("us", getattr(times.dtype, "time_zone", None)))


def _present(text: pl.Expr, missing: Collection[str] = ()) -> pl.Expr:
    """`text`, null where it says that there is no value."""
    absent = text.str.strip_chars().str.to_lowercase().is_in(NO_VALUE) | text.is_in(missing)
    return pl.when(~absent).then(text)


def _expected(time: TimeColumn) -> str:
    form = time.format or "ISO 8601"
    return f" ({form})" if time.zone == "UTC" else f" ({form}) that the clocks of {time.zone} show exactly once"
