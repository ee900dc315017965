"""Rows as an xarray dataset by CF's discrete sampling geometries: an indexed ragged array.

Belongs here: that layout, its names and attributes. Does not belong here: rows.

Every row is an element of the dimension ``obs``. Where each station has one place all along, places and what describes
stations lie along ``station``, to which ``station_index`` leads (``featureType`` timeSeries); where one moves, places
lie along ``obs`` (trajectory); without ids of stations every row stands for itself (point). After CF 1.11, chapter 9.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ionbeam_client.models import CanonicalVariable
from ionbeam_client.opening import forms
from ionbeam_client.opening.provenance import Provenance
from ionbeam_client.opening.rows import Reading

CONVENTIONS = "CF-1.11"
_PLACE = {
    "lat": {"standard_name": "latitude", "units": "degrees_north"},
    "lon": {"standard_name": "longitude", "units": "degrees_east"},
}
_TIME = {"standard_name": "time"}
_EPOCH = {"units": "microseconds since 1970-01-01T00:00:00+00:00", "calendar": "proleptic_gregorian", "dtype": "int64"}
_Variable = tuple[str | tuple[()], Any, dict[str, Any], dict[str, Any]]
"""Dimension, values, attributes and encoding, as xarray takes them."""


def as_xarray(reading: Reading, provenance: Provenance) -> Any:
    """A dataset in memory. Names of variables have ``_`` for what CF allows in no name; missing numbers are NaN,
    missing flags the ``_FillValue`` of their encoding, missing texts empty."""
    xarray = forms.library("xarray")
    table = forms.as_arrow(reading, provenance)
    names = _names(reading.schema.names)
    coordinates: dict[str, _Variable] = {"time": ("obs", _times(table), _TIME, _EPOCH)}
    described = ["lat", "lon", *(one.name for one in reading.schema if _said(one, "role") == "metadata")]
    feature, along = _stations(table, described)
    if feature != "point":
        coordinates["station_id"] = along.pop("station_id")
    coordinates |= {name: along.pop(name) for name in ("lat", "lon")}
    variables: dict[str, _Variable] = {names.get(name, name): one for name, one in along.items()}
    for name in reading.columns.variables:
        heights = _height(name)
        coordinates |= heights
        named = " ".join([*(one for one in coordinates if not one.startswith("height_")), *heights])
        for one in [reading.schema.field(name), *_quality(reading.schema, name)]:
            variables[names[one.name]] = _variable(table, one, names, named)
    return xarray.Dataset(variables, coordinates, _attributes(provenance, feature))


def _times(table: pa.Table) -> Any:
    return table.column("datetime").cast(pa.timestamp("us")).to_numpy()


def _stations(table: pa.Table, described: list[str]) -> tuple[str, dict[str, _Variable]]:
    """The kind of feature, and the columns that describe places and stations: of a row, or of a station."""
    if "station_id" not in described:
        return "point", {name: _described(table, name, "obs") for name in described}
    ids = table.column("station_id").combine_chunks().dictionary_encode(null_encoding="encode")
    index = ids.indices.to_numpy().astype("int32")
    first = np.full(len(ids.dictionary), len(index), "int64")
    np.minimum.at(first, index, np.arange(len(index)))
    stations = table.take(pa.array(first))
    fixed = [name for name in described if _is_one(table.column(name), stations.column(name), index)]
    feature = "timeSeries" if {"lat", "lon"} <= {*fixed} else "trajectory"
    role = {"cf_role": "timeseries_id" if feature == "timeSeries" else "trajectory_id"}
    along = {
        name: _described(stations, name, "station") if name in fixed else _described(table, name, "obs")
        for name in described
    }
    dimension, values, attributes, encoding = along["station_id"]
    along["station_id"] = (dimension, values, attributes | role, encoding)
    along["station_index"] = ("obs", index, {"instance_dimension": "station", "long_name": "station of the row"}, {})
    return feature, along


def _is_one(column: pa.ChunkedArray, of_stations: pa.ChunkedArray, index: Any) -> bool:
    """Whether each station has one value in all of its rows."""
    expected = of_stations.take(pa.array(index))
    same = pc.or_(pc.fill_null(pc.equal(column, expected), False), pc.and_(column.is_null(), expected.is_null()))
    return bool(pc.all(same, min_count=0).as_py())


def _described(table: pa.Table, name: str, dimension: str) -> _Variable:
    return dimension, _values(table.column(name))[0], dict(_PLACE.get(name, {})), {}


def _variable(table: pa.Table, field: pa.Field, names: dict[str, str], coordinates: str) -> _Variable:
    values, fill = _values(table.column(field.name))
    encoding: dict[str, Any] = {"coordinates": coordinates, **({} if fill is None else {"_FillValue": fill})}
    told: dict[str, Any] = {key: _said(field, key) for key in ("standard_name", "definition") if _said(field, key)}
    if _said(field, "role") == "quality":
        told["long_name"] = f"{_said(field, 'kind').replace('_', ' ')} of {names[_said(field, 'of')]}"
        for key in ("flag_values", "flag_masks"):
            if _said(field, key):
                told[key] = np.array([int(one) for one in _said(field, key).split(",")], values.dtype)
        if _said(field, "flag_meanings"):
            told["flag_meanings"] = _said(field, "flag_meanings")
        return "obs", values, told, encoding
    told["units"] = _said(field, "units")
    method, period = _said(field, "method"), _said(field, "period")
    if method:
        told["cell_methods"] = f"time: {method}" + ("" if period in ("", "PT0S") else f" (comment: over {period})")
    if ancillary := [names[one.name] for one in _quality(table.schema, field.name)]:
        told["ancillary_variables"] = " ".join(ancillary)
    return "obs", values, told, encoding


def _values(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """NumPy's, and what stands there for a missing integer."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_boolean(kind):
        column, kind = column.cast(pa.int8()), pa.int8()
    if pa.types.is_integer(kind):
        fill = np.iinfo(kind.to_pandas_dtype()).max
        return pc.fill_null(column, fill).to_numpy(), fill
    if pa.types.is_floating(kind):
        return column.to_numpy(), None
    return np.array(pc.fill_null(column.cast(pa.string()), "").to_pylist(), object), None


def _height(column: str) -> dict[str, _Variable]:
    """The scalar coordinate of a sensor's height above ground, where it has one."""
    try:
        level = CanonicalVariable.from_canonical_name(column).level
    except ValueError:
        return {}
    if level == 0:
        return {}
    told = {"standard_name": "height", "units": "m", "positive": "up", "axis": "Z"}
    return {_names([f"height_{level}"])[f"height_{level}"]: ((), level, told, {})}


def _names(columns: list[str]) -> dict[str, str]:
    """Names as CF has them: letters, digits and _, and each once."""
    found: dict[str, str] = {}
    for name in columns:
        made = re.sub(r"[^A-Za-z0-9_]", "_", name)
        while made in found.values():
            made += "_"
        found[name] = made
    return found


def _attributes(provenance: Provenance, feature: str) -> dict[str, str]:
    told = {
        "Conventions": CONVENTIONS,
        "featureType": feature,
        "title": provenance.dataset,
        "source": "; ".join(one.description or one.name for one in provenance.sources),
        "license": " ".join(provenance.licences),
        "attribution": "; ".join(provenance.attributions),
        "references": " ".join(dict.fromkeys(link for one in provenance.sources for link in one.links)),
        forms.ABOUT: provenance.to_json(),
    }
    return {key: text for key, text in told.items() if text}


def _quality(schema: pa.Schema, variable: str) -> list[pa.Field]:
    return [one for one in schema if _said(one, "role") == "quality" and _said(one, "of") == variable]


def _said(field: pa.Field, key: str) -> str:
    return str((field.metadata or {}).get(key.encode(), b"").decode())
