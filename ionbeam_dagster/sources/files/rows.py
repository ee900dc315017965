"""From a file's rows to a source's: times in UTC, values in the declared units, every row in one window.

Belongs here: what is done to rows whatever format they come from. Does not belong here: reading files (readers.py), and
the conversion to canonical rows, which also rejects what cannot be used (domain/canonical.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePath
from typing import NamedTuple

import polars as pl

from ionbeam_client.cf import UnitError, conversion
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.quality import SAYS_GOOD, SAYS_POOR
from ionbeam_dagster.domain.raw_values import NO_VALUE
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.sources.files.coded_units import contradictions, factors_by_code, set_aside, with_refused_codes
from ionbeam_dagster.sources.files.config import (
    FileQuality,
    FilesConfig,
    FileVariable,
    LongTable,
    format_by_name,
)
from ionbeam_dagster.sources.files.levels import SAME_HEIGHT, Heights, metres
from ionbeam_dagster.sources.files.readers import PROBLEM, ROW, Layout, Unreadable
from ionbeam_dagster.sources.files.times import FILED, UTC_TIME, present
from ionbeam_dagster.sources.files.unit_codes import WEEWX
from ionbeam_dagster.sources.files.written import CsvDialect

FILE = "x_file"
COLUMN, VALUE, UNIT, VARIABLE = "x_column", "x_value", "x_unit", "variable"
NO_DESCRIPTION = ("", "-", "nan", "null", "none", "unknown", "unavailable")
"""Texts, in lower case, that say nothing in a descriptive column; NA may be a name there."""


class Reach(NamedTuple):
    """The times of the windows that are collected: from `start` on, before `end` (None: any), not after `latest`."""

    start: datetime | None
    end: datetime | None
    latest: datetime


@dataclass(frozen=True, slots=True)
class Shaping:
    """How the columns of one file become those of the source.

    `conversions` are the scale and offset of each variable, `texts` the variables that are no numbers, `described`
    further columns of the file that are kept as texts under their own name. `variables` are what the block states of
    each, and `heights` says where those that are one of several heights have theirs. `wide` are the columns of a file
    that are one station's each, with what their names say; `factors` gives scale and offset from a unit that a row has
    to that of a variable, and raises UnitError; `joined` adds what a list says of the stations.
    """

    config: FilesConfig
    layout: Layout
    conversions: dict[str, tuple[float, float]]
    texts: frozenset[str]
    described: tuple[str, ...]
    variables: tuple[FileVariable, ...]
    heights: Mapping[str, Heights]
    wide: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    factors: Callable[[str, str], tuple[float, float]] | None = None
    joined: Callable[[pl.DataFrame], pl.DataFrame] | None = None

    def columns(self) -> list[str]:
        """The columns to be read from the file."""
        layout = self.layout
        long = self.config.long
        values = [one.stands_in for one in self.variables]
        if long is not None:
            values = [long.variable, long.value, *([long.unit] if long.unit else [])]
        values = [*self.wide] or values
        codes = [stated.quality.column for stated in self.variables if stated.quality]
        codes += [stated.unit_codes.column for stated in self.variables if stated.unit_codes]
        codes += [WEEWX] if self._by_weewx() else []
        codes += [where.column for where in self.heights.values() if where.column not in layout.levels]
        found = [*layout.times, *layout.place.values(), *values, *codes, *layout.metadata.values(), *self.described]
        return list(dict.fromkeys(found))

    def shape(self, frame: pl.DataFrame, of_file: Mapping[str, pl.Expr], keep: Sequence[str] = ()) -> pl.DataFrame:
        """The source's columns, and of `frame` the rows that have a value, or a problem to be shown.

        `of_file` are the columns that follow from a row's file (`constants_of`), and ``x_file``, its name; columns of
        `frame` to `keep` stay as they are.
        """
        if self.config.long is not None:
            frame = self._widened(frame, self.config.long)
        elif self.wide:
            frame = self._lengthened(frame)
        else:
            apart = [one for one in self.variables if one.read_from]
            frame = frame.with_columns(self._at_its_height(frame, one, pl.col(one.stands_in)) for one in apart)
        frame = with_refused_codes(frame, self.variables, self._by_weewx())
        shaped = frame.select(
            pl.col("datetime"),
            *self._place(frame),
            *(self._variable(frame, column) for column in self.conversions),
            *(_said(one, one.quality) for one in self.variables if one.quality),
            *self._metadata(frame),
            *(self._described_text(pl.col(name)).alias(name) for name in self.described),
            *(pl.col(name) for name in self._groups),
            *(expression.alias(name) for name, expression in of_file.items()),
            pl.col(ROW, PROBLEM, *keep),
        )
        shaped = shaped.filter(pl.any_horizontal(pl.col(*self.conversions, PROBLEM).is_not_null()))
        shaped = _without_wrong_stations(shaped) if STATION in self.layout.metadata else shaped
        return shaped if self.joined is None else self.joined(shaped)

    def _by_weewx(self) -> dict[str, Mapping[str, str]]:
        return {} if self.config.long is not None or self.wide else contradictions(self.variables)

    def descriptions(self, frame: pl.DataFrame) -> list[pl.Expr]:
        """Place and descriptive columns of rows, as far as they have them. Raises Unreadable."""
        return [*self._place(frame), *self._metadata(frame)]

    def _place(self, frame: pl.DataFrame) -> list[pl.Expr]:
        stated = {"lat": self.config.latitude, "lon": self.config.longitude}
        constant = {name: pl.lit(one) for name, one in stated.items() if isinstance(one, float)}
        place = constant | {name: self._number(frame, column) for name, column in self.layout.place.items()}
        return [expression.alias(name) for name, expression in place.items()]

    def _metadata(self, frame: pl.DataFrame) -> list[pl.Expr]:
        columns = self.layout.metadata.items()
        return [self._descriptive(frame, name, column).alias(name) for name, column in columns]

    @property
    def _groups(self) -> tuple[str, ...]:
        """What the names of wide columns say of their stations."""
        return tuple(group for group in self.config.wide.groupindex if group != VARIABLE) if self.config.wide else ()

    def _lengthened(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with a row for each of its wide columns; a row with a problem stays one."""
        others = [column for column in frame.columns if column not in self.wide]
        rows = frame.unpivot(on=[*self.wide], index=others, variable_name=COLUMN, value_name=VALUE)
        said = pl.DataFrame([{COLUMN: column, **groups} for column, groups in self.wide.items()])
        once = pl.col(PROBLEM).is_null() | (pl.col(COLUMN) == next(iter(self.wide)))
        rows = rows.filter(once).join(said, on=COLUMN, how="left", maintain_order="left").sort(ROW, maintain_order=True)
        names = pl.col(VARIABLE) if VARIABLE in said.columns else pl.lit(self.config.variables[0].column)
        return rows.with_columns(
            pl.when(names == column).then(pl.col(VALUE)).alias(column) for column in self.conversions
        )

    def _widened(self, frame: pl.DataFrame, long: LongTable) -> pl.DataFrame:
        """`frame` with a column for each variable, which has the values of its rows, in the unit that is stated for
        the variable. Rows with a unit that cannot be have no time, and say so."""
        name = pl.col(long.variable).cast(pl.String).str.strip_chars()
        values = [
            self._at_its_height(frame, one, pl.when(name == one.stands_in).then(pl.col(long.value)))
            for one in self.variables
        ]
        if long.unit is None:
            return frame.with_columns(values)
        return frame.with_columns(
            *values,
            present(pl.col(long.unit).cast(pl.String).str.strip_chars()).alias(UNIT),
        ).pipe(self._with_refused_units)

    def _with_refused_units(self, frame: pl.DataFrame) -> pl.DataFrame:
        for column in self.conversions:
            known = [unit for unit, one in self._factors_of(frame, column).items() if one is not None]
            refused = pl.col(column).is_not_null() & ~pl.col(UNIT).is_in(known).fill_null(True)
            why = pl.format(f"{column}: its unit {{}} cannot become that of the variable; correct the file", UNIT)
            frame = set_aside(frame, refused, why)
        return frame

    def _factors_of(self, frame: pl.DataFrame, column: str) -> dict[str, tuple[float, float] | None]:
        """Scale and offset of each unit that rows of a variable have; None for one that cannot be."""
        assert self.factors is not None
        found: dict[str, tuple[float, float] | None] = {}
        for unit in frame.filter(pl.col(column).is_not_null())[UNIT].drop_nulls().unique():
            try:
                found[unit] = self.factors(column, unit)
            except UnitError:
                found[unit] = None
        return found

    def _variable(self, frame: pl.DataFrame, column: str) -> pl.Expr:
        pattern, codes = next((one.pattern, one.unit_codes) for one in self.variables if one.column == column)
        if column in self.texts:
            return self._text(_part(pl.col(column), pattern))
        number, (scale, offset) = self._number(frame, column, pattern), self.conversions[column]
        if (scale, offset) == (1.0, 0.0) and UNIT not in frame.columns and codes is None:
            return number
        factors = [pl.lit(scale), pl.lit(offset)]
        if codes is not None:
            assert self.factors is not None
            of_code = {code: self.factors(column, unit) for code, unit in codes.units.items()}
            own_scale, factors[1] = factors_by_code(codes.column, of_code)
            factors[0] = own_scale * scale
        if UNIT in frame.columns:
            own = {unit: one for unit, one in self._factors_of(frame, column).items() if one is not None}
            factors = [
                pl.col(UNIT).replace_strict(
                    {unit: one[n] for unit, one in own.items()}, default=factor, return_dtype=pl.Float64
                )
                for n, factor in enumerate(factors)
            ]
        converted = number.cast(pl.Float64, strict=False) * factors[0] + factors[1]
        # A text that is no number stays as it is, to be rejected where every bad value is.
        return pl.coalesce(converted.cast(pl.String), number) if frame.schema[column] == pl.String else converted

    def _at_its_height(self, frame: pl.DataFrame, variable: FileVariable, values: pl.Expr) -> pl.Expr:
        """Of `values`, those of the variable: at its height alone, where it stands for one of several."""
        where, level = self.heights.get(variable.column), variable.level
        if where is None or not isinstance(level, float):
            return values.alias(variable.column)
        known = self.layout.levels.get(where.column)
        if known is not None:
            place = next((n for n, height in enumerate(known) if abs(height - level) < SAME_HEIGHT), None)
            at = pl.lit(None) if place is None else values.arr.get(place)
            return at.alias(variable.column)
        scale, offset = metres(where.unit or "m")
        height = self._number(frame, where.column).cast(pl.Float64, strict=False) * scale + offset
        return pl.when((height - level).abs() < SAME_HEIGHT).then(values).alias(variable.column)

    def _number(self, frame: pl.DataFrame, column: str, pattern: str | None = None) -> pl.Expr:
        kind, (texts, numbers) = frame.schema[column], self.config.no_values
        if kind == pl.String:
            text = present(_part(pl.col(column).str.strip_chars(), pattern), texts)
            text = _with_decimal_point(text, self.config.csv, is_measured=column in self.conversions)
            if not numbers:
                return text
            return pl.when(~text.cast(pl.Float64, strict=False).is_in(numbers).fill_null(False)).then(text)
        value = pl.col(column).fill_nan(None) if kind.is_float() else pl.col(column)
        if not numbers or not kind.is_numeric():
            return value
        return pl.when(~value.cast(pl.Float64).is_in(numbers)).then(value)

    def _text(self, expression: pl.Expr) -> pl.Expr:
        return present(expression.cast(pl.String), self.config.no_values[0])

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


def _with_decimal_point(text: pl.Expr, dialect: CsvDialect, is_measured: bool) -> pl.Expr:
    """Texts of numbers as they are read everywhere: those that are measured without what stands between thousands,
    which degrees do not have. Where decimals are commas, and nothing says what that is, 1.013 is no number: it may be
    1013."""
    if dialect.thousands is not None and is_measured:
        mark, point = re.escape(dialect.thousands), re.escape(dialect.decimal)
        grouped = text.str.contains(rf"^[+-]?\d{{1,3}}({mark}\d{{3}})+({point}\d*)?$")
        text = pl.when(grouped).then(text.str.replace_all(dialect.thousands, "", literal=True)).otherwise(text)
    if dialect.decimal == ".":
        return text
    pointed = text.str.replace(",", ".", literal=True)
    if not is_measured or dialect.thousands is not None:
        return pointed
    either = text.str.contains(r"^[+-]?[1-9]\d{0,2}(\.\d{3})+$")
    told = pl.format("{} (decimals are commas: is it csv.thousands: '.'?)", text)
    return pl.when(either).then(told).otherwise(pointed)


def _part(text: pl.Expr, pattern: str | None) -> pl.Expr:
    """The part of a cell that is the value; a cell without one stays, to be rejected where every bad value is."""
    return text if pattern is None else pl.coalesce(text.cast(pl.String).str.extract(pattern, 1), text.cast(pl.String))


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
    code = (
        _part(pl.col(quality.column).cast(pl.String), quality.pattern)
        .str.strip_chars()
        .str.replace(r"^(-?\d+)\.0$", "$1")
    )
    good, poor = ([str(one).removesuffix(".0") for one in codes] for codes in (quality.good, quality.poor))
    said = pl.when(code.is_in(poor)).then(SAYS_POOR).when(code.is_in(good)).then(SAYS_GOOD)
    there = pl.col(stated.column).is_not_null() & (code != "")
    return pl.when(there).then(said.otherwise(0)).cast(pl.Int8).alias(f"{stated.flag_column}")


def constants_of(config: FilesConfig, file: str, path: str) -> dict[str, str | None]:
    """The descriptive columns that are the same for all rows of `file`, which is at `path`; null where its name tells
    none."""
    name = PurePath(file).name.removesuffix(".gz")
    name = name.removesuffix(".zip") if format_by_name(name) else name
    stem = name.rpartition(".")[0] or name
    folder = PurePath(path).parent.name
    told = config.name.search(file) if config.name is not None else None
    columns = config.name.groupindex if config.name is not None else ()
    constants: dict[str, str | None] = {
        column: text.replace("{stem}", stem).replace("{folder}", folder) for column, text in config.constants.items()
    }
    return constants | {column: told[column] if told else None for column in columns}


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
