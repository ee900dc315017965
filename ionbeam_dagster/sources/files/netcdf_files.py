"""Reads CF netCDF: grids of station and time, single stations, points, trajectories and ragged arrays.

Belongs here: what CF attributes mean, and how arrays of several dimensions become rows. Does not belong here: what the
YAML says about variables, and the check of names and units (source.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from ionbeam_client.cf import UnitError, conversion
from ionbeam_client.models import format_duration
from ionbeam_dagster.domain.canonical import HEIGHT_COLUMNS, STATION
from ionbeam_dagster.sources.files.levels import metres
from ionbeam_dagster.sources.files.readers import (
    PROBLEM,
    ROW,
    Described,
    Layout,
    Place,
    Reader,
    Unreadable,
    listed,
    near_names,
    refusals,
)
from ionbeam_dagster.stores.publish import file_hash

if TYPE_CHECKING:
    from netCDF4 import Dataset, Variable

POINTS_AT_ONCE = 64 * 1024
CALENDARS = ("standard", "gregorian", "proleptic_gregorian")

_LATITUDE_UNITS = ("degrees_north", "degree_north", "degrees_N", "degree_N", "degreesN", "degreeN")
_LONGITUDE_UNITS = ("degrees_east", "degree_east", "degrees_E", "degree_E", "degreesE", "degreeE")
_TIME_METHOD = re.compile(r"\btime\s*:\s*([a-z_]+)(?!\s+(?:within|over)\b)")
_ONE_AT_A_TIME = Lock()  # the netCDF and HDF5 libraries are not made for threads


class NetcdfReader(Reader):
    """CF netCDF; a part is a range of steps along the first dimension of time, ``(start, stop)``.

    Values come unpacked, null where they are ``_FillValue``, ``missing_value`` or outside the valid range. What the
    YAML does not name is found by its CF attributes: time, latitude and longitude by standard_name or units,
    ``station_id`` by cf_role.
    """

    def layout(self, path: Path) -> Layout:
        with _dataset(path) as dataset:
            return self._layout(dataset)

    def parts(self, path: Path, whole_lines: bool = False) -> Iterator[tuple[Place, str]]:
        with refusals():
            content = file_hash(path)[:16]
        with _dataset(path) as dataset:
            points = self._points(dataset)
        for start in range(0, points.steps, points.steps_at_once):
            yield (start, min(start + points.steps_at_once, points.steps)), content

    def read(self, path: Path, places: Iterable[Place], columns: Sequence[str]) -> Iterator[tuple[Place, pl.DataFrame]]:
        for place in places:
            # Opened anew for each part, so that the lock is never held while the caller works on the rows.
            with _dataset(path) as dataset:
                points = self._points(dataset)
                found = {column: points.column(column, *place) for column in columns if column in dataset.variables}
            absent = [pl.lit(None, pl.String).alias(column) for column in columns if column not in found]
            nowhere = [pl.lit(None, pl.Int64).alias(ROW), pl.lit(None, pl.String).alias(PROBLEM)]
            yield place, pl.DataFrame(found).with_columns(*absent, *nowhere)

    def _points(self, dataset: Dataset) -> _Points:
        return _Points(dataset, [*self._layout(dataset).times, *self._variables(dataset)], self._heights(dataset))

    def _layout(self, dataset: Dataset) -> Layout:
        time = self.config.time.column or _coordinate(dataset, "time", "time", lambda units: " since " in units)
        place = {}
        if self.config.has_places and not isinstance(self.config.latitude, float):
            place["lat"] = self.config.latitude or _coordinate(
                dataset, "latitude", "latitude", _LATITUDE_UNITS.__contains__
            )
        if self.config.has_places and not isinstance(self.config.longitude, float):
            place["lon"] = self.config.longitude or _coordinate(
                dataset, "longitude", "longitude", _LONGITUDE_UNITS.__contains__
            )
        metadata = self.config.columns_of_metadata
        identifiers = dataset.get_variables_by_attributes(cf_role=lambda role: role is not None)
        if identifiers and STATION not in {*metadata, *self.config.constants}:
            metadata[STATION] = identifiers[0].name
        _require(dataset, [time, *place.values(), *metadata.values()])
        described = {name: _described(dataset, name, time, self._heights(dataset)) for name in self._variables(dataset)}
        along = {
            name for column in (time, *place.values(), *metadata.values()) for name in _dimensions(dataset[column])
        }
        levels = self._levels(dataset, along)
        _refuse_other_dimensions(dataset, self._variables(dataset), along | self._heights(dataset))
        units = {name: str(getattr(dataset[column], "units", "")) for name, column in metadata.items()}
        units |= {name: one.unit for name, one in self.config.metadata.items() if one.unit}
        heights = {name: unit for name, unit in units.items() if unit and name in HEIGHT_COLUMNS}
        return Layout((time,), place, metadata, described, heights, levels)

    def _heights(self, dataset: Dataset) -> set[str]:
        """The dimensions that are heights of variables."""
        columns = {one.heights.column for one in self.config.variables if one.heights}
        return {name for column in columns if column in dataset.variables for name in _dimensions(dataset[column])}

    def _levels(self, dataset: Dataset, along: set[str]) -> dict[str, tuple[float, ...]]:
        """The heights of variables in m, by the coordinate that they stand in. Raises Unreadable."""
        found: dict[str, tuple[float, ...]] = {}
        for variable in self.config.variables:
            if (where := variable.heights) is None or variable.column not in dataset.variables:
                continue
            _require(dataset, [where.column])
            dimensions = _dimensions(dataset[where.column])
            if (
                len(dimensions) != 1
                or dimensions[0] in along
                or dimensions[0] not in _dimensions(dataset[variable.column])
            ):
                raise Unreadable(
                    f"the heights in {where.column!r} lie along {listed(dimensions) or 'nothing'}; those of variable "
                    f"{variable.column!r} have to lie along one dimension of it, which is none of times or places: "
                    "heights that change cannot be levels"
                )
            found[where.column] = _heights_in_metres(dataset[where.column], where.unit)
        return found

    def _variables(self, dataset: Dataset) -> list[str]:
        _require(dataset, [variable.column for variable in self.config.variables if not variable.optional])
        return [variable.column for variable in self.config.variables if variable.column in dataset.variables]


class _Points:
    """The points of a file: the product of the dimensions of its times and variables, of which time's comes first.

    What belongs to a station alone is spread over its points, also where a ragged array tells which these are.
    """

    def __init__(self, dataset: Dataset, columns: list[str], heights: set[str]) -> None:
        self._dataset = dataset
        self._heights = heights
        along = list(dict.fromkeys(name for column in columns for name in _dimensions(dataset[column])))
        self._dimensions = [name for name in along if name not in heights]
        self._sizes = [len(dataset.dimensions[name]) for name in self._dimensions] or [1]
        self.steps = self._sizes[0]
        each = prod([*self._sizes[1:], *(len(dataset.dimensions[name]) for name in heights)])
        self.steps_at_once = max(1, POINTS_AT_ONCE // max(1, each))

    def column(self, name: str, start: int, stop: int) -> pl.Series:
        """A column's values at the points of the steps from `start` to `stop`; times in UTC, quality flags as text, and
        of a profile arrays with the values of all heights."""
        variable = self._dataset[name]
        values, dimensions = self._values(variable, start, stop), _dimensions(variable)
        if tall := [dimension for dimension in dimensions if dimension in self._heights]:
            values = np.moveaxis(values, dimensions.index(tall[0]), -1)
            dimensions = tuple(dimension for dimension in dimensions if dimension != tall[0])
            where = np.arange(values[..., 0].size).reshape(values.shape[:-1])
            series = _series(values.ravel()).reshape((where.size, values.shape[-1])).alias(name)
            return series.gather(self._spread(where, dimensions, name, start, stop).ravel())
        series = _series(values.ravel()).alias(name)
        if "flag_meanings" in variable.ncattrs():
            series = _meanings(series, variable)
        elif " since " in str(getattr(variable, "units", "")):
            series = _times(series, variable)
        where = np.arange(values.size).reshape(values.shape)
        return series.gather(self._spread(where, dimensions, name, start, stop).ravel())

    def _values(self, variable: Variable[Any], start: int, stop: int) -> np.ma.MaskedArray[Any, Any]:
        of_steps = tuple(
            slice(start, stop) if name in self._dimensions[:1] else slice(None) for name in variable.dimensions
        )
        values = variable[of_steps] if of_steps else variable[...]
        if variable.dtype == "S1":
            from netCDF4 import chartostring

            values = values if values.dtype.kind == "U" else chartostring(np.ma.filled(values, b""))
        return np.ma.asarray(values)

    def _spread(self, where: np.ndarray, dimensions: tuple[str, ...], name: str, start: int, stop: int) -> np.ndarray:
        """Which of a variable's values stands at each point, given where they are along the variable's `dimensions`."""
        given = list(dimensions)
        for dimension in [dimension for dimension in dimensions if dimension not in self._dimensions]:
            axis = given.index(dimension)
            if where.shape[axis] == 1:
                where = where.squeeze(axis)
                del given[axis]
            else:
                where = where.take(self._instances(dimension, name, start, stop), axis)
                given[axis] = self._dimensions[0]
        where = where.transpose([given.index(dimension) for dimension in self._dimensions if dimension in given])
        widened = where[tuple(slice(None) if dimension in given else None for dimension in self._dimensions)]
        return np.broadcast_to(widened, (stop - start, *self._sizes[1:]))

    def _instances(self, dimension: str, name: str, start: int, stop: int) -> np.ndarray:
        """The place along `dimension` (of stations, say) to which each step belongs, in a CF ragged array."""
        samples = self._dimensions[0] if len(self._dimensions) == 1 else None
        for variable in self._dataset.get_variables_by_attributes(instance_dimension=dimension):
            if variable.dimensions == (samples,):
                return np.ma.getdata(variable[start:stop])
        for variable in self._dataset.get_variables_by_attributes(sample_dimension=samples):
            if variable.dimensions == (dimension,):
                return np.searchsorted(np.cumsum(variable[:]), np.arange(start, stop), side="right")
        raise Unreadable(
            f"variable {name!r} lies along {dimension!r}, which neither the times nor the variables do "
            f"(they lie along {listed(self._dimensions)}); leave it out, or correct the file"
        )


@contextmanager
def _dataset(path: Path) -> Iterator[Dataset]:
    from netCDF4 import Dataset

    with refusals(RuntimeError), _ONE_AT_A_TIME, Dataset(path) as dataset:
        yield dataset


def attributes_of(path: Path) -> dict[str, dict[str, Any]]:
    """The attributes of each variable of a file, and under ``dimensions``, ``steps`` (along the first of them) and
    ``is_number`` what it is. Raises Unreadable."""
    with _dataset(path) as dataset:
        return {
            name: {key: variable.getncattr(key) for key in variable.ncattrs()}
            | {
                "dimensions": _dimensions(variable),
                "steps": (*variable.shape, 1)[0],
                "is_number": getattr(variable.dtype, "kind", "O") in "iuf",
            }
            for name, variable in dataset.variables.items()
        }


def _dimensions(variable: Variable[Any]) -> tuple[str, ...]:
    """The dimensions of a variable; the last one of an array of characters is only the length of its texts."""
    return variable.dimensions[:-1] if variable.dtype == "S1" else variable.dimensions


def _coordinate(dataset: Dataset, key: str, standard_name: str, are_units: Callable[[str], bool]) -> str:
    """The one variable that is the time, latitude or longitude, which the YAML would name under `key`."""
    named = [variable.name for variable in dataset.get_variables_by_attributes(standard_name=standard_name)]
    named = named or [v.name for v in dataset.get_variables_by_attributes(units=lambda u: are_units(str(u or "")))]
    if len(named) == 1:
        return named[0]
    reason = f"has the variables {listed(named)}" if named else "has no variable"
    raise Unreadable(f"{reason} with standard_name {standard_name!r}; name the right one under `{key}`")


def _require(dataset: Dataset, names: Iterable[str]) -> None:
    missing = [name for name in names if name not in dataset.variables]
    if missing:
        there = list(dataset.variables)
        raise Unreadable(
            f"has no variable {listed(missing)}; it has {listed(there)}{near_names(missing, there)}; "
            "correct the YAML or the file"
        )


def _heights_in_metres(coordinate: Variable[Any], unit: str | None) -> tuple[float, ...]:
    """The heights above the ground that a coordinate has; depths are negative. Raises Unreadable."""
    said = unit or str(getattr(coordinate, "units", "m"))
    try:
        scale, offset = metres(said)
    except ValueError as error:
        raise Unreadable(f"the heights in {coordinate.name!r}: {error}; state `unit` of the level") from error
    if getattr(coordinate, "standard_name", "") == "altitude":
        raise Unreadable(
            f"the heights in {coordinate.name!r} are altitudes above the sea, and levels are heights above the ground; "
            "leave its variables out, or correct the file"
        )
    down = str(getattr(coordinate, "positive", "")).lower() == "down" or "depth" in getattr(
        coordinate, "standard_name", ""
    )
    values = np.ma.asarray(coordinate[...]).astype("f8") * (-scale if down else scale) + offset
    if np.ma.getmaskarray(values).any() or not np.isfinite(values).all():
        raise Unreadable(f"a height in {coordinate.name!r} has no value; correct the file")
    return tuple(round(float(value), 6) + 0.0 for value in values)


def _refuse_other_dimensions(dataset: Dataset, variables: list[str], along: set[str]) -> None:
    """Refuse a dimension of a variable that is none of `along`: those of times, places, stations and stated heights.
    Rows would be made up, or several become one, of an instrument's own times, for example."""
    samples = {getattr(one, "sample_dimension", None) for one in dataset.variables.values()}
    for name in variables:
        others = [d for d in _dimensions(dataset[name]) if d not in along | samples and len(dataset.dimensions[d]) > 1]
        if others:
            size = len(dataset.dimensions[others[0]])
            raise Unreadable(
                f"variable {name!r} lies along {others[0]!r} ({size} values), which neither the times nor the places "
                "do; where these are heights, name their coordinate as its level (level: z), else leave it out, or "
                "write a variable of its own for each of them"
            )


def _described(dataset: Dataset, name: str, time: str, heights: set[str]) -> Described:
    variable = dataset[name]
    words = {key: str(getattr(variable, key)).strip() for key in variable.ncattrs()}
    method = _TIME_METHOD.search(words.get("cell_methods", ""))
    return Described(
        standard_name=words.get("standard_name"),
        unit=words.get("units"),
        level=_level(dataset, [*words.get("coordinates", "").split(), *variable.dimensions], name),
        method=method[1] if method else None,
        period=_period(dataset, time) if method and method[1] != "point" else None,
        flags=tuple(
            flag
            for flag in words.get("ancillary_variables", "").split()
            if flag in dataset.variables
            and "flag_meanings" in dataset[flag].ncattrs()
            and heights.isdisjoint(_dimensions(dataset[flag]))
        ),
    )


def _level(dataset: Dataset, coordinates: list[str], name: str) -> float | None:
    """The height in metres that a coordinate of one value gives all values of a variable."""
    for coordinate in (dataset.variables.get(name) for name in coordinates):
        if coordinate is None or coordinate.size != 1 or getattr(coordinate, "standard_name", "") != "height":
            continue
        try:
            scale, offset = conversion(str(getattr(coordinate, "units", "m")), "m")
        except UnitError as error:
            raise Unreadable(
                f"the height of variable {name!r} is in {coordinate.name!r}, in a unit that is none ({error}); "
                f"state `level` for {name!r}"
            ) from error
        return round(float(np.ma.getdata(coordinate[...]).ravel()[0]) * scale + offset, 6)
    return None


def _period(dataset: Dataset, time: str) -> str | None:
    """The duration that each time stands for, where the file bounds its times and all last equally long."""
    bounds = dataset.variables.get(str(getattr(dataset[time], "bounds", "")))
    if bounds is None or not bounds.size:
        return None
    widths = np.unique(np.ptp(np.ma.getdata(bounds[...]), axis=-1) * _step(dataset[time]))
    return format_duration(timedelta(milliseconds=round(widths[0] / 1000))) if len(widths) == 1 else None


def _series(values: np.ma.MaskedArray[Any, Any]) -> pl.Series:
    data, mask = np.ma.getdata(values), np.ma.getmaskarray(values)
    if data.dtype.kind in "OUS":
        texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in data]
        return pl.Series(texts, dtype=pl.String).set(pl.Series(mask), None)
    return pl.Series(pa.array(data.astype(data.dtype.newbyteorder("=")), mask=mask))


def _meanings(flags: pl.Series, variable: Variable[Any]) -> pl.Series:
    """What quality flags say, in the words of the file; a value that has no word stands as it is."""
    meanings = str(variable.flag_meanings).split()
    masks = np.atleast_1d(getattr(variable, "flag_masks", [-1] * len(meanings)))
    values = np.atleast_1d(getattr(variable, "flag_values", masks))
    words = {
        flag: ",".join(m for m, mask, value in zip(meanings, masks, values, strict=False) if flag & mask == value)
        for flag in flags.drop_nulls().unique().to_list()
    }
    return flags.replace_strict({flag: word or str(flag) for flag, word in words.items()}, return_dtype=pl.String)


def _times(numbers: pl.Series, variable: Variable[Any]) -> pl.Series:
    """Times in UTC from "seconds since 1950-01-01" and the like, to the millisecond where they are fractions."""
    present = numbers.drop_nulls().drop_nans() if numbers.dtype.is_float() else numbers.drop_nulls()
    if present.is_empty():
        return pl.Series(numbers.name, [None], pl.Datetime("us", "UTC")).new_from_index(0, len(numbers))
    anchor, step = int(present[0]), _step(variable)
    grain = _grain(present, step, variable.name)
    numbers = numbers.cast(pl.Float64 if numbers.dtype.is_float() else pl.Int64)  # a product of few bits overflows
    passed = (numbers - anchor) * step
    if numbers.dtype.is_float():
        passed = (passed.fill_nan(None) / grain).round() * grain
    return (passed.cast(pl.Int64) + _microseconds(variable, anchor)).cast(pl.Datetime("us", "UTC"))


def _grain(numbers: pl.Series, step: int, name: str) -> int:
    """How finely times can be told apart, in microseconds: to the millisecond, or as numbers of 32 bits can hold."""
    if numbers.dtype != pl.Float32:
        return 1000
    exact_to = float(np.spacing(np.abs(numbers.to_numpy()).max())) * step
    if exact_to > 1_000_000:
        raise Unreadable(
            f"variable {name!r}: its times are floats of 32 bits, which are exact to {exact_to / 1e6:.0f} s alone; "
            "write them as doubles"
        )
    return 1000 if exact_to < 500 else 1_000_000


def _step(variable: Variable[Any]) -> int:
    """How many microseconds the unit of a variable's times lasts."""
    return _microseconds(variable, 1) - _microseconds(variable, 0)


def _microseconds(variable: Variable[Any], number: int) -> int:
    """What `number` in a variable of times is in microseconds since 1970."""
    import cftime

    units, calendar = str(getattr(variable, "units", "")), str(getattr(variable, "calendar", "standard")).lower()
    if calendar not in CALENDARS:
        raise Unreadable(f"its times are in the calendar {calendar!r}, in which observations cannot be; correct it")
    try:
        moment = cftime.num2date(number, units, calendar)
    except ValueError as error:
        raise Unreadable(f"variable {variable.name!r}: times in {units!r} cannot be read ({error})") from error
    passed: timedelta = moment - cftime.datetime(1970, 1, 1, calendar=moment.calendar)
    return round(passed / timedelta(microseconds=1))
