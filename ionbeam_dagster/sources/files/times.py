"""The times of rows, in UTC, from however files write them.

Belongs here: what a text, a number or a clock's time means. Does not belong here: which window a row belongs to, and
what becomes of its other cells (rows.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import timedelta

import polars as pl

from ionbeam_dagster.domain.canonical import EARLIEST, LATEST
from ionbeam_dagster.domain.raw_values import NO_VALUE
from ionbeam_dagster.sources.files.readers import PROBLEM, Unreadable
from ionbeam_dagster.sources.files.written import TimeColumn, offset_of

UTC_TIME = pl.Datetime("us", "UTC")
FILED = "x_filed"

_ISO_8601 = (
    "%+",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%d %H:%M%#z",
)

SERIAL_0 = -25_569 * 86_400_000_000
"""The day 0 of spreadsheets (1899-12-30) in microseconds since 1970."""
MOST_DAYS = 100_000

_DIGITS = {"Y": r"\d{4}", "y": r"\d\d", "j": r"\d{1,3}", **dict.fromkeys("mdHMS", r"\d{1,2}")}
_CLOCKS = {"%H%M": 4, "%H%M%S": 6}
"""Digits of clocks that are one number."""


def timed(frame: pl.DataFrame, columns: Sequence[str], time: TimeColumn, station: str | None = None) -> pl.DataFrame:
    """`frame` with ``datetime`` in UTC, null where `columns` hold no time (several together, as one text), with an
    ``x_problem`` if they hold another thing; and ``x_filed``, which is ``datetime`` where that can be the time of an
    observation. `station` is the column that tells stations apart, for times that follow from the rows' order.

    Raises Unreadable for a column of a type that cannot be a time.
    """
    column = " ".join(columns)
    given = _together(frame, columns).alias(column) if len(columns) > 1 else frame[columns[0]]
    given = _as_text(given) if time.format is not None and given.dtype.is_numeric() else given
    of = frame[station].cast(pl.String) if station else None
    if time.unit is not None:
        found = _of_serials(given, time, of) if time.unit == "excel" else _since_1970(given, time.unit)
    else:
        found = _times(given, time, of) if given.dtype == pl.String else _in_utc(_microseconds(given), time, of)
    plausible = found.is_between(EARLIEST, LATEST, closed="left")
    frame = frame.with_columns(found.alias("datetime"), found.set(~plausible, None).alias(FILED))
    if not found.has_nulls():
        return frame
    text = present(pl.lit(given.cast(pl.String)))
    why = pl.format(f"{{}}: {{}} is not a time{_expected(time)}", pl.lit(column), text)
    return frame.with_columns(pl.col(PROBLEM).fill_null(pl.when(pl.col("datetime").is_null()).then(why)))


def _times(texts: pl.Series, time: TimeColumn, stations: pl.Series | None) -> pl.Series:
    found = pl.Series(texts.name, [None], UTC_TIME).new_from_index(0, len(texts))
    stripped = _with_leading_zeros(texts.str.strip_chars(), time.format)
    forms = _ISO_8601 if time.format is None else (time.format,)
    if time.format is not None and not re.search(r"%[-_0]?[MTRsXcr+]", time.format):
        stripped, forms = stripped + " 00", (f"{time.format} %M",)  # an hour and no minute is the full hour
    if "%p" in forms[0]:
        stripped = stripped.str.replace(r"(?i)([ap])\.?(?:m\.?)?$", "${1}m")  # consoles write 4:00p
    for form in forms:
        parsed = stripped.str.to_datetime(form, time_unit="us", strict=False)
        found = found.fill_null(_in_utc(parsed, time, stations))
        if not found.has_nulls():
            break
    if time.format is not None and "%H" in time.format and found.has_nulls():
        hours = _hour_24(stripped, forms[0])
        parsed = hours.str.to_datetime(forms[0], time_unit="us", strict=False)
        full = parsed.set(parsed.dt.minute() + parsed.dt.second() > 0, None) + timedelta(days=1)
        found = found.fill_null(_in_utc(full, time, stations))
    return found


def _with_leading_zeros(texts: pl.Series, form: str | None) -> pl.Series:
    """Texts whose clock, which stands by itself, has the zeros before it that loggers leave out: 5 is 0005, five past
    midnight."""
    for place, piece in enumerate((form or "").split(" ")):
        for lacking in range(_CLOCKS.get(piece, 1) - 1, 0, -1):
            digits = _CLOCKS[piece] - lacking
            found = rf"^((?:\S+ ){{{place}}})(\d{{{digits}}})( |$)"
            texts = texts.str.replace(found, "${1}" + "0" * lacking + "${2}${3}")
    return texts


def _hour_24(texts: pl.Series, form: str) -> pl.Series:
    """Those texts whose hour is 24, the end of a day, with 00 in its place; null for others."""
    before, after = (
        "".join(
            _DIGITS.get(piece[-1], ".+?") if piece.startswith("%") else re.escape(piece)
            for piece in re.split(r"(%[-_0]?[A-Za-z])", side)
        )
        for side in form.split("%H", 1)
    )
    found = texts.str.contains(f"^{before}24{after}$")
    return texts.str.replace(f"^({before})24({after})$", "${1}00${2}").set(~found.fill_null(False), None)


def _together(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    texts = [_as_text(frame[column]).str.strip_chars() for column in columns]
    return pl.select(pl.concat_str(texts, separator=" ")).to_series()


def _as_text(part: pl.Series) -> pl.Series:
    """A part of a time as text; a whole number that is a float, as they are beside missing ones, without a fraction."""
    if part.dtype.is_float() and (part == part.round()).all():
        part = part.cast(pl.Int64, strict=False)
    return part.cast(pl.String).str.replace(r"^(\d+)\.0$", "$1")  # 14.00 is a clock


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


def _of_serials(given: pl.Series, time: TimeColumn, stations: pl.Series | None) -> pl.Series:
    """Times from days as spreadsheets count them, to the millisecond, null where there is none."""
    numbers = given.str.strip_chars() if given.dtype == pl.String else given
    days = numbers.cast(pl.Float64, strict=False)
    days = days.set(~days.is_between(1, MOST_DAYS), None)
    passed = (days * 86_400_000).round().cast(pl.Int64) * 1000
    return _in_utc((passed + SERIAL_0).cast(pl.Datetime("us")), time, stations)


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


def _expected(time: TimeColumn) -> str:
    form = time.format or "ISO 8601"
    return f" ({form})" if time.zone == "UTC" else f" ({form}) that the clocks of {time.zone} show exactly once"


def present(text: pl.Expr, missing: Collection[str] = ()) -> pl.Expr:
    """`text`, null where it says that there is no value."""
    absent = text.str.strip_chars().str.to_lowercase().is_in(NO_VALUE) | text.is_in(missing)
    return pl.when(~absent).then(text)
