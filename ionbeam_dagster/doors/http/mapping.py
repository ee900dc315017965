"""From plain lines to the raw rows of a source: which field is which variable, where the station is, what is left over.

Belongs here: the mapping of a source's block, applied to all lines at once. Does not belong here: the grammar of lines
(lines.py), the conversion to canonical rows, which also rejects what cannot be used (domain/canonical.py), or what
becomes of what is left over (flush.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from hashlib import sha256
from operator import and_

import polars as pl

from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.station_entries import NO_ENTRIES, Entries
from ionbeam_dagster.doors.http.lines import as_sent, hidden, shown
from ionbeam_dagster.doors.http.reports import MEASUREMENT
from ionbeam_dagster.sources.declared import ALTITUDE
from ionbeam_dagster.sources.door import DoorConfig, DoorVariable

TIME = pl.Datetime("us", "UTC")
PARKED = {"line": pl.String, "received": pl.Int64, "measurement": pl.String, "reason": pl.String}
"""What is kept of a line that is not, or not wholly, taken in: line protocol, with its time in ns since 1970."""

_KNOWN = {STATION: pl.String, "known_lat": pl.Float64, "known_lon": pl.Float64, "known_height": pl.Float64}
_TRUE, _FALSE = ("t", "T", "true", "True", "TRUE"), ("f", "F", "false", "False", "FALSE")

_USED = {
    "variables", "stations", "station", "latitude", "longitude", "metadata", "ignore", "future_tolerance",
}  # fmt: skip
"""What of a block decides what becomes of its lines."""

_TOLD = 200  # characters of names from outside in a reason


@dataclass(frozen=True, slots=True)
class Mapped:
    """The raw rows of lines, one for each station and time, and the lines that are parked."""

    rows: pl.DataFrame
    parked: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Mapping:
    """The block of the source `name`, the range [start, end) that its rows may lie in, and the
    `entries` of its stations in the registry."""

    name: str
    config: DoorConfig
    start: datetime
    end: datetime | None
    entries: Entries = NO_ENTRIES

    def apply(self, lines: pl.DataFrame) -> Mapped:
        """Map lines (``line``, ``time`` and ``received`` in ns since 1970).

        A line of which some fields are mapped and others not is in both of what is returned.
        """
        found = self._looked_at(lines)
        values = self._values
        found = found.with_columns(self._unusable(values).alias("why"))
        return Mapped(self._rows(found.filter(pl.col("why").is_null() & pl.col("some")), values), self._parked(found))

    def unmapped(self, lines: pl.Series) -> str | None:
        """What no variable takes of the first of some lines that has such, and that nobody ignores; None where all is
        taken."""
        given = lines.alias("line").to_frame().with_columns(time=pl.lit(0, pl.Int64), received=pl.lit(0, pl.Int64))
        left = self._looked_at(given).filter("left_over").with_columns(self._left().alias("left"))
        found = left.filter(pl.col("left") != "").head(1).select(shown(pl.col("measurement")), shown(pl.col("left")))
        for measurement, fields in found.iter_rows():
            return f"no variable of sources.{self.name} takes {fields[2:]} of {measurement}"
        return None

    def digest(self) -> str:
        """Changes when what becomes of lines may have changed."""
        block = self.config.model_dump_json(include=_USED)
        places = self.entries.places().sort(pl.all()).write_csv()
        parents = self.entries.parents().sort(pl.all())
        parts = [block, str(self.start), str(self.end), places, *([parents.write_csv()] if parents.height else [])]
        return sha256("\n".join(parts).encode()).hexdigest()

    @property
    def _values(self) -> list[str]:
        return [f"v{place}" for place in range(len(self.config.variables))]

    def _looked_at(self, lines: pl.DataFrame) -> pl.DataFrame:
        """The lines with what a block says of them: place, station, the values ``v<n>`` as texts and ``nv<n>`` as
        numbers, and whether they have further fields."""
        parts = self._with_parents(self._parted(lines))
        found = parts.with_columns(
            pl.from_epoch("time", time_unit="ns").dt.cast_time_unit("us").dt.replace_time_zone("UTC").alias("datetime"),
            self._tag(self.config.station).alias(STATION),
            self._place("latitude").alias("lat"),
            self._place("longitude").alias("lon"),
            *(self._tag(tag).alias(name) for name, tag in self.config.metadata.items()),
            *(self._text(variable).alias(f"v{place}") for place, variable in enumerate(self.config.variables)),
            self._ignored().alias("ignored"),
        )
        found = self._placed(found)
        values = self._values
        numbers = [
            _number(pl.col(name), variable).alias(f"n{name}")
            for name, variable in zip(values, self.config.variables, strict=True)
        ]
        found = found.with_columns(numbers)
        count = pl.sum_horizontal(pl.col(name).is_not_null() for name in values) if values else pl.lit(0)
        some = pl.any_horizontal(pl.col(f"n{name}").is_not_null() for name in values) if values else pl.lit(False)
        fields = pl.col("fields").str.count_matches(",", literal=True)
        return found.with_columns(
            (count < fields).fill_null(True).and_(~pl.col("ignored")).alias("left_over"),
            (count > 0).alias("mapped"),
            some.alias("some"),
        )

    # -- parts of a line -----------------------------------------------------------------------------------------

    def _parted(self, lines: pl.DataFrame) -> pl.DataFrame:
        words = pl.col("line").str.split_exact(" ", 1)
        head = pl.concat_str(words.struct.field("field_0"), pl.lit(","))
        return lines.with_columns(
            head.str.extract("^([^,]*)").alias("measurement"),
            head.str.replace("^[^,]*", "").str.replace(",$", "").alias("tags"),
            pl.concat_str(pl.lit(","), words.struct.field("field_1")).alias("fields"),
        )

    def _with_parents(self, parts: pl.DataFrame) -> pl.DataFrame:
        """A reading names its device alone; the parent that the registry tells of it is the tag ``parent``."""
        parents = self.entries.parents()
        if parents.is_empty():
            return parts
        known = self._tag("device").replace_strict(
            parents["device"], parents["parent"], default=None, return_dtype=pl.String
        )
        lacks = (pl.col("measurement") == MEASUREMENT) & self._tag("parent").is_null() & known.is_not_null()
        tags = pl.when(lacks).then(pl.format("{},parent={}", "tags", known)).otherwise("tags")
        return parts.with_columns(tags.alias("tags"))

    def _tag(self, name: str) -> pl.Expr:
        return shown(pl.col("tags").str.extract(_of_key(name)))

    def _place(self, axis: str) -> pl.Expr:
        """Degrees by the line; null where it has none."""
        given = self.config.latitude if axis == "latitude" else self.config.longitude
        if isinstance(given, float):
            return pl.lit(given)
        if given is None:
            return pl.lit(None, pl.Float64)
        key = _of_key(given)
        text = pl.coalesce(pl.col("tags").str.extract(key), pl.col("fields").str.extract(key))
        return text.str.strip_chars_end("iu").cast(pl.Float64, strict=False)

    def _text(self, variable: DoorVariable) -> pl.Expr:
        """What the line has as value of a variable, null where it has none."""
        value = pl.col("fields").str.extract(_of_key(variable.field))
        conditions = [] if variable.measurement is None else [pl.col("measurement") == hidden(variable.measurement)]
        conditions += [pl.col("tags").str.extract(_of_key(k)) == hidden(v) for k, v in variable.where.items()]
        return pl.when(reduce(and_, conditions)).then(value) if conditions else value

    def _placed(self, found: pl.DataFrame) -> pl.DataFrame:
        """Lines that do not say where their station is have its place by the block, or else by the registry."""
        stations = self.config.stations
        of_block = pl.DataFrame(
            {
                STATION: list(stations),
                "known_lat": [one.latitude for one in stations.values()],
                "known_lon": [one.longitude for one in stations.values()],
                "known_height": [one.altitude for one in stations.values()],
            },
            schema=_KNOWN,
        )
        known = pl.concat([of_block, self.entries.places().join(of_block, on=STATION, how="anti")])
        found = found.join(known, on=STATION, how="left", maintain_order="left")
        whole = pl.col("known_height").cast(pl.Int64, strict=False)
        height = (
            pl.when(whole == pl.col("known_height"))
            .then(whole.cast(pl.String))
            .otherwise(pl.col("known_height").cast(pl.String))
        )
        return found.with_columns(
            pl.coalesce("lat", "known_lat").alias("lat"),
            pl.coalesce("lon", "known_lon").alias("lon"),
            height.alias(ALTITUDE),
        )

    def _ignored(self) -> pl.Expr:
        """Whether all that no variable takes of a line is left out on purpose, but for single fields (`_left`)."""
        if "*" in self.config.ignore:
            return pl.lit(True)
        return pl.col("measurement").is_in([hidden(name) for name in self.config.ignore])

    # -- what comes of it ----------------------------------------------------------------------------------------

    def _unusable(self, values: list[str]) -> pl.Expr:
        """Why a line with mapped fields cannot be a row; null where it can."""
        time, block = pl.col("datetime"), f"sources.{self.name}"
        late = time >= (pl.lit(self.end) if self.end else pl.lit(None, TIME))
        ahead = (
            time
            > pl.from_epoch(pl.col("received"), time_unit="ns").dt.replace_time_zone("UTC")
            + self.config.future_tolerance
        )
        station = pl.format(
            "station {} has no place; add it to " + block + ".stations, or give it one by `ionbeam stations import`",
            _cut(pl.col(STATION)),
        )
        unread = [pl.when(pl.col(f"n{name}").is_null()).then(pl.col(name)) for name in values]
        flags = pl.any_horizontal(one.is_in([*_TRUE, *_FALSE]) for one in unread) if unread else pl.lit(False)
        no_number = pl.any_horizontal(one.is_not_null() for one in unread) if unread else pl.lit(False)
        reason = (
            pl.when(time < self.start)
            .then(pl.lit(f"is from before the source's start; set {block}.start (now {self.start:%Y-%m-%dT%H:%MZ})"))
            .when(late.fill_null(False))
            .then(pl.lit(f"is from after the source's end; set {block}.end"))
            .when(ahead)
            .then(pl.lit(f"is from the future; check the station's clock, or set {block}.future_tolerance"))
            .when(pl.col(STATION).is_null())
            .then(pl.lit(f"has no tag {self.config.station!r}; set {block}.station"))
            .when(pl.col("lat").is_null() | pl.col("lon").is_null())
            .then(station)
            .when(flags)
            .then(
                pl.lit(
                    f"has true or false where a number should be; where that is meant, set flag of {block}.variables"
                )
            )
            .when(no_number)
            .then(pl.lit("has a text where a number should be"))
        )
        return pl.when(pl.col("mapped")).then(reason)

    def _rows(self, found: pl.DataFrame, values: list[str]) -> pl.DataFrame:
        """One row for each station and time: what its lines say together, of what they say twice the last."""
        of_column: dict[str, list[pl.Expr]] = {}
        for place, variable in enumerate(self.config.variables):
            scale, offset = variable.factors
            value = pl.col(f"nv{place}")
            if (scale, offset) != (1.0, 0.0):
                value = value * scale + offset
            of_column.setdefault(variable.canonical.column, []).append(value)
        described = [STATION, *([ALTITUDE] if self.config.has_altitude else []), *self.config.metadata]
        columns = [pl.coalesce(these).alias(name) for name, these in of_column.items()]
        rows = found.select("datetime", "lat", "lon", *columns, *described)
        if rows.select(pl.struct(STATION, "datetime").is_duplicated().any()).item():
            others = pl.exclude(STATION, "datetime").drop_nulls().last()
            rows = rows.group_by(STATION, "datetime", maintain_order=True).agg(others)
        return rows.select("datetime", "lat", "lon", *of_column, *described)

    def _parked(self, found: pl.DataFrame) -> pl.DataFrame:
        kept = found.filter(pl.col("why").is_not_null() | pl.col("left_over"))
        if kept.is_empty():
            return pl.DataFrame(schema=PARKED)
        left = self._left().alias("left")
        kept = kept.with_columns(left).filter(pl.col("why").is_not_null() | (pl.col("left") != ""))
        nobody = pl.format(
            "no variable of sources." + self.name + " takes {}", _cut(shown(pl.col("left").str.slice(2)))
        )
        return kept.select(
            timed(), "received", shown(pl.col("measurement")), pl.coalesce("why", nobody).alias("reason")
        )

    def _left(self) -> pl.Expr:
        """The fields of a line that no variable takes and nobody ignores: ``, a, b``; or as much of it."""
        left = pl.col("fields").str.replace_all("=[^,]*", "")
        for name in self._known_fields():
            left = left.str.replace(rf",{re.escape(hidden(name))}(,|$)", "$1")
        for place, variable in enumerate(self.config.variables):
            taken = left.str.replace(rf",{re.escape(hidden(variable.field))}(,|$)", "$1")
            left = pl.when(pl.col(f"v{place}").is_not_null()).then(taken).otherwise(left)
        for name in self.config.ignore:
            measurement, dot, field = name.partition(".")
            if dot:
                without = left.str.replace(rf",{re.escape(hidden(field))}(,|$)", "$1")
                left = pl.when(pl.col("measurement") == hidden(measurement)).then(without).otherwise(left)
        return left.str.replace_all(",", ", ", literal=True)

    def _known_fields(self) -> Iterator[str]:
        yield from (given for given in (self.config.latitude, self.config.longitude) if isinstance(given, str))


def _cut(text: pl.Expr) -> pl.Expr:
    """Names from outside, short enough for a sentence."""
    return (
        pl.when(text.str.len_chars() > _TOLD)
        .then(pl.concat_str(text.str.slice(0, _TOLD), pl.lit("...")))
        .otherwise(text)
    )


def timed() -> pl.Expr:
    """A line (``line``, ``time``) as line protocol with its time, in ns."""
    return as_sent(pl.format("{} {}", pl.col("line").str.extract("^([^ ]* [^ ]*)"), "time")).alias("line")


def _of_key(name: str) -> str:
    """The expression that finds the value of a tag or field, after a comma."""
    return rf",{re.escape(hidden(name))}=([^,]*)"


def _number(text: pl.Expr, variable: DoorVariable) -> pl.Expr:
    """The number that a field is; null what is none. Where the variable is a flag true is 1, and false 0."""
    number = text.str.replace("[iu]$", "").cast(pl.Float64, strict=False)
    if not variable.flag:
        return number
    return pl.when(text.is_in(_TRUE)).then(1.0).when(text.is_in(_FALSE)).then(0.0).otherwise(number)
