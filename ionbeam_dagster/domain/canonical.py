"""Canonical rows: what every dataset file looks like, and how raw columns become its columns.

Belongs here: the schema that ingestion metadata imply, and the conversion of raw batches to it. Does not belong here:
names and units as such (cf.py), or where rows are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from ionbeam_client.models import CanonicalVariable, IngestionMetadata

TIME = pa.timestamp("us", tz="UTC")
STATION = "station_id"


def canonical_schema(metadata: Sequence[IngestionMetadata]) -> pa.Schema:
    """The columns of a dataset that was ingested under `metadata` (several sources may feed one dataset).

    ``datetime`` (UTC, microseconds), ``lat``, ``lon`` (degrees), the canonical variables by name, then the metadata
    columns as strings. Each field's metadata has ``role`` (time, latitude, longitude, variable, metadata), and a
    variable's also ``standard_name``, ``units``, ``level``, ``method`` and ``period``.
    """
    fields = [
        pa.field("datetime", TIME, nullable=False, metadata={"role": "time", "standard_name": "time"}),
        pa.field("lat", pa.float64(), nullable=False, metadata=_axis("latitude", "degrees_north")),
        pa.field("lon", pa.float64(), nullable=False, metadata=_axis("longitude", "degrees_east")),
    ]
    variables: dict[str, CanonicalVariable] = {}
    described: set[str] = set()
    for one in metadata:
        variables |= {v.to_canonical_name(): v for v in one.ingestion_map.canonical_variables}
        described |= {v.column for v in one.ingestion_map.metadata_variables}
    fields += [pa.field(name, _arrow_type(v.dtype), metadata=_of_variable(v)) for name, v in sorted(variables.items())]
    fields += [pa.field(name, pa.string(), metadata={"role": "metadata"}) for name in sorted(described)]
    return pa.schema(fields)


def point_key(schema: pa.Schema) -> list[str]:
    """The columns that, with ``datetime``, tell one point from another: ``station_id`` where the dataset has one, else
    every metadata column and the position."""
    if STATION in schema.names:
        return [STATION]
    return [*columns_of(schema, "metadata"), "lat", "lon"]


def columns_of(schema: pa.Schema, role: str) -> list[str]:
    """The names of the columns of `schema` that have `role`, in order."""
    return [field.name for field in schema if (field.metadata or {}).get(b"role") == role.encode()]


def variable_of(field: pa.Field) -> CanonicalVariable:
    """The canonical variable that a dataset file's field holds; raises ValueError when it is none."""
    return CanonicalVariable.from_canonical_name(field.name, dtype=_dtype_name(field.type))


def variables_of(schema: pa.Schema) -> Iterable[CanonicalVariable]:
    """The canonical variables of a dataset file, in the order of its columns."""
    return (variable_of(schema.field(name)) for name in columns_of(schema, "variable"))


def _axis(standard_name: str, units: str) -> dict[str, str]:
    return {"role": standard_name, "standard_name": standard_name, "units": units}


def _of_variable(variable: CanonicalVariable) -> dict[str, str]:
    return {
        "role": "variable",
        "standard_name": variable.standard_name,
        "units": variable.cf_unit,
        "level": str(variable.level),
        "method": variable.method,
        "period": variable.period,
    }


def _arrow_type(dtype: str) -> pa.DataType:
    return pa.bool_() if dtype == "bool" else pa.type_for_alias(dtype)


def _dtype_name(arrow_type: pa.DataType) -> str:
    names = {pa.float64(): "float64", pa.float32(): "float32", pa.bool_(): "bool", pa.string(): "string"}
    return names.get(arrow_type, str(arrow_type))
