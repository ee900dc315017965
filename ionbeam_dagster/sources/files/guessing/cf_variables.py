"""CF netCDF: which variables are measured, and what their attributes leave out.

Belongs here: what names and sentences of a netCDF file hint at. Does not belong here: what CF attributes mean
(sources/files/netcdf_files.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ionbeam_client.cf import lookup, suggest_name
from ionbeam_client.models import CanonicalVariable, format_duration
from ionbeam_dagster.domain.usual_names import Usual, told_by, usual_of
from ionbeam_dagster.sources.files.config import FilesConfig, FileVariable
from ionbeam_dagster.sources.files.describing import completed, factors, reason
from ionbeam_dagster.sources.files.guessing.quantities import unit_meant
from ionbeam_dagster.sources.files.guessing.statements import ITEM, Line, Question, Remark, Statement, below, in_yaml
from ionbeam_dagster.sources.files.guessing.times import step_of
from ionbeam_dagster.sources.files.netcdf_files import NetcdfReader, attributes_of
from ionbeam_dagster.sources.files.readers import Described, Unreadable

_PLACES = {"latitude": ("latitude", "lat"), "longitude": ("longitude", "lon", "long")}
_DESCRIPTIVE = {
    "station_id": ("station", "station_id", "stationid", "id", "site", "platform", "platform_id", "wmo"),
    "station_name": ("station_name", "stationname", "name", "platform_name"),
    "altitude": ("altitude", "alt", "elevation", "elev", "station_altitude", "station_elevation"),
    "station_height": ("station_height", "height"),
}
_SPAN = re.compile(r"(?i)\b(?P<number>\d+)?[ -]?(?P<unit>min|hour|hr|h)(?:ute)?s?\b")
_METHODS = (
    ("mean", r"average|mean"),
    ("minimum", r"minimum"),
    ("maximum", r"maximum"),
    ("sum", r"sum|accumulat\w+"),
)
_LOOKED_AT = 12
_GRASS = 0.05  # m, where thermometers of minima near the ground are
Attributes = Mapping[str, Any]


@dataclass(slots=True)
class _File:
    """A file and what is known of it: its variables, keys of the block that find times, places and stations, and of
    variables that are profiles the coordinate of their heights."""

    variables: dict[str, dict[str, Any]]
    keys: dict[str, Any] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    heights: dict[str, str] = field(default_factory=dict)


def cf_lines(path: Path) -> list[Line]:
    """The lines of a block for a netCDF file. Raises Unreadable where it cannot be read."""
    file = _File(attributes_of(path))
    _find_times(file)
    _find_places(file)
    _find_stations(file)
    measured = [name for name in file.variables if _may_be_measured(file, name)]
    file.heights = {name: found for name in measured if (found := _heights_of(file, name)) and found != name}
    measured = [name for name in measured if name not in file.heights.values()]
    said = _described(path, file, measured)
    return [*file.lines, *_variables(file, said, _step(path, file, said))]


def _find_times(file: _File) -> None:
    """Nothing is to be said where one variable alone is a time."""
    standard = [name for name, one in file.variables.items() if one.get("standard_name") == "time"]
    times = standard or [name for name, one in file.variables.items() if " since " in str(one.get("units", ""))]
    if len(times) != 1:
        named = next((name for name in times if name == "time"), times[0] if times else None)
        if named is None:
            file.lines.append(Question("no variable is a time by its attributes. Name it:", ("time: NAME",)))
            return
        file.keys["time"] = named
        file.lines.append(Statement("time", named, "likely", f"of {', '.join(times)}"))
    file.keys.setdefault("time", times[0])


def _find_places(file: _File) -> None:
    for axis, names in _PLACES.items():
        units = "degrees_north" if axis == "latitude" else "degrees_east"
        standard = [name for name, one in file.variables.items()
                    if one.get("standard_name") == axis or one.get("units") == units]  # fmt: skip
        if len(standard) == 1:
            continue
        named = next((name for name in file.variables if name.lower() in names), None) or next(iter(standard), None)
        if named is None:
            file.lines.append(Question(f"no variable is a {axis}. Write it in degrees:", (f"{axis}: 0.0",)))
            file.keys[axis] = 0.0
        else:
            file.keys[axis] = named
            file.lines.append(Statement(axis, named, "likely", "its name; its attributes do not say it"))


def _find_stations(file: _File) -> None:
    metadata: list[Statement] = []
    with_role = [name for name, one in file.variables.items() if "cf_role" in one]
    for key, names in _DESCRIPTIVE.items():
        named = next((name for name in file.variables if name.lower() in names), None)
        if named is None or (key == "station_id" and with_role) or _is_coordinate_of_heights(file, named):
            continue
        metadata.append(Statement(key, named, "likely", "its name"))
    file.lines += below("metadata", metadata)
    if not with_role and not any(one.key == "station_id" for one in metadata):
        constant = Statement("station_id", "{stem}", "a guess", "the file's name, as no variable has a cf_role")
        file.lines += below("constants", [constant])
        file.keys["constants"] = {"station_id": "{stem}"}
    file.keys["metadata"] = {one.key: one.value for one in metadata}


def _is_coordinate_of_heights(file: _File, name: str) -> bool:
    """Whether a variable is the height of sensors, one value for all of a variable."""
    return not file.variables[name]["dimensions"] and file.variables[name].get("standard_name") == "height"


def _may_be_measured(file: _File, name: str) -> bool:
    one = file.variables[name]
    time = file.keys.get("time")
    known = {time, file.keys.get("latitude"), file.keys.get("longitude"), *file.keys["metadata"].values()}
    along = set(file.variables[time]["dimensions"]) if time in file.variables else set()
    descriptive = ("flag_meanings", "cf_role", "sample_dimension", "instance_dimension")
    roles = (
        one.get("standard_name") in ("time", "latitude", "longitude", "status_flag"),
        any(key in one for key in descriptive),
    )
    bounds = {other.get("bounds") for other in file.variables.values()}
    return one["is_number"] and not any(roles) and name not in known | bounds and bool(set(one["dimensions"]) & along)


def _heights_of(file: _File, name: str) -> str | None:
    """The coordinate of the heights of a variable that is a profile."""
    along = file.variables[name]["dimensions"]
    for other, one in file.variables.items():
        is_height = one.get("standard_name") in ("height", "depth") or other.lower() in (
            "z",
            "height",
            "depth",
            "level",
        )
        if is_height and len(one["dimensions"]) == 1 and one["dimensions"][0] in along and one["steps"] > 1:
            return other
    return None


def _described(path: Path, file: _File, measured: list[str]) -> dict[str, Described | str]:
    """What the file says of each variable, or why it cannot be read."""
    found: dict[str, Described | str] = {}
    for name in measured:
        try:
            found[name] = _reader(path, file, name).layout(path).described[name]
        except Unreadable as error:
            found[name] = str(error)
    if found and all(isinstance(one, str) for one in found.values()):
        raise Unreadable(next(one for one in found.values() if isinstance(one, str)))
    return found


def _reader(path: Path, file: _File, name: str) -> NetcdfReader:
    stated = {key: value for key, value in file.keys.items() if value}
    variable = {"column": name} | ({"level": file.heights[name]} if name in file.heights else {})
    return NetcdfReader(FilesConfig.model_validate({"path": path.as_posix(), "variables": [variable], **stated}))


def _step(path: Path, file: _File, said: Mapping[str, Described | str]) -> str | None:
    """The usual time between two values, by the first times."""
    readable = next((name for name, one in said.items() if isinstance(one, Described)), None)
    time = file.keys.get("time")
    if readable is None or time not in file.variables:
        return None
    first = (0, min(_LOOKED_AT, file.variables[time]["steps"]))
    _, frame = next(_reader(path, file, readable).read(path, [first], [time]))
    step = step_of(frame[time], None)
    return format_duration(step) if step else None


def _variables(file: _File, said: Mapping[str, Described | str], step: str | None) -> Iterator[Line]:
    items: list[Line] = []
    left: list[Line] = []
    names: dict[str, str] = {}
    for name, described in said.items():
        if isinstance(described, str):
            left.append(Remark(f"{name!r} is left out: {described}"))
            continue
        entry, why, fault = _entry(name, file.variables[name], described, step, file.heights.get(name))
        variable = None if fault else _as_canonical(entry, described)
        if variable is not None and (canonical := variable.to_canonical_name()) in names:
            fault = f"is the same quantity as {names[canonical]!r}; give it a level, a method or a period of its own"
        if variable is None or fault:
            left.append(Remark(f"{name!r} is left out: {fault}. To read it, complete this and take the # away:",
                               (f"- {in_yaml(entry)}",)))  # fmt: skip
            continue
        names[variable.to_canonical_name()] = name
        if name in file.heights:
            why += f"; each height in {file.heights[name]!r} is a level of its own"
        items.append(Statement(ITEM, entry, "sure" if len(entry) == 1 else "likely", why))
    if not items:
        yield Question("no variable was recognised. Complete one of those below:", ("variables:",))
        yield from left
        return
    if any("level" in one.value for one in items if isinstance(one, Statement)):
        items.insert(0, Question("where the file does not say how high sensors are, `level` is what is usual, in m"))
    yield Statement("variables", inner=(*items, *left))


def _entry(
    name: str, attributes: Attributes, said: Described, step: str | None, heights: str | None
) -> tuple[dict[str, Any], str, str]:
    """An entry that completes what the file says, why, and what is wrong with it, if anything is."""
    sentence = str(attributes.get("long_name", ""))
    entry: dict[str, Any] = {"column": name}
    standard = _standard_name(said.standard_name, name, sentence)
    if standard is None:
        return entry | {"standard_name": "..."}, "", _nameless(said.standard_name, sentence)
    if standard != said.standard_name and lookup(said.standard_name or "").kind != "alias":
        entry["standard_name"] = standard
    usual = usual_of(standard)
    if heights is not None:
        entry["level"] = heights
    elif said.level is None and (level := _level(sentence, usual)):
        entry["level"] = int(level) if level == int(level) else level
    if said.method is None:
        entry |= _method(sentence, usual.sums if usual else False, attributes, step)
    fault = _fault(entry, said, standard)
    if fault and entry.get("standard_name"):
        return {"column": name, "standard_name": "..."}, "", _nameless(said.standard_name, sentence)
    why = f"the file calls it {said.standard_name or name}" + (f", {sentence}" if sentence else "")
    return entry, why, fault


def _nameless(given: str | None, sentence: str) -> str:
    said = f"{given!r} is no name of CF" if given else "the file gives it no standard_name"
    return said + (f" ({sentence})" if sentence else "")


def _level(sentence: str, usual: Usual | None) -> float:
    told = told_by(sentence).level
    if told is not None:
        return told
    return _GRASS if re.search(r"(?i)\b(?:grass|ground)\b", sentence) else usual.level if usual else 0.0


def _standard_name(given: str | None, name: str, sentence: str) -> str | None:
    if given and lookup(given).kind in ("standard", "alias"):
        return given
    for text in (given, sentence, name):
        usual = told_by(text).usual if text else None
        if usual is not None:
            return usual.standard_name
    near = suggest_name(given) if given else None
    return near if near and lookup(near).kind == "standard" else None


def _method(sentence: str, sums: bool, attributes: Attributes, step: str | None) -> dict[str, Any]:
    method = next(
        (name for name, words in _METHODS if re.search(rf"(?i)\b(?:{words})\b", sentence)), "sum" if sums else None
    )
    span = _SPAN.search(re.sub(r"(?i)\d+(\.\d+)?\s?c?m\b", "", sentence))
    if (
        span is not None
        and method is None
        and "last" in sentence.lower()
        and "amount" in str(attributes.get("standard_name"))
    ):
        method = "sum"
    if span is None and method == "sum" and step is not None:
        return {"method": "sum", "period": step}
    if method is None or span is None:
        return {}
    unit = "M" if span["unit"].lower() == "min" else "H"
    return {"method": method, "period": f"PT{span['number'] or 1}{unit}"}


def _fault(entry: dict[str, Any], said: Described, standard: str) -> str:
    """What is wrong with an entry, which gets a unit where the file's own will not do."""
    for unit in (None, *_units_of(said, standard)):
        if unit is not None:
            entry["cf_unit"] = unit
        try:
            variable, of_file = completed(FileVariable.model_validate(entry), said)
            factors(of_file, variable)
        except ValueError as error:
            fault = reason(error)
            continue
        return ""
    entry.pop("cf_unit", None)
    return fault


def _units_of(said: Described, standard: str) -> Iterator[str]:
    usual = usual_of(standard)
    if usual is not None:
        yield usual.unit
    if meant := unit_meant(said.unit):
        yield meant
    if units := lookup(standard).units:
        yield units


def _as_canonical(entry: Mapping[str, Any], said: Described) -> CanonicalVariable:
    return completed(FileVariable.model_validate(entry), said)[0]
