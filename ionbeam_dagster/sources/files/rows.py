"""From a file's rows to a source's: times in UTC, values in the declared units, every row in one window.

Belongs here: what is done to rows whatever format they come from. Does not belong here: reading files (readers.py), and
the conversion to canonical rows, which also rejects what cannot be used (domain/canonical.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePath

import polars as pl

from ionbeam_dagster.domain.canonical import EARLIEST, LATEST, NO_VALUE
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.sources.files.config import FilesConfig, TimeColumn
from ionbeam_dagster.sources.files.readers import PROBLEM, ROW, Layout, Unreadable

FILE = "x_file"
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
        found = [layout.time, *layout.place.values(), *self.conversions, *layout.metadata.values(), *self.described]
        return list(dict.fromkeys(found))

    def shape(self, frame: pl.DataFrame, file: str) -> pl.DataFrame:
        """The source's columns, and of `frame` the rows that have a value, or a problem to be shown."""
        metadata = {name: pl.col(column) for name, column in self.layout.metadata.items()}
        metadata |= {name: pl.col(name) for name in self.described}
        shaped = frame.select(
            pl.col("datetime"),
            self._place(frame, "lat", self.config.latitude),
            self._place(frame, "lon", self.config.longitude),
            *(self._variable(frame, column) for column in self.conversions),
            *(self._text(expression).alias(name) for name, expression in metadata.items()),
            *(pl.lit(text).alias(name) for name, text in constants_of(self.config, file).items()),
            pl.lit(file).alias(FILE),
            pl.col(ROW, PROBLEM),
        )
        return shaped.filter(pl.any_horizontal(pl.col(*self.conversions, PROBLEM).is_not_null()))

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
        kind = frame.schema[column]
        if kind == pl.String:
            text = self._text(pl.col(column).str.strip_chars())
            return text.str.replace(",", ".", literal=True) if self.config.csv.decimal == "," else text
        return pl.col(column).fill_nan(None) if kind.is_float() else pl.col(column)

    def _text(self, expression: pl.Expr) -> pl.Expr:
        return _present(expression.cast(pl.String), self.config.csv.missing)


def constants_of(config: FilesConfig, file: str) -> dict[str, str]:
    """The descriptive columns that are the same for all rows of `file`."""
    stem = PurePath(file).name.removesuffix(".gz").rpartition(".")[0]
    return {name: text.replace("{stem}", stem) for name, text in config.constants.items()}


def timed(frame: pl.DataFrame, column: str, time: TimeColumn) -> pl.DataFrame:
    """`frame` with ``datetime`` in UTC, null where `column` holds no time, with an ``x_problem`` if it holds another
    thing; and ``x_filed``, which is ``datetime`` where that can be the time of an observation.

    Raises Unreadable for a column of a type that cannot be a time.
    """
    given = frame[column]
    found = _times(given, time) if given.dtype == pl.String else _in_utc(_microseconds(given), time.zone)
    plausible = found.is_between(EARLIEST, LATEST, closed="left")
    frame = frame.with_columns(found.alias("datetime"), found.set(~plausible, None).alias(FILED))
    if not found.has_nulls():
        return frame
    text = _present(pl.lit(given.cast(pl.String)))
    why = pl.format(f"{{}}: {{}} is not a time{_expected(time)}", pl.lit(column), text)
    return frame.with_columns(pl.col(PROBLEM).fill_null(pl.when(pl.col("datetime").is_null()).then(why)))


def filed(frame: pl.DataFrame, before: int) -> pl.DataFrame:
    """`frame` with ``x_filed`` filled up, so that each row belongs to exactly one window: a row without a time is filed
    where the row before it is, and at the top under `before` (microseconds since 1970)."""
    return frame.with_columns(pl.col(FILED).forward_fill().fill_null(pl.lit(before, pl.Int64).cast(UTC_TIME)))


def of_window(frame: pl.DataFrame, window: Window) -> pl.DataFrame:
    """The rows that are filed in `window`."""
    return frame.filter((pl.col(FILED) >= window.start) & (pl.col(FILED) < window.end)).drop(FILED)


def _times(texts: pl.Series, time: TimeColumn) -> pl.Series:
    found = pl.Series(texts.name, [None], UTC_TIME).new_from_index(0, len(texts))
    stripped = texts.str.strip_chars()
    for form in (time.format,) if time.format else _ISO_8601:
        parsed = stripped.str.to_datetime(form, time_unit="us", strict=False)
        found = found.fill_null(_in_utc(parsed, time.zone))
        if not found.has_nulls():
            break
    return found


def _in_utc(times: pl.Series, zone: str) -> pl.Series:
    """Times in UTC; naive ones are taken to be in `zone`, and null where its clock shows them twice or never."""
    if getattr(times.dtype, "time_zone", None) is None:
        times = times.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    return times.dt.convert_time_zone("UTC")


def _microseconds(times: pl.Series) -> pl.Series:
    if times.dtype not in (pl.Datetime, pl.Date):
        raise Unreadable(f"column {times.name!r} is of type {times.dtype}, not a time; name the right one under `time`")
    return times.cast(pl.Datetime("us", getattr(times.dtype, "time_zone", None)))


def _present(text: pl.Expr, missing: Collection[str] = ()) -> pl.Expr:
    """`text`, null where it says that there is no value."""
    absent = text.str.strip_chars().str.to_lowercase().is_in(NO_VALUE) | text.is_in(missing)
    return pl.when(~absent).then(text)


def _expected(time: TimeColumn) -> str:
    form = time.format or "ISO 8601"
    return f" ({form})" if time.zone == "UTC" else f" ({form}) that the clocks of {time.zone} show exactly once"
