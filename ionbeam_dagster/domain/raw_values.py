"""Raw columns, read: what of a column are times, numbers or text, and where it has no value.

Belongs here: one column at a time, as sources give them. Does not belong here: which columns there are, or what becomes
of a row whose value cannot be read (canonical.py).
"""

from __future__ import annotations

import re
from contextlib import suppress

import polars as pl
import pyarrow as pa

NO_VALUE = (
    "", "-", "--", "---", "----", "--.-", "na", "n/a", "#n/a", "#n/a n/a", "#na", "<na>", "nan", "-nan", "1.#ind",
    "-1.#ind", "1.#qnan", "-1.#qnan", "null", "none", "nil", "unknown", "unavailable", "missing", "///", "////",
    "/////", "inf", "-inf", "+inf", "infinity", "-infinity",
)  # fmt: skip
"""Texts, in lower case, that say that there is no value, as R, pandas, loggers and consoles write it. Any other text
that is no number is a fault of its value."""

_CLOCKS = ("%H:%M:%S%.f", "%H:%M")
_LAYOUTS = [f"%Y-%m-%d{gap}{clock}{zone}" for gap in ("T", " ") for clock in _CLOCKS for zone in ("%#z", "")]
_ZONE = re.compile(r":.*(Z|[+-]\d\d(:?\d\d)?)$")
_SHORTEST_TIME = len("2000-01-01T00:00")
_UTC = pa.timestamp("us", tz="UTC")


class CanonicalError(ValueError):
    """A whole batch that cannot be converted: a declared column is missing, or holds what no value can be made of."""


def raw_frame(batch: pa.RecordBatch) -> pl.DataFrame:
    """A raw batch as Polars can hold it; raises CanonicalError."""
    # Polars knows neither every fixed offset as a zone, nor seconds; it lets times overflow where Arrow says so.
    for place, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type):
            unit = "ms" if field.type.unit == "s" else field.type.unit
            try:
                times = batch.column(place).cast(pa.timestamp(unit, tz="UTC"))
            except pa.ArrowInvalid as error:
                raise CanonicalError(f"column {field.name!r} holds a time that cannot be: {error}") from error
            batch = batch.set_column(place, field.name, times)
    try:
        frame = pl.from_arrow(batch)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise CanonicalError(f"the batch cannot be read: {error}") from error
    assert isinstance(frame, pl.DataFrame)
    return frame


def moments_in(column: pl.Series) -> pl.Series:
    """The times of a raw column in UTC and in any unit, null where there is none or it cannot be read."""
    if _is_text(column):
        return moments_of_text(column.cast(pl.String).str.strip_chars())
    if column.dtype in (pl.Date, pl.Null):
        column = column.cast(pl.Datetime("us"))
    if not isinstance(column.dtype, pl.Datetime):
        raise CanonicalError(
            f"column {column.name!r} holds {column.dtype}; times must be timestamps, or ISO 8601 text such as "
            "2026-01-31T12:00:00Z"
        )
    return column.dt.convert_time_zone("UTC") if column.dtype.time_zone else column.dt.replace_time_zone("UTC")


def moments_of_text(text: pl.Series) -> pl.Series:
    """ISO 8601 times with date and clock as moments in microseconds, UTC where they have no zone; null what is none."""
    # Arrow reads a column of plain times several times faster than the layouts do, but all of it or nothing, and with a
    # zone everywhere or nowhere. The shorter forms that it takes (a mere date) are no time of an observation.
    if text.null_count() < len(text) and not (text.str.len_bytes() < _SHORTEST_TIME).any():
        zoned = _ZONE.search(text.drop_nulls()[0]) is not None
        with suppress(pa.ArrowInvalid):
            times = text.to_arrow().cast(_UTC if zoned else pa.timestamp("us")).cast(_UTC)
            return pl.Series(times, dtype=pl.Datetime("us", "UTC"))
    moments = pl.Series([None], dtype=pl.Datetime("us", "UTC")).new_from_index(0, len(text))
    for layout in _LAYOUTS:
        left = (moments.is_null() & text.is_not_null()).arg_true()
        found = text.gather(left).str.to_datetime(layout, time_unit="us", time_zone="UTC", strict=False)
        moments = moments.scatter(left, found)
    return moments


def read_as(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    """`column` as `dtype`, null where there is no value or where `dtype` cannot hold it."""
    if dtype == pl.String:
        text = as_text(column)
        return text.set(text.str.to_lowercase().is_in(NO_VALUE), None)
    if _is_text(column):
        return _number_of_text(column.cast(pl.String).str.strip_chars(), dtype)
    if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
        raise CanonicalError(f"column {column.name!r} holds {column.dtype}; values must be numbers or text")
    if dtype == pl.Boolean and column.dtype != pl.Boolean:
        return column.cast(pl.Float64).replace_strict({0.0: False, 1.0: True}, default=None, return_dtype=pl.Boolean)
    if dtype.is_integer() and not column.dtype.is_integer():
        column = column.cast(pl.Float64)
        column = column.set(column != column.floor(), None)
    values = column.cast(dtype, strict=False)
    if dtype.is_float() and not values.is_finite().all():
        values = values.set(~values.is_finite(), None)
    return values


def _number_of_text(text: pl.Series, dtype: pl.DataType) -> pl.Series:
    if dtype == pl.Boolean:
        text = text.str.to_lowercase().replace({"true": "1", "false": "0"})
    if dtype.is_integer():
        # Directly where it can be, since a float does not hold every int64; "12.0" has to take the other way.
        return text.cast(dtype, strict=False).fill_null(read_as(text.cast(pl.Float64, strict=False), dtype))
    return read_as(text.cast(pl.Float64, strict=False), dtype)


def as_text(column: pl.Series) -> pl.Series:
    """A raw column as the text of a metadata column; raises CanonicalError."""
    if column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object):
        raise CanonicalError(f"column {column.name!r} holds {column.dtype}, which cannot be written as text")
    text = column.cast(pl.String)
    if column.dtype.is_float():
        whole = (column == column.floor()) & (column.abs() < 2.0**53)
        text = column.cast(pl.Int64, strict=False).cast(pl.String).zip_with(whole.fill_null(False), text)
        return text.set(~column.is_finite(), None)
    if _is_text(column) and text.str.contains(r"^\s|\s$|\p{Cc}|^$").any():
        text = text.str.replace_all(r"\p{Cc}", "").str.strip_chars()
        return text.set(text == "", None)
    return text


def is_absent(column: pl.Series) -> pl.Series:
    """Where a raw column has no value, as opposed to one that cannot be read."""
    if _is_text(column):
        text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
        return text.is_null() | text.is_in(NO_VALUE).fill_null(False)
    if column.dtype.is_float():
        return ~column.is_finite().fill_null(False)
    return column.is_null()


def _is_text(column: pl.Series) -> bool:
    return column.dtype in (pl.String, pl.Categorical, pl.Enum)
