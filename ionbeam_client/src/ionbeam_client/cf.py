"""CF's names and units: what a quantity may be called, and how one unit becomes another.

Belongs here: the standard-name table, UDUNITS, and what is wrong with a variable's description, told before anything is
sent and when a source is loaded, not when a file is exported. Does not belong here: the conversion of rows, or what a
format calls a quantity.

Units need cf-units, which the platform has and the client with its extra ``cf``. Without it names, methods and periods
are checked as ever, and of units only what is often written wrong, and the common ones of another kind of quantity;
the platform checks the rest when the message arrives.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from ionbeam_client.models import CanonicalVariable, IngestionMetadata, LatitudeAxis, LongitudeAxis, parse_duration

if TYPE_CHECKING:
    from cf_units import Unit
else:
    try:
        from cf_units import Unit
    except ImportError:
        Unit = None

LOCAL_PREFIX = "x_"

METHODS = frozenset(
    {
        "point", "sum", "mean", "median", "mode", "minimum", "maximum", "mid_range", "range", "standard_deviation",
        "variance", "root_mean_square", "sum_of_squares", "mean_absolute_value", "mean_of_upper_decile",
        "minimum_absolute_value", "maximum_absolute_value",
    }
)  # fmt: skip
"""CF's cell methods, from appendix E of the conventions."""

_DIFFERENCES = frozenset({"range", "standard_deviation"})
_SQUARES = frozenset({"variance", "sum_of_squares"})

_LATITUDE_UNITS = frozenset(
    {"degrees_north", "degree_north", "degrees_N", "degree_N", "degreesN", "degreeN", "degrees", "degree"}
)
_LONGITUDE_UNITS = frozenset(
    {"degrees_east", "degree_east", "degrees_E", "degree_E", "degreesE", "degreeE", "degrees", "degree"}
)

# What observers write, and what UDUNITS does not know or takes for something else: "C" is coulomb to it, "mph" a
# milliphot, "pa" a picoare, and "degrees Celsius" a degree of angle times a kelvin, which it would turn into K by a
# factor of 0.017 without a word.
_WRITE_INSTEAD = {
    "C": "degC", "C°": "degC", "oC": "degC", "deg C": "degC", "degree C": "degC", "degrees C": "degC",
    "deg Celsius": "degC", "degree Celsius": "degC", "degrees Celsius": "degC", "degrees celsius": "degC",
    "F": "degF", "deg F": "degF", "degree F": "degF", "degrees F": "degF", "degrees Fahrenheit": "degF",
    "deg K": "K", "degree K": "K", "degrees K": "K", "degrees Kelvin": "K",
    "degC/100m": "degC (100 m)-1", "°C/100m": "degC (100 m)-1", "K/100m": "K (100 m)-1",
    "deg": "degree", "degrees true": "degree", "degrees north": "degrees_north", "degrees east": "degrees_east",
    "mb": "hPa", "MB": "hPa", "hpa": "hPa", "pa": "Pa", "mph": "mile hour-1", "MPH": "mile hour-1",
    "dB": "0.1 lg(re 1)", "dB(A)": "1", "octa": "0.125", "oktas": "0.125", "okta": "0.125", "octas": "0.125",
    "psu": "1e-3", "pH": "1", "%RH": "%", "RH": "%", "kWh": "kW hour", "cpm": "counts minute-1",
    "": "1", "-": "1", "no_unit": "1", "unknown": "1", "none": "1", "None": "1", "unitless": "1", "dimensionless": "1",
    "code": "1", "flag": "1", "bool": "1", "boolean": "1", "index": "1", "Number": "1", "number": "1",
}  # fmt: skip

_TEMPERATURE = re.compile(
    r"(?:(?:deg|degs|degree|degrees|°|º|˚)[\s._*-]*(?:(?P<letter>[cfk])|(?P<word>celsius|centigrade|fahrenheit|kelvin)s?)"
    r"|(?P<alone>celsius|centigrade|fahrenheit|kelvin)s?)\.?",
    re.IGNORECASE,
)
_OF_LETTER = {"c": "degC", "f": "degF", "k": "K"}
_WITH_OFFSET = re.compile(r"deg[\s._-]*[CF]\b|°\s*[CF]\b|celsius|centigrade|fahrenheit", re.IGNORECASE)

# What observers call a quantity, where the spelling would not lead to CF's name for it.
_NAME_INSTEAD = {
    "wind_from_direction_of_gust": "wind_gust_from_direction",
    "wind_direction": "wind_from_direction",
    "wind_gust": "wind_speed_of_gust",
    "temperature": "air_temperature",
    "humidity": "relative_humidity",
    "pressure": "air_pressure",
    "precipitation_rate": "lwe_precipitation_rate",
    "cloud_cover": "cloud_area_fraction",
    "ozone": "mole_fraction_of_ozone_in_air",
    "humidity_index": "heat_index_of_air_temperature",
    "solar_radiation": "surface_downwelling_shortwave_flux_in_air",
    "total_downwelling_shortwave_flux_in_air": "surface_downwelling_shortwave_flux_in_air",
}

_METHOD_INSTEAD = {
    "average": "mean", "avg": "mean", "max": "maximum", "min": "minimum", "std": "standard_deviation",
    "total": "sum", "accumulated": "sum", "accumulation": "sum", "instant": "point", "instantaneous": "point",
}  # fmt: skip

# Quantities of water, for which a depth in mm and a mass in kg m-2 are the same. A depth of fresh snow is not one.
_WATER = re.compile(
    r"(?!thickness_of_\w*snowfall|surface_snow_thickness)\w*(precipitation|rainfall|snowfall|hail_fall|lwe_|runoff|evapo|transpiration"
    r"|water_vapor|canopy_water|surface_snow|moisture|content_of_water)"
)
_WATER_DENSITY = "1000 kg m-3"

_LOCAL = re.compile(rf"{LOCAL_PREFIX}[a-z0-9]+(_[a-z0-9]+)*")
_UNIT = re.compile(r"[A-Za-z0-9%°µμ'\"@._^*/()+\- ²³⁻¹]+")

# Common units, by what they measure: what is known of units without UDUNITS.
_KINDS = [
    {"K", "degC", "degF", "°C", "Celsius", "celsius", "Kelvin", "kelvin", "degree_Celsius", "degrees_Celsius"},
    {"Pa", "hPa", "kPa", "bar", "mbar", "millibar"},
    {"m s-1", "m/s", "km h-1", "km/h", "knot", "knots", "kt", "mile hour-1"},
    {"m", "mm", "cm", "km", "kg m-2"},
    {"1", "%", "percent"},
    {"W m-2", "W/m2"},
    {"s", "minute", "min", "h", "hour", "day"},
]


class UnitError(ValueError):
    """A unit that UDUNITS does not know, or that cannot become the one that was asked for."""


@dataclass(frozen=True, slots=True)
class StandardNames:
    """CF's table: canonical units by name (empty for names of texts), current names by alias, and the names that stand
    for differences of temperatures."""

    version: int
    date: str
    units: dict[str, str]
    aliases: dict[str, tuple[str, ...]]
    differences: frozenset[str]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What CF says of a name.

    A ``standard`` name stands in the table; an ``alias`` did once, and `current` tells what it is called now (rarely
    more than one name). A ``local`` name starts with ``x_``: the platform keeps it, but no
    format with a list of variables of its own gets it.
    `units` are CF's canonical ones, empty for texts, None for local and unknown names.
    """

    kind: Literal["standard", "alias", "local", "unknown"]
    current: tuple[str, ...]
    units: str | None = None
    is_difference: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with ingestion metadata. An ``error`` makes values wrong or unusable; a ``warning`` does not."""

    severity: Literal["error", "warning"]
    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.place}: {self.text}"


@cache
def standard_names() -> StandardNames:
    """The table that is shipped with this package, read once."""
    text = files(__package__).joinpath("cf_standard_names.tsv").read_text(encoding="utf-8")
    heading, *lines = text.splitlines()
    _, version, date = heading.split("\t")
    rows = [line.split("\t") for line in lines]
    return StandardNames(
        version=int(version),
        date=date,
        units={row[0]: row[1] for row in rows if row[1] != "="},
        aliases={row[0]: tuple(row[2].split()) for row in rows if row[1] == "="},
        differences=frozenset(row[0] for row in rows if row[2:] == ["difference"]),
    )


def lookup(name: str) -> Lookup:
    """What CF says of `name`."""
    table = standard_names()
    if name in table.units:
        return Lookup("standard", (name,), table.units[name], name in table.differences)
    if name in table.aliases:
        current = table.aliases[name]
        return Lookup("alias", current, table.units[current[0]], current[0] in table.differences)
    return Lookup("local" if name.startswith(LOCAL_PREFIX) else "unknown", (name,))


def is_local(name: str) -> bool:
    """Whether `name` is the platform's own (``x_...``); CF's own ``x_wind`` is not."""
    return lookup(name).kind == "local"


def mistaken_for(name: str) -> str | None:
    """The name of CF that a name of the platform's own could be mistaken for, as its words are the same; None when it
    is plainly another one."""
    return _by_words().get(_words(name.removeprefix(LOCAL_PREFIX)))


@cache
def _by_words() -> dict[str, str]:
    table = standard_names()
    return {_words(name): name for name in (*table.aliases, *table.units)} | {
        _words(name): instead for name, instead in _NAME_INSTEAD.items()
    }


def _words(name: str) -> str:
    return name.replace("_", "").lower().removesuffix("s")


def suggest_name(name: str) -> str | None:
    """What CF might call the quantity that somebody calls `name`; None when nothing is near."""
    table = standard_names()
    if name in _NAME_INSTEAD:
        return _NAME_INSTEAD[name]
    method, _, quantity = name.partition("_")
    if method in METHODS and quantity in table.units:
        return f"{quantity} with method {method}"
    near = difflib.get_close_matches(name, [*table.units, *table.aliases], n=1, cutoff=0.7)
    return " or ".join(lookup(near[0]).current) if near else None


def suggest_unit(text: str) -> str | None:
    """What to write for a unit that UDUNITS does not know or misunderstands (``C`` is coulomb); None when `text` is
    fine, or nothing is known to suggest."""
    if text.strip() in _WRITE_INSTEAD:
        return _WRITE_INSTEAD[text.strip()]
    if temperature := _TEMPERATURE.fullmatch(text.strip()):
        found = temperature["letter"] or temperature["word"] or temperature["alone"]
        instead = _OF_LETTER[found[0].lower()]
        return None if Unit is None or _parsed(text) == Unit(instead) else instead
    spaced = text.replace("_", " ")
    return spaced if _parsed(text) is None and _parsed(spaced) is not None else None


@lru_cache(maxsize=1024)
def conversion(from_unit: str, to_unit: str) -> tuple[float, float]:
    """``(scale, offset)`` such that ``value * scale + offset`` turns `from_unit` into `to_unit`; ``(1.0, 0.0)`` exactly
    for the same unit.

    A depth of water becomes its mass and back: 1 mm is 1 kg m-2, and 1 mm h-1 is 1 kg m-2 h-1. The offset is right for
    temperatures, and wrong for differences of temperatures (a standard deviation, a range, an anomaly): those are kept
    in K, or the caller leaves the offset out.

    Raises UnitError for unknown units, units that do not match, and logarithmic ones (dBm to W), which no scale and
    offset can express.
    """
    if from_unit == to_unit:
        return 1.0, 0.0
    source, target = unit(from_unit), unit(to_unit)
    return _affine(_as_water(source, target) or source, target)


def unit(text: str) -> Unit:
    """The UDUNITS unit that `text` stands for.

    Raises UnitError, with what to write instead, where it stands for none or for one that nobody means.
    """
    if Unit is None:
        raise UnitError("units need cf-units: pip install 'ionbeam-client[cf]'")
    parsed, instead = _parsed(text), suggest_unit(text)
    if instead is not None:
        meaning = "does not know it" if parsed is None else f"reads it as '{parsed.definition}'"
        raise UnitError(f"unit {text!r}: UDUNITS {meaning}; write {instead!r}")
    if parsed is None:
        raise UnitError(f"unit {text!r}: UDUNITS does not know it; for a quantity without a unit write '1'")
    if _WITH_OFFSET.search(text) and parsed.is_convertible("K") and not _TEMPERATURE.fullmatch(text.strip()):
        raise UnitError(
            f"unit {text!r}: a multiple of a temperature whose zero is not the absolute one is no unit; write 'degC' "
            "(or 'degF'), and scale the values"
        )
    return parsed


@lru_cache(maxsize=256)
def faults(metadata: str) -> str:
    """The errors of `check_metadata` in one line, empty when there are none. `metadata` is the JSON: it is repeated."""
    problems = check_metadata(IngestionMetadata.model_validate_json(metadata))
    return "; ".join(f"{problem.place}: {problem.text}" for problem in problems if problem.severity == "error")


def check_metadata(metadata: IngestionMetadata) -> list[Problem]:
    """What is wrong with the names, units, methods and periods of ingestion metadata: errors and warnings."""
    mapping = metadata.ingestion_map
    problems = [*_check_axis(mapping.lat, "latitude", _LATITUDE_UNITS)]
    problems += _check_axis(mapping.lon, "longitude", _LONGITUDE_UNITS)
    if not mapping.canonical_variables:
        problems.append(Problem("error", "canonical_variables", "no variable is declared, so no row has a value"))
    for variable in mapping.canonical_variables:
        problems += check_variable(variable)
    return problems


def check_variable(variable: CanonicalVariable) -> list[Problem]:
    """What is wrong with a variable's name, unit, method and period: errors and warnings, none when all is well."""
    found = lookup(variable.standard_name)
    return [
        *_check_name(variable, found),
        *_check_unit(variable, found),
        *_check_method(variable),
        *_check_dtype(variable, found),
    ]


def check_together(metadata: Mapping[str, IngestionMetadata]) -> list[Problem]:
    """What is wrong between sources of one dataset, by their names: a name of its own has to mean one thing."""
    problems: list[Problem] = []
    first: dict[str, tuple[str, CanonicalVariable]] = {}
    for source, one in metadata.items():
        for variable in one.ingestion_map.canonical_variables:
            name = variable.standard_name
            if not is_local(name):
                continue
            other, known = first.setdefault(name, (source, variable))
            place = f"column {variable.column!r} of {source}"
            if not _are_convertible(known.cf_unit, variable.cf_unit):
                units = f"{variable.cf_unit!r}, and in {other} in {known.cf_unit!r}"
                problems.append(Problem("error", place, f"{name} is in {units}: no unit becomes the other"))
            elif known.definition and variable.definition and known.definition != variable.definition:
                problems.append(Problem("warning", place, f"{name} is defined otherwise than in {other}"))
    return problems


def _are_convertible(one: str, other: str) -> bool:
    try:
        conversion(one, other)
    except UnitError:
        return Unit is None
    return True


def _check_axis(axis: LatitudeAxis | LongitudeAxis, name: str, units: frozenset[str]) -> Iterator[Problem]:
    place = f"column {axis.column!r}"
    if axis.standard_name != name:
        yield Problem("error", place, f"its standard_name is {axis.standard_name!r}; it must be {name!r}")
    if axis.cf_unit not in units:
        yield Problem("error", place, f"a {name} in {axis.cf_unit!r} cannot be read; use one of {_listed(units)}")


def _check_name(variable: CanonicalVariable, found: Lookup) -> Iterator[Problem]:
    place, name = f"column {variable.column!r}", variable.standard_name
    if found.kind == "alias":
        yield Problem("warning", place, f"{name} is an old name; CF now says {' or '.join(found.current)}")
    if found.kind == "unknown":
        near = suggest_name(name)
        yield Problem(
            "error",
            place,
            f"{name} is not in the CF standard name table (version {standard_names().version}); "
            + (f"near to it is {near}; " if near else "")
            + f"a quantity that CF has no name for is called {LOCAL_PREFIX}{name}, and not every format takes it",
        )
    if found.kind == "local" and not _LOCAL.fullmatch(name):
        yield Problem("error", place, f"{name!r} is no name: x_ is followed by small letters, digits and single _")
    elif found.kind == "local" and (meant := mistaken_for(name)):
        yield Problem(
            "error",
            place,
            f"{name} would be mistaken for CF's {meant}; write {meant}, or a name that says what is different",
        )
    elif found.kind != "local" and variable.definition:
        yield Problem("warning", place, f"{name} is defined by CF; a definition is for what CF has no name for")


def _check_unit(variable: CanonicalVariable, found: Lookup) -> Iterator[Problem]:
    # CF's table has a unit that UDUNITS does not know (dB), and whoever writes CF's own unit is right.
    if variable.cf_unit == found.units and variable.method not in _SQUARES:
        return
    place = f"column {variable.column!r}"
    if Unit is None:
        yield from _check_common_unit(variable, found)
        return
    try:
        declared = unit(variable.cf_unit)
    except UnitError as error:
        yield Problem("error", place, str(error))
        return
    if found.units is None:
        return
    name, squared = variable.standard_name, variable.method in _SQUARES
    wanted = f"({found.units})2" if squared else found.units or "1"
    try:
        expected = unit(found.units or "1") ** (2 if squared else 1)
        if _WATER.match(name):
            declared = _as_water(declared, expected) or declared
        _, offset = _affine(declared, expected)
    except ValueError as error:
        yield Problem("error", place, f"{name} cannot be in {variable.cf_unit!r}; CF has it in {wanted!r} ({error})")
        return
    if offset and (found.is_difference or variable.method in _DIFFERENCES):
        what = name if found.is_difference else f"the {variable.method} of {name}"
        yield Problem(
            "error",
            place,
            f"{what} is a difference of temperatures, which a conversion from {variable.cf_unit!r} to {wanted!r} would "
            f"shift by {offset:g}; write {wanted!r}",
        )


def _check_common_unit(variable: CanonicalVariable, found: Lookup) -> Iterator[Problem]:
    """What is wrong with a unit, as far as that can be said without UDUNITS."""
    place, text = f"column {variable.column!r}", variable.cf_unit
    instead = _WRITE_INSTEAD.get(text.strip())
    if instead is not None:
        yield Problem("error", place, f"unit {text!r} is none, or another one than is meant; write {instead!r}")
    elif not _UNIT.fullmatch(text) or text.count("(") != text.count(")"):
        yield Problem("error", place, f"{text!r} is not a unit (right would be, for example, degC, m s-1, % or 1)")
    elif found.units is not None and variable.method not in _SQUARES:
        wanted = found.units or "1"
        kinds = [next((kind for kind in _KINDS if one in kind), None) for one in (text, wanted)]
        if None not in kinds and kinds[0] is not kinds[1]:
            yield Problem("error", place, f"{variable.standard_name} cannot be in {text!r}; CF has it in {wanted!r}")


def _check_dtype(variable: CanonicalVariable, found: Lookup) -> Iterator[Problem]:
    if variable.dtype == "string" and found.units not in (None, "", "1"):
        place, units = f"column {variable.column!r}", found.units
        yield Problem("error", place, f"{variable.standard_name} is a number of {units}; dtype string is for texts")


def _check_method(variable: CanonicalVariable) -> Iterator[Problem]:
    place, method, period = f"column {variable.column!r}", variable.method, variable.period
    seconds = parse_duration(period).total_seconds()
    if method not in METHODS:
        instead = _METHOD_INSTEAD.get(method)
        hint = f"write {instead!r}" if instead else f"use one of {_listed(METHODS)}"
        yield Problem("error", place, f"method {method!r} is not a CF cell method; {hint}")
    elif seconds < 0:
        yield Problem("error", place, f"period {period} is negative")
    elif method == "point" and seconds:
        yield Problem("error", place, f"method point is an instant, so period {period} must be PT0S, or another method")
    elif method == "sum" and not seconds:
        yield Problem("error", place, "method sum needs the period that was summed over, for example PT1H")
    elif method != "point" and not seconds:
        yield Problem("warning", place, f"method {method} without a period: say what it covers, for example PT10M")


def _parsed(text: str) -> Unit | None:
    try:
        parsed = Unit(text)
    except ValueError:
        return None
    return None if parsed.is_unknown() or parsed.is_no_unit() else parsed


def _as_water(source: Unit, target: Unit) -> Unit | None:
    """`source` as a mass of water for a depth of it, or the other way round, where that makes it match `target`."""
    density = Unit(_WATER_DENSITY)
    for depth, mass in (("m", "kg m-2"), ("m s-1", "kg m-2 s-1")):
        if source.is_convertible(depth) and target.is_convertible(mass):
            return source * density
        if source.is_convertible(mass) and target.is_convertible(depth):
            return source / density
    return None


def _affine(source: Unit, target: Unit) -> tuple[float, float]:
    if source.is_time_reference() or target.is_time_reference():
        raise UnitError(f"'{source}' to '{target}' is about dates; times are timestamps, not numbers")
    if not source.is_convertible(target) or _is_angle(source) != _is_angle(target):
        raise UnitError(f"'{source}' and '{target}' measure different things")
    # Far from zero the offset is lost in rounding, so that the difference of two such points gives the scale alone.
    far = 2.0**40
    scale = _tidy((source.convert(far, target) - source.convert(-far, target)) / (2 * far))
    offset = _tidy(source.convert(0.0, target))
    for value in (-300.0, -1.0, 0.5, 7.0, 1e5):
        expected = source.convert(value, target)
        if not math.isclose(value * scale + offset, expected, rel_tol=1e-9, abs_tol=1e-9 * abs(offset)):
            # UDUNITS turns dBm into W, and s m-1 into m s-1, by a logarithm and a reciprocal.
            raise UnitError(f"'{source}' to '{target}' is no matter of a scale and an offset; convert in the source")
    return scale, offset


def _is_angle(unit: Unit) -> bool:
    """Whether an angle is in it, which UDUNITS takes for a number without a unit."""
    return "rad" in str(unit.definition)


def _tidy(number: float) -> float:
    """`number`, or the short decimal that it misses by a rounding error."""
    short = float(f"{number:.12g}")
    return short if math.isclose(short, number, rel_tol=4e-16) else number


def _listed(words: frozenset[str]) -> str:
    return ", ".join(sorted(words))
