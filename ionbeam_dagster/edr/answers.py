"""Answers: what a query found, as CoverageJSON, GeoJSON or CSV.

Belongs here: the layout of each, after the EUMETNET metocean profile of CoverageJSON (names with the prefix
``metocean:``), RFC 7946 and RFC 4180. Does not belong here: HTTP.

There is a Python loop over stations, none over rows: columns go from NumPy to text in one step each.
"""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.edr.collection import LOCATION, NAMES, WIGOS, stamp
from ionbeam_dagster.edr.crs import Crs
from ionbeam_dagster.edr.parameters import FLAG_MEANINGS, VOCABULARY, Parameter
from ionbeam_dagster.edr.query import Rows

_WIGOS_ID = re.compile(r"^0-\d{1,5}-\d{1,5}-[A-Za-z0-9]{1,16}$")
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC


def as_json(document: Any) -> bytes:
    return orjson.dumps(document, option=_OPTIONS)


# CoverageJSON.


def _referencing(crs: Crs) -> list[dict[str, Any]]:
    kind = "GeographicCRS" if crs.is_geographic else "ProjectedCRS"
    return [
        {"coordinates": ["y", "x"] if crs.north_first else ["x", "y"], "system": {"type": kind, "id": crs.id}},
        {"coordinates": ["t"], "system": {"type": "TemporalRS", "calendar": "Gregorian"}},
    ]


def covjson(found: Rows, links: list[dict[str, str]] | None = None) -> dict[str, Any]:
    """A Coverage of the one location that was found, else a CoverageCollection; empty it is a collection of none."""
    one_each = coverages(found)
    if len(one_each) == 1:
        (only,) = one_each
        own = {id: parameter_object(found.parameters[id]) for id in only["ranges"]}
        head = {name: value for name, value in only.items() if name != "ranges"}
        return {**head, "parameters": own, "ranges": only["ranges"], **_told(found, links)}
    used = {id for coverage in one_each for id in coverage["ranges"]}
    are_fixed = all(coverage["domain"]["domainType"] == "PointSeries" for coverage in one_each)
    return collection_of(found, one_each, used if one_each else set(found.parameters), are_fixed, links)


def coverages(found: Rows) -> list[dict[str, Any]]:
    """A Coverage a location that has a value, without its parameters."""
    table = found.table
    arrays = {id: values_of(table.column(id)) for id in found.parameters}
    kinds = {id: _data_type(table.column(id).type) for id in found.parameters}
    places = found.crs.xy(table.column("lon").to_numpy(), table.column("lat").to_numpy())
    referencing = _referencing(found.crs)
    each = (
        _coverage(table, start, end, places, referencing, arrays, kinds) for start, end in runs(table.column(LOCATION))
    )
    return [coverage for coverage in each if coverage["ranges"]]


def collection_of(
    found: Rows,
    coverages: list[dict[str, Any]],
    used: set[str],
    are_fixed: bool,
    links: list[dict[str, str]] | None,
) -> dict[str, Any]:
    """A CoverageCollection; `used` are the parameters that a coverage has, and `are_fixed` that no station moves."""
    return {
        "type": "CoverageCollection",
        **({"domainType": "PointSeries"} if are_fixed else {}),
        "parameters": {id: parameter_object(one) for id, one in found.parameters.items() if id in used},
        "referencing": _referencing(found.crs),
        "coverages": coverages,
        **_told(found, links),
    }


def _told(found: Rows, links: list[dict[str, str]] | None) -> dict[str, Any]:
    notes: dict[str, Any] = {"ionbeam:notes": found.notes} if found.notes else {}
    return notes | ({"ionbeam:links": links} if links else {})


def parameter_object(parameter: Parameter) -> dict[str, Any]:
    """A parameter as CoverageJSON and the profile tell of it."""
    measured = {"method": parameter.method, "duration": parameter.period, "period": parameter.period}
    about: dict[str, Any] = {
        "type": "Parameter",
        "id": parameter.id,
        "label": {"en": parameter.label},
        "description": {"en": parameter.description},
        "observedProperty": observed_property(parameter),
        "metocean:standard_name": parameter.name,
        "metocean:level": parameter.level,
        "metocean:measurementType": measured,
    }
    if parameter.is_flag:
        about["categoryEncoding"] = {_category(code): code for code in FLAG_MEANINGS}
    else:
        about["unit"] = unit_object(parameter.unit)
    return about


def unit_object(unit: str) -> dict[str, Any]:
    return {"label": {"en": unit}, "symbol": {"value": unit, "type": "https://www.unidata.ucar.edu/software/udunits/"}}


def observed_property(parameter: Parameter) -> dict[str, Any]:
    about: dict[str, Any] = {"label": {"en": parameter.label}}
    if parameter.is_flag or not parameter.is_local:
        about["id"] = f"{VOCABULARY}{'quality_flag' if parameter.is_flag else parameter.standard_name}"
    if parameter.definition and not parameter.is_flag:
        about["description"] = {"en": parameter.definition}
    if parameter.is_flag:
        about["categories"] = [
            {"id": _category(code), "label": {"en": meaning}} for code, meaning in FLAG_MEANINGS.items()
        ]
    return about


def _category(code: int) -> str:
    return f"https://ioos.noaa.gov/project/qartod/#flag-{code}"


def _coverage(
    table: pa.Table,
    start: int,
    end: int,
    places: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    referencing: list[dict[str, Any]],
    arrays: dict[str, npt.NDArray[Any]],
    kinds: dict[str, str],
) -> dict[str, Any]:
    x, y = places[0][start:end], places[1][start:end]
    time = table.column("datetime").to_numpy()[start:end]
    moments = time.view("datetime64[us]") if time.dtype == np.int64 else time
    fixed = (x == x[0]).all() and (y == y[0]).all()
    if fixed:
        axes: dict[str, Any] = {
            "x": {"values": [float(x[0])]},
            "y": {"values": [float(y[0])]},
            "t": {"values": moments},
        }
        names, shape = ["t", "y", "x"], [end - start, 1, 1]
    else:
        points = [list(point) for point in zip(_texts(moments), x.tolist(), y.tolist(), strict=True)]
        axes = {"composite": {"dataType": "tuple", "coordinates": ["t", "x", "y"], "values": points}}
        names, shape = ["composite"], [end - start]
    ranges = {}
    for id, array in arrays.items():
        values = array[start:end]
        if values.dtype.kind != "f" or not np.isnan(values).all():
            ranges[id] = {
                "type": "NdArray",
                "dataType": kinds[id],
                "axisNames": names,
                "shape": shape,
                "values": values if values.dtype.kind != "O" else values.tolist(),
            }
            if kinds[id] == "integer" and values.dtype.kind == "f":
                ranges[id]["values"] = [None if np.isnan(value) else int(value) for value in values.tolist()]
    domain = {
        "type": "Domain",
        "domainType": "PointSeries" if fixed else "Trajectory",
        "axes": axes,
        "referencing": referencing,
    }
    return {"type": "Coverage", "domain": domain, "ranges": ranges, **_who(table, start)}


def _who(table: pa.Table, row: int) -> dict[str, Any]:
    """Which station it is: its WIGOS identifier where it has one, and the id of its location."""
    location = table.column(LOCATION)[row].as_py()
    wigos = next((table.column(name)[row].as_py() for name in WIGOS if name in table.column_names), None)
    if wigos is None and location is not None and _WIGOS_ID.match(location):
        wigos = location
    return ({"metocean:wigosId": wigos} if wigos else {}) | {"ionbeam:location": location}


def _texts(moments: npt.NDArray[Any]) -> list[str]:
    return [str(text) for text in orjson.loads(as_json(moments))]


def runs(column: pa.ChunkedArray) -> list[tuple[int, int]]:
    """Where each value of an ordered column begins and ends."""
    if not len(column):
        return []
    codes = column.combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    starts = [0, *(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist()]
    return list(zip(starts, [*starts[1:], len(codes)], strict=True))


def values_of(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column as NumPy, NaN where there is no value (object where the values are no numbers)."""
    whole = column.combine_chunks()
    if pa.types.is_floating(whole.type):
        return np.asarray(whole.to_numpy(zero_copy_only=False))
    if pa.types.is_integer(whole.type) or pa.types.is_boolean(whole.type):
        if whole.null_count == 0:
            return np.asarray(whole.cast(pa.int64()).to_numpy(zero_copy_only=False))
        return np.asarray(whole.cast(pa.float64()).to_numpy(zero_copy_only=False))
    return np.array(whole.to_pylist(), object)


def _data_type(type: pa.DataType) -> str:
    if pa.types.is_floating(type):
        return "float"
    return "integer" if pa.types.is_integer(type) or pa.types.is_boolean(type) else "string"


# GeoJSON.


def features(found: Rows, links: list[dict[str, str]] | None = None, matched: int | None = None) -> dict[str, Any]:
    """A FeatureCollection of rows: each a point with its time, metadata and values."""
    table = found.table
    names = [name for name in table.column_names if name not in ("lon", "lat", "datetime", "id")]
    columns: dict[str, list[Any]] = {"datetime": _texts(table.column("datetime").to_numpy().view("datetime64[us]"))}
    columns |= {name: _without_nan(table.column(name)).to_pylist() for name in names}
    keys = list(columns)
    rows = zip(*columns.values(), strict=True)
    ids = (
        table.column("id").to_pylist()
        if "id" in table.column_names
        else [f"{location}-{moment}" for location, moment in zip(columns[LOCATION], columns["datetime"], strict=True)]
    )
    document: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "id": id,
                "geometry": {"type": "Point", "coordinates": place},
                "properties": dict(zip(keys, row, strict=True)),
            }
            for id, place, row in zip(ids, _coordinates(found), rows, strict=True)
        ],
        "parameters": [{**parameter_object(one)} for one in found.parameters.values()],
        "numberReturned": table.num_rows,
    }
    if matched is not None:
        document["numberMatched"] = matched
    if links is not None:
        document["links"] = links
    if found.notes:
        document["notes"] = found.notes
    return document


def _coordinates(found: Rows) -> list[list[float]]:
    """The place of each row, in the order of the axes of the system that was asked for."""
    x, y = found.crs.xy(found.table.column("lon").to_numpy(), found.table.column("lat").to_numpy())
    points: list[list[float]] = np.column_stack([y, x] if found.crs.north_first else [x, y]).tolist()
    return points


def locations(found: Rows, base: str, links: list[dict[str, str]], matched: int) -> dict[str, Any]:
    """A FeatureCollection of locations, of all that `matched`; `base` is the address that one's id is appended to."""
    rows = found.table.to_pylist()
    return {
        "type": "FeatureCollection",
        "features": [_location(row, place, base) for row, place in zip(rows, _coordinates(found), strict=True)],
        "numberMatched": matched,
        "numberReturned": len(rows),
        "links": links,
        **({"notes": found.notes} if found.notes else {}),
    }


def _location(row: dict[str, Any], place: list[float], base: str) -> dict[str, Any]:
    from urllib.parse import quote

    id = row[LOCATION] or ""
    name = next((row[key] for key in NAMES if row.get(key)), id)
    wigos = next((row[key] for key in WIGOS if row.get(key)), id if _WIGOS_ID.match(id) else None)
    return {
        "type": "Feature",
        "id": id,
        "geometry": {"type": "Point", "coordinates": place},
        "properties": {
            "name": name,
            "datetime": stamp(row["datetime"]),
            "edrqueryendpoint": f"{base}/{quote(id, safe='')}",
            **({"metocean:wigosId": wigos} if wigos else {}),
        },
    }


# CSV.

_RUNS = r"^\s*[=+\-@\t\r]"
"""How a text begins that a spreadsheet takes for a formula."""
_NUMBER = r"^[+-]?\d+(\.\d+)?$"


def csv(found: Rows, head: bool = True) -> bytes:
    """A row a time and station: datetime, location, lon, lat, metadata, then the parameters by id; no units.

    In a projected system x and y stand where lon and lat do. A text that a spreadsheet would run stands behind an
    apostrophe.
    """
    table = found.table
    if not found.crs.is_geographic:
        places = found.crs.xy(table.column("lon").to_numpy(), table.column("lat").to_numpy())
        for name, values in zip(("lon", "lat"), places, strict=True):
            table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.float64()))
    frame = pl.DataFrame(pl.from_arrow(table)) if table.num_rows else pl.DataFrame({n: [] for n in table.column_names})
    first = ["datetime", LOCATION, "lon", "lat"]
    ordered = [*first, *(name for name in frame.columns if name not in (*first, STATION))]
    if table.num_rows:
        frame = frame.with_columns(
            pl.col("datetime").cast(pl.Datetime("us", "UTC")).dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")
        )
    projected = {} if found.crs.is_geographic else {"lon": "x", "lat": "y"}
    buffer = io.BytesIO()
    harmless(frame.select(ordered)).rename(projected).write_csv(buffer, include_header=head)
    return buffer.getvalue()


def harmless(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with texts that no spreadsheet runs: what would be a formula stands behind an apostrophe."""
    texts = [pl.col(name) for name, kind in frame.schema.items() if kind == pl.String]
    runs = [text.str.contains(_RUNS) & ~text.str.contains(_NUMBER) for text in texts]
    return frame.with_columns(
        pl.when(run).then(pl.lit("'") + text).otherwise(text).name.keep() for text, run in zip(texts, runs, strict=True)
    )


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
    return column
