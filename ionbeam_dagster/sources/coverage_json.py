"""CoverageJSON to wide rows: one row a station and time, one column a parameter.

Belongs here: the format, as OGC's EDR services answer in it (CoverageJSON 1.0). Does not belong here: who is asked, and
what parameters are called. Pure: bytes in, Arrow out. The loop goes over coverages, never over values.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
import pyarrow as pa

STATION_KEYS = ("rodeo:wigosId", "metocean:wigosId")
TIME = pa.timestamp("us", tz="UTC")
_ROW_AXES = ("t", "y", "x")


class CoverageError(ValueError):
    """The bytes are no CoverageJSON that can be read; the message says which part, and why."""


@dataclass(frozen=True, slots=True)
class Coverages:
    """Wide rows: ``datetime`` (UTC), ``lat``, ``lon`` (degrees), ``station_id`` (text, null where the coverage has
    none), then a float64 column for each parameter. `units` are as the document spells them; `unreadable` counts, for
    each parameter, the values that were no numbers, and quotes one of them."""

    rows: pa.Table
    units: dict[str, str]
    unreadable: dict[str, tuple[int, str]]


def read_coverages(document: bytes) -> Coverages:
    """Read a Coverage or a CoverageCollection.

    Axes may be lists of values, regular (start, stop, num) or composite (tuples such as a trajectory's); nulls become
    null, texts that hold numbers become numbers. Raises CoverageError.
    """
    with _collector_resting():
        return _gathered(document).finished()


@contextmanager
def _collector_resting() -> Iterator[None]:
    """What is parsed has no cycles, and looking for some in a million small objects takes as long as parsing them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _gathered(document: bytes) -> _Gathered:
    try:
        content = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise CoverageError(f"is no JSON ({error}); it begins with {document[:60]!r}") from error
    if not isinstance(content, dict) or content.get("type") not in ("Coverage", "CoverageCollection"):
        kind = content.get("type") if isinstance(content, dict) else type(content).__name__
        raise CoverageError(f"is no Coverage or CoverageCollection, but {kind!r}")
    shared = content.get("parameters") or {}
    gathered = _Gathered()
    for place, coverage in enumerate(content.get("coverages", []) if content["type"] != "Coverage" else [content]):
        try:
            gathered.add(coverage, shared)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise CoverageError(f"coverage {place} {reason}") from error
    return gathered


@dataclass(slots=True)
class _Pieces:
    """The values of one parameter: `values` of all coverages that have it, and where in the rows each piece begins."""

    values: list[Any] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    unit: str | None = None


class _Gathered:
    def __init__(self) -> None:
        self._times: list[str] = []
        self._places: tuple[list[float], list[float]] = ([], [])
        self._stations: list[str | None] = []
        self._heights: list[int] = []
        self._pieces: defaultdict[str, _Pieces] = defaultdict(_Pieces)
        self._rows = 0

    def add(self, coverage: dict[str, Any], shared: dict[str, Any]) -> None:
        axes = coverage["domain"]["axes"]
        station = next((coverage[key] for key in STATION_KEYS if key in coverage), None)
        parameters = coverage.get("parameters") or shared
        try:
            (lon,), (lat,), times = axes["x"]["values"], axes["y"]["values"], axes["t"]["values"]
        except (KeyError, ValueError):
            self._add_gridded(coverage["ranges"], axes, station, parameters)
            return
        self._note_rows(times, [lat], [lon], station)
        for name, values in coverage["ranges"].items():
            self._note_values(name, values["values"], len(times), parameters)

    def _add_gridded(self, ranges: dict[str, Any], axes: dict[str, Any], station: Any, parameters: Any) -> None:
        domain = _domain(axes)
        self._note_rows(list(domain.rows["t"]), domain.rows["y"].tolist(), domain.rows["x"].tolist(), station)
        for name, values in ranges.items():
            self._note_values(name, domain.spread(values, name), len(domain.rows["t"]), parameters)

    def _note_rows(self, times: list[str], lats: list[float], lons: list[float], station: str | None) -> None:
        self._times += times
        self._places[0].extend(lats if len(lats) == len(times) else lats * len(times))
        self._places[1].extend(lons if len(lons) == len(times) else lons * len(times))
        self._stations.append(station)
        self._heights.append(len(times))
        self._rows += len(times)

    def _note_values(self, name: str, values: list[Any], rows: int, parameters: Any) -> None:
        if len(values) != rows:
            raise ValueError(f"has {len(values)} values of {name!r} for {rows} times")
        pieces = self._pieces[name]
        pieces.values += values
        pieces.starts.append(self._rows - rows)
        pieces.lengths.append(rows)
        unit = _unit(parameters.get(name))
        if unit is not None and pieces.unit not in (unit, None):
            raise ValueError(f"has {name!r} in {unit!r}, others have it in {pieces.unit!r}")
        pieces.unit = unit or pieces.unit

    def finished(self) -> Coverages:
        stations = pa.array(self._stations, pa.string()).take(np.repeat(np.arange(len(self._heights)), self._heights))
        columns: dict[str, Any] = {
            "datetime": _times(self._times),
            "lat": pa.array(_numbers(self._places[0], "y")),
            "lon": pa.array(_numbers(self._places[1], "x")),
            "station_id": stations,
        }
        unreadable = {}
        for name, pieces in self._pieces.items():
            values, bad = _readable(pieces.values)
            if bad:
                unreadable[name] = (len(bad), str(bad[0]))
            whole = np.full(self._rows, np.nan)
            whole[_places(pieces)] = values
            columns[name] = pa.array(whole, from_pandas=True)
        return Coverages(pa.table(columns), {n: p.unit for n, p in self._pieces.items() if p.unit}, unreadable)


def _places(pieces: _Pieces) -> npt.NDArray[np.int64]:
    """The rows of a parameter's values: each piece's start and what follows it."""
    starts, lengths = np.array(pieces.starts, np.int64), np.array(pieces.lengths, np.int64)
    begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    rows: npt.NDArray[np.int64] = np.arange(lengths.sum()) + np.repeat(starts - begins, lengths)
    return rows


def _readable(values: list[Any]) -> tuple[npt.NDArray[np.float64], list[Any]]:
    """Values as numbers, NaN where there is none, and what was no number."""
    try:
        return np.array(values, np.float64), []
    except (TypeError, ValueError):
        numbers = pl.Series(values, dtype=pl.String, strict=False).str.strip_chars().cast(pl.Float64, strict=False)
        lost = numbers.is_null() & pl.Series([value is not None for value in values])
        return numbers.to_numpy(), [values[place] for place in lost.arg_true()]


def _numbers(values: list[Any], axis: str) -> npt.NDArray[np.float64]:
    try:
        return np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise CoverageError(f"axis {axis} holds no numbers: {error}") from error


def _times(texts: list[str]) -> pa.Array:
    try:
        return pa.array(texts, pa.string()).cast(TIME)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CoverageError(f"axis t holds no times with a zone: {error}") from error


def _unit(parameter: Any) -> str | None:
    unit = (parameter or {}).get("unit") or {}
    symbol = unit.get("symbol")
    label = unit.get("label")
    found = symbol.get("value") if isinstance(symbol, dict) else symbol
    return found or (next(iter(label.values()), None) if isinstance(label, dict) else label)


@dataclass(frozen=True, slots=True)
class _Domain:
    """Any domain as rows: `rows` has the times, latitudes and longitudes, `dimensions` the axes with their lengths."""

    rows: dict[str, Any]
    dimensions: dict[str, int]

    def spread(self, values: dict[str, Any], name: str) -> list[Any]:
        """The values of a range, in the order of the rows; an axis that it does not have repeats it."""
        if values.get("type") != "NdArray":
            raise ValueError(f"has {name!r} as {values.get('type')!r}; only NdArray can be read")
        names: Sequence[str] = values.get("axisNames", ())
        array = np.array(values["values"], object).reshape(values.get("shape", ()))
        unknown = [axis for axis in names if axis not in self.dimensions]
        if any(array.shape[names.index(axis)] > 1 for axis in unknown):
            raise ValueError(f"has {name!r} over {', '.join(unknown)}, which the domain does not have")
        array = array.squeeze(tuple(names.index(axis) for axis in unknown))
        names = [axis for axis in names if axis in self.dimensions]
        array = array.transpose([names.index(axis) for axis in self.dimensions if axis in names])
        missing = [place for place, axis in enumerate(self.dimensions) if axis not in names]
        return np.broadcast_to(np.expand_dims(array, missing), tuple(self.dimensions.values())).ravel().tolist()


def _domain(axes: dict[str, Any]) -> _Domain:
    coordinates: dict[str, tuple[str, list[Any]]] = {}
    dimensions: dict[str, int] = {}
    for name, axis in axes.items():
        values = list(_axis_values(axis))
        if "coordinates" in axis or axis.get("dataType") == "tuple":
            for place, one in enumerate(axis.get("coordinates", ())):
                coordinates[one] = (name, [value[place] for value in values])
        elif name in _ROW_AXES:
            coordinates[name] = (name, values)
        elif len(values) > 1:
            raise ValueError(f"has {len(values)} values on axis {name!r}; rows can tell only t, y and x apart")
        else:
            continue
        dimensions[name] = len(values)
    lacking = [axis for axis in _ROW_AXES if axis not in coordinates]
    if lacking:
        raise ValueError(f"has no axis {', '.join(lacking)}")
    shape, order = tuple(dimensions.values()), list(dimensions)
    rows = {}
    for one in _ROW_AXES:
        axis, values = coordinates[one]
        along = [1] * len(shape)
        along[order.index(axis)] = len(values)
        rows[one] = np.broadcast_to(np.array(values, object).reshape(along), shape).ravel()
    return _Domain(rows, dimensions)


def _axis_values(axis: dict[str, Any]) -> Iterator[Any]:
    if "values" in axis:
        return iter(axis["values"])
    return iter(np.linspace(axis["start"], axis["stop"], axis["num"]).tolist())
