"""Canonical rows: what every dataset file looks like, and how raw columns become its columns.

Belongs here: the schema that ingestion metadata imply, and the conversion of raw batches to it, with what is wrong with
which rows. Does not belong here: how a raw column is read (raw_values.py), names and units as such (cf.py), or where
rows are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import and_, or_

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ionbeam_client.models import CanonicalVariable, DataIngestionMap, IngestionMetadata
from ionbeam_dagster.domain.raw_values import CanonicalError, as_text, is_absent, moments_in, raw_frame, read_as

VERSION = "3"
"""Raised when the same raw rows would become other canonical rows than before."""

TIME = pa.timestamp("us", tz="UTC")
STATION = "station_id"

HEIGHT_COLUMNS = ("altitude", "station_height", "height")
"""Metadata columns that may tell a station's height in m; the first that a dataset has counts."""

EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
LATEST = datetime(2101, 1, 1, tzinfo=UTC)
"""Times are in [EARLIEST, LATEST): what lies outside is a broken clock or a wrong unit."""


_QUOTED = 60


@dataclass(frozen=True, slots=True)
class Canonicalised:
    """The rows of a batch in canonical form, and those that could not be used, or of which a value could not.

    `rows` has the columns of `canonical_schema`, in the order of the batch. `rejected` has the batch's own columns and
    ``row`` (its place in the batch, from 0), ``reason`` (several are joined by ``"; "``) and ``whole``, which is false
    where the row only lost a value; a column of the batch that has one of these names is called ``raw_row``,
    ``raw_reason`` or ``raw_whole`` there. Every row of the batch is in one of them; one that only lost a value is in
    both. `places` tells where the `rows` are in the batch.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    places: pl.Series


@dataclass(frozen=True, slots=True)
class TimeBounds:
    """The times that observations may have: from `start` on, before `end`, not after `latest`; None: any."""

    start: datetime | None = None
    end: datetime | None = None
    latest: datetime | None = None


ANY_TIME = TimeBounds()


def canonical_schema(metadata: Sequence[IngestionMetadata]) -> pa.Schema:
    """The columns of a dataset that was ingested under `metadata` (several sources may feed one dataset).

    ``datetime`` (UTC, microseconds), ``lat``, ``lon`` (degrees), the canonical variables by name, then the metadata
    columns as strings. Each field's metadata has ``role`` (time, latitude, longitude, variable, quality, metadata), and
    a variable's also ``standard_name``, ``units``, ``level``, ``method``, ``period`` and, where somebody said what it
    is, ``definition``. The quality column of a variable that has the provider's codes (int8,
    ``<variable>__provider_flag``) follows it.
    """
    fields = [
        pa.field("datetime", TIME, nullable=False, metadata={"role": "time", "standard_name": "time"}),
        pa.field("lat", pa.float64(), nullable=False, metadata=_axis("latitude", "degrees_north")),
        pa.field("lon", pa.float64(), nullable=False, metadata=_axis("longitude", "degrees_east")),
    ]
    variables: dict[str, CanonicalVariable] = {}
    definitions: dict[str, str] = {}
    described: set[str] = set()
    flagged: set[str] = set()
    for one in metadata:
        for v in one.ingestion_map.canonical_variables:
            definitions[v.to_canonical_name()] = definitions.get(v.to_canonical_name()) or v.definition
        variables |= {v.to_canonical_name(): v for v in one.ingestion_map.canonical_variables}
        described |= {v.column for v in one.ingestion_map.metadata_variables}
        flagged |= {v.to_canonical_name() for v in one.ingestion_map.canonical_variables if v.flag_column}
    for name, v in sorted(variables.items()):
        fields.append(pa.field(name, _arrow_type(v.dtype), metadata=_of_variable(v, definitions[name])))
        if name in flagged:
            fields.append(pa.field(provider_flag(name), pa.int8(), metadata=_of_flag(name)))
    fields += [pa.field(name, pa.string(), metadata={"role": "metadata"}) for name in sorted(described)]
    return pa.schema(fields)


def schema_refusal(first: IngestionMetadata, other: IngestionMetadata) -> str | None:
    """Why `other` cannot come under the version that `first` came under, with every canonical column that differs.

    None when they have the same columns.
    """
    old, new = canonical_schema([first]), canonical_schema([other])
    gone = [f"{name} is no longer there" for name in old.names if name not in new.names]
    added = [f"{name} is new" for name in new.names if name not in old.names]
    changed = [
        f"{name} is {new.field(name).type}, and was {old.field(name).type}"
        for name in old.names
        if name in new.names and new.field(name).type != old.field(name).type
    ]
    if not gone + added + changed:
        return None
    return (
        f"its columns changed, but its version is still {first.version}: {'; '.join(gone + added + changed)}; let them "
        f"be as they were, or raise the version to {first.version + 1}, which keeps both readable"
    )


def point_key(schema: pa.Schema) -> list[str]:
    """The columns that, with ``datetime``, tell one point from another: ``station_id`` where the dataset has one, else
    every metadata column and the position."""
    if STATION in schema.names:
        return [STATION]
    return [*columns_of(schema, "metadata"), "lat", "lon"]


def columns_of(schema: pa.Schema, role: str) -> list[str]:
    """The names of the columns of `schema` that have `role`, in order."""
    return [field.name for field in schema if (field.metadata or {}).get(b"role") == role.encode()]


def quality_column(schema: pa.Schema, variable: str, kind: str) -> str | None:
    """The quality column of `kind` (flag, tests_applied, tests_failed, provider_flag) of column `variable`, if any."""
    wanted = {b"role": b"quality", b"of": variable.encode(), b"kind": kind.encode()}
    return next((field.name for field in schema if wanted.items() <= (field.metadata or {}).items()), None)


def provider_flag(variable: str) -> str:
    """The name of the column with the provider's quality codes of the canonical variable `variable`."""
    return f"{variable}__provider_flag"


def variable_of(field: pa.Field) -> CanonicalVariable:
    """The canonical variable that a dataset file's field holds; raises ValueError when it is none."""
    return CanonicalVariable.from_canonical_name(field.name, dtype=_dtype_name(field.type))


def variables_of(schema: pa.Schema) -> Iterable[CanonicalVariable]:
    """The canonical variables of a dataset file, in the order of its columns."""
    return (variable_of(schema.field(name)) for name in columns_of(schema, "variable"))


def canonicalise(
    batch: pa.RecordBatch | pl.DataFrame, metadata: IngestionMetadata, bounds: TimeBounds = ANY_TIME
) -> Canonicalised:
    """Convert raw columns to canonical ones, as `metadata` declares them; values keep the unit that they came in.

    Times are timestamps of any unit and zone, or ISO 8601 text with date and clock; those without a zone are taken as
    UTC, and what is finer than a microsecond is cut off. Longitudes come out in [-180, 180]. NaN, infinities and the
    texts of NO_VALUE become null. Metadata columns become text without control characters and outer blanks, null where
    nothing is left; a whole number is written without a fraction (42.0 is ``42``), since ids that once were beside a
    missing value come as floats. A row without a `station_id`, where the column is declared, is its place's: the id is
    latitude and longitude to a metre, as in ``52.1_5.1``, so that rows of two places are never one point.

    A row is rejected when it has no time or place, or impossible ones, when its time is out of `bounds`, or when no
    variable has a value or a quality code. A value that cannot be read as its variable's dtype is null, and its row is
    among the rejected, too. Raises CanonicalError when a declared column is missing or has a type that cannot be read.
    Columns that are not declared are left out (`undeclared` tells them).
    """
    raw = batch if isinstance(batch, pl.DataFrame) else raw_frame(batch)
    mapping = metadata.ingestion_map
    _require(raw, mapping)
    faults = _Faults()
    columns = {
        "datetime": _within(bounds, _times(raw[mapping.datetime.column], faults), faults),
        "lat": _degrees(raw[mapping.lat.column], "latitude", (-90.0, 90.0), faults),
        "lon": _wrapped(_degrees(raw[mapping.lon.column], "longitude", (-180.0, 360.0), faults)),
    }
    columns |= _variables(raw, mapping, faults)
    columns |= {described.column: as_text(raw[described.column]) for described in mapping.metadata_variables}
    if STATION in columns:
        columns[STATION] = _of_its_place(columns[STATION], columns["lat"], columns["lon"])
    rows = pl.DataFrame([columns[name].alias(name) for name in canonical_schema([metadata]).names])
    bad = faults.rows()
    if bad is None:
        none = rejected_rows(raw.clear(), pl.Series([], dtype=pl.Int64), pl.Series([], dtype=pl.String), pl.lit(True))
        return Canonicalised(rows, none, pl.int_range(rows.height, eager=True))
    lost = faults.lost(rows.height)
    rejected = rejected_rows(raw.filter(bad), bad.arg_true(), faults.reasons(bad), pl.lit(lost.filter(bad)))
    return Canonicalised(rows.filter(~lost), rejected, (~lost).arg_true())


def _of_its_place(stations: pl.Series, lat: pl.Series, lon: pl.Series) -> pl.Series:
    if not stations.null_count():
        return stations
    place = pl.concat_str([(degrees.round(5) + 0.0).cast(pl.String) for degrees in (lat, lon)], separator="_")
    return pl.select(pl.coalesce(stations, place)).to_series()


def undeclared(schema: pa.Schema, metadata: IngestionMetadata) -> list[str]:
    """The columns of raw data of `schema` that `metadata` does not declare, and that are therefore left out."""
    declared = _declared(metadata.ingestion_map)
    return [name for name in schema.names if name not in declared]


def _axis(standard_name: str, units: str) -> dict[str, str]:
    return {"role": standard_name, "standard_name": standard_name, "units": units}


def _of_variable(variable: CanonicalVariable, definition: str) -> dict[str, str]:
    told = {
        "role": "variable",
        "standard_name": variable.standard_name,
        "units": variable.cf_unit,
        "level": str(variable.level),
        "method": variable.method,
        "period": variable.period,
    }
    return told | {"definition": definition} if definition else told


def _of_flag(variable: str) -> dict[str, str]:
    return {"role": "quality", "of": variable, "kind": "provider_flag"}


def _arrow_type(dtype: str) -> pa.DataType:
    return pa.bool_() if dtype == "bool" else pa.type_for_alias(dtype)


def _dtype_name(arrow_type: pa.DataType) -> str:
    if pa.types.is_large_string(arrow_type) or pa.types.is_string_view(arrow_type):
        return "string"
    return {pa.float64(): "float64", pa.float32(): "float32"}.get(arrow_type, str(arrow_type))


class _Faults:
    """What is wrong with which rows of a batch. Costs next to nothing while nothing is."""

    def __init__(self) -> None:
        self._found: list[tuple[pl.Series, str, pl.Series | None]] = []
        self._lost: list[pl.Series] = []

    def note(self, rows: pl.Series, reason: str, values: pl.Series | None = None, of_value: bool = False) -> None:
        """Remember the rows where `rows` is true; `values` are quoted in the reason. They are lost, unless the fault is
        that of a value."""
        if rows.any():
            self._found.append((rows, reason, values))
            if not of_value:
                self._lost.append(rows)

    def lose(self, rows: pl.Series) -> None:
        """Remember that rows, whose faults are noted, have nothing that could be used."""
        self._lost.append(rows)

    def lost(self, height: int) -> pl.Series:
        """The rows that cannot be used."""
        return reduce(or_, self._lost, pl.repeat(False, height, eager=True))

    def rows(self) -> pl.Series | None:
        """The rows that have a fault, None when there are none."""
        return reduce(or_, (rows for rows, _, _ in self._found)) if self._found else None

    def reasons(self, bad: pl.Series) -> pl.Series:
        """One text for each row where `bad` is true."""
        worded = [_worded(rows.filter(bad), reason, values, bad) for rows, reason, values in self._found]
        return pl.select(pl.concat_str(worded, separator="; ", ignore_nulls=True)).to_series()


def _worded(rows: pl.Series, reason: str, values: pl.Series | None, bad: pl.Series) -> pl.Expr:
    text = pl.lit(reason)
    if values is not None:
        text = pl.concat_str(text, pl.lit(": "), values.filter(bad).cast(pl.String).str.slice(0, _QUOTED))
    return pl.when(rows).then(text)


def rejected_rows(raw: pl.DataFrame, places: pl.Series, reasons: pl.Series, whole: pl.Expr) -> pl.DataFrame:
    """Rows of a batch, their places in it, why they could not be used, and whether they are lost as a whole, as
    `Canonicalised.rejected` has them."""
    own: dict[str, str] = {name: f"raw_{name}" for name in ("row", "reason", "whole") if name in raw.columns}
    return raw.rename(own).with_columns(
        places.cast(pl.Int64).alias("row"), reasons.alias("reason"), whole.alias("whole")
    )


def _declared(mapping: DataIngestionMap) -> list[str]:
    columns = [mapping.datetime.column, mapping.lat.column, mapping.lon.column]
    columns += [variable.column for variable in mapping.canonical_variables]
    return columns + mapping.flag_columns + [described.column for described in mapping.metadata_variables]


def _require(raw: pl.DataFrame, mapping: DataIngestionMap) -> None:
    missing = sorted(set(_declared(mapping)) - set(raw.columns))
    if missing:
        raise CanonicalError(
            f"declared column{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing; there are "
            f"{', '.join(raw.columns) or 'none'}: correct the data, or the ingestion map"
        )


def _times(column: pl.Series, faults: _Faults) -> pl.Series:
    moments = moments_in(column)
    if moments.null_count():
        absent = is_absent(column)
        faults.note(absent, "no time")
        faults.note(moments.is_null() & ~absent, "time not readable", column)
    # Compared as numbers: a far-off time of a coarse unit would overflow in a finer one.
    per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[moments.dtype.time_unit]  # type: ignore[attr-defined]  # of datetimes
    count = moments.to_physical()
    earliest, latest = (int(limit.timestamp()) * per_second for limit in (EARLIEST, LATEST))
    outside = ((count < earliest) | (count >= latest)).fill_null(False)
    if outside.any():
        faults.note(outside, "time out of range", _printable(moments))
        moments = moments.set(outside, None)
    return moments.dt.cast_time_unit("us")


def _within(bounds: TimeBounds, times: pl.Series, faults: _Faults) -> pl.Series:
    """`times`, with a fault noted where they are out of `bounds`."""
    if bounds.start is not None and (early := (times < bounds.start).fill_null(False)).any():
        faults.note(early, "before the source's start", _printable(times))
    if bounds.end is not None and (past := (times >= bounds.end).fill_null(False)).any():
        faults.note(past, "after the source's end", _printable(times))
    if bounds.latest is not None and (ahead := (times > bounds.latest).fill_null(False)).any():
        faults.note(ahead, "in the future when it arrived", _printable(times))
    return times


def _printable(moments: pl.Series) -> pl.Series:
    first, last = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1000 for year in (1, 9999))
    near = moments.dt.cast_time_unit("ms").to_physical().clip(first, last)
    return near.cast(pl.Datetime("ms")).dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def _degrees(column: pl.Series, what: str, limits: tuple[float, float], faults: _Faults) -> pl.Series:
    degrees = read_as(column, pl.Float64())
    if degrees.null_count():
        absent = is_absent(column)
        faults.note(absent, f"no {what}")
        faults.note(degrees.is_null() & ~absent, f"{what} not readable", column)
    outside = (degrees < limits[0]) | (degrees > limits[1])
    faults.note(outside.fill_null(False), f"{what} out of range", degrees)
    return degrees


def _wrapped(longitudes: pl.Series) -> pl.Series:
    east = longitudes > 180.0
    return longitudes.zip_with(~east, longitudes - 360.0) if east.any() else longitudes


_POLARS_TYPES: dict[str, pl.DataType] = {
    "float32": pl.Float32(), "float64": pl.Float64(), "bool": pl.Boolean(), "string": pl.String(),
    "int8": pl.Int8(), "int16": pl.Int16(), "int32": pl.Int32(), "int64": pl.Int64(),
    "uint8": pl.UInt8(), "uint16": pl.UInt16(), "uint32": pl.UInt32(), "uint64": pl.UInt64(),
}  # fmt: skip


def _variables(raw: pl.DataFrame, mapping: DataIngestionMap, faults: _Faults) -> dict[str, pl.Series]:
    found: dict[str, pl.Series] = {}
    unreadable: list[pl.Series] = []
    wanted = [(v.column, v.dtype, v.to_canonical_name()) for v in mapping.canonical_variables]
    wanted += [
        (v.flag_column, "int8", provider_flag(v.to_canonical_name()))
        for v in mapping.canonical_variables
        if v.flag_column is not None
    ]
    for name, dtype, canonical in wanted:
        column = raw[name]
        values = read_as(column, _POLARS_TYPES[dtype])
        found[canonical] = values
        if values.null_count() > column.null_count():
            wrong = values.is_null() & ~is_absent(column)
            faults.note(wrong, f"{name} is no {dtype}", column, of_value=True)
            unreadable.append(wrong)
    if all(values.null_count() for values in found.values()):
        empty = reduce(and_, (values.is_null() for values in found.values()), pl.repeat(True, raw.height, eager=True))
        faults.note(reduce(and_, (~wrong for wrong in unreadable), empty), "no value in any variable")
        faults.lose(empty)
    return found


def whole_seconds(moments: pa.Array) -> npt.NDArray[np.int64]:
    """Seconds since 1970 of moments (timestamps), each the second that it is in, also before 1970."""
    return np.asarray(moments.cast(TIME).cast(pa.int64()).to_numpy() // 1_000_000)
