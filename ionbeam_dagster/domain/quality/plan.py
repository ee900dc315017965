"""What is tested of a dataset's columns, its reports as arrays, and the verdicts on them.

Belongs here: `Plan`, which follows from a schema and limits, how rows become `Reports`, and the quality columns that
say what came of them. Does not belong here: the running of the tests (chain.py), and the reading, writing and order of
rows (ionbeam_dagster.pipeline.quality_control).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ionbeam_client.cf import UnitError, conversion
from ionbeam_client.models import parse_duration
from ionbeam_dagster.domain.canonical import HEIGHT_COLUMNS, columns_of, provider_flag, variable_of
from ionbeam_dagster.domain.quality import Masks, Test, flags_of, neighbours, series
from ionbeam_dagster.domain.quality.limits import HOUR, ONE_THING, Limits
from ionbeam_dagster.domain.quality.neighbours import Bools, Floats, Ints, Sums

METHODS = frozenset({"point", "mean", "minimum", "maximum", "sum"})
"""The methods whose values limits are meant for."""

_SCREEN = (1.25, 2.0)  # m
_AT_SCREENS = frozenset({"air_temperature", "dew_point_temperature", "relative_humidity"})
_NEAR_GROUND = 10.0  # m
_AT_ANY_HEIGHT = frozenset({"surface_air_pressure", "air_pressure_at_mean_sea_level"})
_SHORT = 600.0  # s
COMPARABLE = (
    "Neighbours are reports of one quantity, by whichever of its CF names, at one level, by one method over one "
    "period. One level are those of screens (1.25 to 2 m) for temperature, dew point and humidity, and all up to 10 m "
    "for pressure; one method are points and means of up to ten minutes."
)


@dataclass(frozen=True, slots=True)
class Tested:
    """A column with limits; ``value * scale + offset`` is in the limits' unit, and the range that of its period.

    `name` is the quantity's, of the several that CF has for some.
    """

    column: str
    name: str
    limits: Limits
    scale: float
    offset: float
    range: tuple[float, float] | None

    @property
    def compared(self) -> bool:
        """Whether it is compared with neighbours."""
        limits = self.limits
        return bool(limits.buddy or limits.resistant or limits.tendency or limits.event or limits.consistency)

    @property
    def change(self) -> str:
        """Where reports have its change in two hours, if that is compared."""
        return f"{self.column}__change"

    def comparable(self, other: Tested) -> bool:
        """Whether reports of both are neighbours: `COMPARABLE` says by what rule."""
        return self.name == other.name and self._measured == other._measured

    @property
    def _measured(self) -> tuple[str, ...]:
        level, method, period = self.column.split("__")[2:]
        height = float(level)
        if self.name in _AT_SCREENS and _SCREEN[0] <= height <= _SCREEN[1]:
            level = "screen"
        elif self.name in _AT_ANY_HEIGHT and height <= _NEAR_GROUND:
            level = "near the ground"
        if method in ("point", "mean") and parse_duration(period).total_seconds() <= _SHORT:
            return level, "short"
        return level, method, period


@dataclass
class Reports:
    """Reports as arrays, all of one length: seconds since 1970, degrees, metres (NaN: unknown), a number for each
    station, by column the values in the unit of its limits (NaN: none), and by column the codes of their provider (0:
    none; only where reports are looked at by themselves)."""

    time: Floats
    lat: Floats
    lon: Floats
    height: Floats
    station: Ints
    indoor: Bools
    fixed: Bools
    values: dict[str, Floats]
    said: dict[str, Sums] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.time.size

    def taken(self, rows: npt.NDArray[np.intp] | Bools, columns: Iterable[str] | None = None) -> Reports:
        """Some of the reports, with the values of some `columns` (None: of all)."""
        arrays = {name: getattr(self, name)[rows] for name in ("time", "lat", "lon", "height", "station")}
        values = {column: self.values[column][rows] for column in (self.values if columns is None else columns)}
        return Reports(**arrays, indoor=self.indoor[rows], fixed=self.fixed[rows], values=values)

    @classmethod
    def joined(cls, parts: Sequence[Reports]) -> Reports:
        """Reports one after the other; all have values of the same columns."""
        names = ("time", "lat", "lon", "height", "station", "indoor", "fixed")
        arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        values = {column: np.concatenate([part.values[column] for part in parts]) for column in parts[0].values}
        return cls(**arrays, values=values)


@dataclass
class Verdicts:
    """By column, the tests that were applied to each report and those that it failed; and how many spreads it is above
    its neighbours (NaN: not compared)."""

    applied: dict[str, Masks]
    failed: dict[str, Masks]
    deviation: dict[str, Sums]

    @classmethod
    def none(cls, columns: Mapping[str, object], size: int) -> Verdicts:
        return cls(
            {column: np.zeros(size, np.uint32) for column in columns},
            {column: np.zeros(size, np.uint32) for column in columns},
            {column: np.full(size, np.nan, np.float32) for column in columns},
        )

    def add(self, column: str, test: Test, applied: Bools, failed: Bools) -> None:
        self.applied[column][applied] |= np.uint32(test)
        self.failed[column][applied & failed] |= np.uint32(test)

    def add_at(self, rows: Ints, column: str, test: Test, applied: Bools, failed: Bools) -> None:
        """Add a verdict on each of some `rows`, no row twice."""
        self.applied[column][rows[applied]] |= np.uint32(test)
        self.failed[column][rows[applied & failed]] |= np.uint32(test)


@dataclass(frozen=True)
class Plan:
    """What is tested of the columns of a dataset: of each variable that has limits, by its column's name."""

    tested: dict[str, Tested]
    height: str | None
    metadata: frozenset[str] = field(default=frozenset())

    @classmethod
    def of(cls, schema: pa.Schema, limits: Mapping[str, Limits]) -> Plan:
        found: dict[str, Tested] = {}
        for name in columns_of(schema, "variable"):
            variable = variable_of(schema.field(name))
            chosen = limits.get(variable.standard_name)
            if chosen is None and limits and provider_flag(name) in schema.names:
                chosen = Limits(unit=variable.cf_unit)  # what its provider says of it is told all the same
            if chosen is None or not pa.types.is_floating(schema.field(name).type):
                continue
            if variable.method not in METHODS:
                continue
            try:
                scale, offset = conversion(variable.cf_unit, chosen.unit)
            except UnitError:
                continue
            hours = parse_duration(variable.period).total_seconds() / HOUR
            quantity = ONE_THING.get(variable.standard_name, variable.standard_name)
            found[name] = Tested(name, quantity, chosen, scale, offset, _range(chosen, hours))
        columns = columns_of(schema, "metadata")
        return cls(found, next((c for c in HEIGHT_COLUMNS if c in columns), None), frozenset(columns))

    @property
    def needed(self) -> set[str]:
        """The columns that the tests look at."""
        described = {"indoor", "mobility"} & self.metadata
        return {"datetime", "lat", "lon", *self.tested, *described, *([self.height] if self.height else [])}

    @property
    def kept(self) -> list[str]:
        """The names of all values of reports that are compared: those tested, and their changes."""
        return [*self.tested, *(one.change for one in self.tested.values() if one.limits.tendency)]

    def comparable(self, one: Tested) -> list[str]:
        """The columns of this plan that are comparable to `one` of any plan: itself or its equal first."""
        alike = [column for column, other in self.tested.items() if one.comparable(other)]
        return sorted(alike, key=lambda column: (column != one.column, column))

    def listens_to(self, other: Plan) -> bool:
        """Whether `other` measures something that this plan compares with neighbours."""
        return any(other.comparable(one) for one in self.tested.values() if one.compared)

    def with_changes(self, reports: Reports) -> Reports:
        """The reports, whole stations ordered by time, with the changes in two hours that are compared."""
        for one in self.tested.values():
            if one.limits.tendency:
                values = sane(one, reports.values[one.column])
                reports.values[one.change] = series.change(values, reports.time, reports.station, 2 * HOUR)
        return reports

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """`schema` with the quality columns of each tested variable behind it."""
        fields: list[pa.Field] = []
        for one in schema:
            of = (one.metadata or {}).get(b"of", b"").decode() or one.name
            if fields and of not in (fields[-1].name, (fields[-1].metadata or {}).get(b"of", b"").decode()):
                fields += self._behind(fields[-1])
            fields.append(one)
        fields += self._behind(fields[-1])
        return pa.schema(fields, metadata=schema.metadata)

    def _behind(self, last: pa.Field) -> list[pa.Field]:
        of = (last.metadata or {}).get(b"of", b"").decode() or last.name
        return quality_fields(of) if of in self.tested else []

    def reports(self, batch: pa.RecordBatch, station: Ints) -> Reports:
        """The reports of a batch of canonical rows, whose stations have the numbers `station`."""
        size = batch.num_rows
        text = {name: batch.column(name) for name in ("indoor", "mobility") if name in self.metadata}
        unknown = np.full(size, np.nan)
        return Reports(
            time=_seconds(batch.column("datetime")),
            lat=batch.column("lat").to_numpy(zero_copy_only=False),
            lon=batch.column("lon").to_numpy(zero_copy_only=False),
            height=_numbers(batch.column(self.height)) if self.height else unknown,
            station=station,
            indoor=_equal(text.get("indoor"), "true", size),
            fixed=_equal(text.get("mobility"), "fixed", size),
            values={
                name: batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False) * one.scale + one.offset
                for name, one in self.tested.items()
            },
            said={
                name: batch.column(provider_flag(name)).cast(pa.float32()).fill_null(0).to_numpy(zero_copy_only=False)
                for name in self.tested
                if provider_flag(name) in batch.schema.names
            },
        )


def sane(one: Tested, values: Floats) -> Floats:
    """The values without those out of range, which would condemn what they are compared with."""
    return values if one.range is None else np.where(series.gross_range(values, *one.range), np.nan, values)


def places_of(reports: Reports) -> neighbours.Places:
    return neighbours.Places(reports.lat, reports.lon, reports.height, reports.station)


def quality_fields(variable: str) -> list[pa.Field]:
    """The quality columns of the canonical variable `variable`: CF ancillary variables of it."""
    tests = {
        "flag_masks": ", ".join(str(int(test)) for test in Test),
        "flag_meanings": " ".join(test.name.lower() for test in Test if test.name),
    }
    values = {
        "standard_name": "aggregate_quality_flag",
        "flag_values": "1, 2, 3, 4, 9",
        "flag_meanings": "pass not_evaluated suspect fail missing",
    }
    return [
        _field(variable, "flag", pa.uint8(), values),
        _field(variable, "tests_applied", pa.uint32(), {"standard_name": "status_flag", **tests}),
        _field(variable, "tests_failed", pa.uint32(), {"standard_name": "quality_flag", **tests}),
    ]


def quality_columns(reports: Reports, verdicts: Verdicts, column: str) -> list[pa.Array]:
    """The arrays of `quality_fields` for one variable."""
    applied, failed = verdicts.applied[column], verdicts.failed[column]
    flags = flags_of(applied, failed, ~np.isfinite(reports.values[column]))
    return [pa.array(flags), pa.array(applied), pa.array(failed)]


def _field(variable: str, kind: str, arrow_type: pa.DataType, attributes: Mapping[str, str]) -> pa.Field:
    metadata = {"role": "quality", "of": variable, "kind": kind, **attributes}
    return pa.field(f"{variable}__{kind}", arrow_type, metadata=metadata)


def _range(limits: Limits, hours: float) -> tuple[float, float] | None:
    if limits.range is None or not limits.per_hour:
        return limits.range
    low, high = limits.range
    return low * hours, high * max(hours, 1 / 60)


def _seconds(times: pa.Array) -> Floats:
    return np.asarray(times.cast(pa.int64()).to_numpy(zero_copy_only=False) / 1e6)


def _numbers(texts: pa.Array) -> Floats:
    read = pl.Series(pl.from_arrow(texts)).cast(pl.Float64, strict=False).to_numpy()
    return np.where(np.isfinite(read), read, np.nan)


def _equal(texts: pa.Array | None, wanted: str, size: int) -> Bools:
    if texts is None:
        return np.zeros(size, np.bool_)
    return np.asarray((pl.Series(pl.from_arrow(texts)) == wanted).fill_null(False).to_numpy(), np.bool_)
