"""What a column measures: its quantity, unit, height and method, by its name and by its values.

Belongs here: judging one column. Does not belong here: which columns there are, in which form of table (columns.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from ionbeam_client.cf import UnitError, conversion, lookup, suggest_unit
from ionbeam_client.models import format_duration
from ionbeam_dagster.domain.quality.limits import DEFAULTS
from ionbeam_dagster.domain.usual_names import UNITS_AT_ENDS, Named, Usual, method_called, told_by, words_of
from ionbeam_dagster.sources.files.guessing.statements import Sureness
from ionbeam_dagster.sources.files.guessing.text_shape import is_unit

_OF_STATIONS = (
    "altitude",
    "height",
    "latitude",
    "longitude",
    "time",
    "surface_altitude",
    "height_above_mean_sea_level",
)
_OTHER_UNITS = {
    "degC": ("degF", "K"), "hPa": ("Pa", "inHg", "kPa", "mmHg"), "%": ("1",), "m s-1": (), "mm": (), "degree": (),
}  # fmt: skip
_AMERICAN = {"air_temperature": "degF", "dew_point_temperature": "degF", "wet_bulb_temperature": "degF",
             "heat_index_of_air_temperature": "degF", "wind_chill_of_air_temperature": "degF",
             "air_pressure": "inHg", "air_pressure_at_mean_sea_level": "inHg", "wind_speed": "mile hour-1",
             "wind_speed_of_gust": "mile hour-1"}  # fmt: skip
_AT_SEA_LEVEL, _LOWEST_AT_SEA_LEVEL = "air_pressure_at_mean_sea_level", 930  # hPa
_ENOUGH = 20  # values that tell a counter from showers
_STRONGEST_WIND = 75  # m/s; what is above it is in another unit
_PLAUSIBLE = {"air_temperature": (-50, 50), "dew_point_temperature": (-60, 35)}
_SPELLED = {"meters/second": "m s-1", "metres/second": "m s-1", "m/s": "m s-1", "km/h": "km h-1", "w/m^2": "W m-2",
            "w/m2": "W m-2",
            "watts/m^2": "W m-2", "w/m²": "W m-2", "degt": "degree", "°": "degree", "mbar": "hPa", "ug/m3": "ug m-3",
            "µg/m³": "ug m-3", "mm/h": "mm h-1", "kt": "knot", "kts": "knot", "kn": "knot", "in": "inch",
            "inhg": "inHg", "in hg": "inHg", "º": "degree",
            "℃": "degC", "℉": "degF", "°c": "degC", "°f": "degF"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """What a file says of a column, besides its name: a unit, a method (a word for it), and a sentence."""

    unit: str | None = None
    method: str | None = None
    about: str = ""


@dataclass(slots=True)
class Guess:
    """An entry of `variables`, how sure it is and why. Without `entry` nothing is known, and `why` says what is."""

    entry: dict[str, Any] | None
    sureness: Sureness = "a guess"
    why: str = ""
    assumed_level: bool = False
    assumed_unit: bool = False
    implausible: bool = False


def judged(name: str, values: pl.Series, told: Told, american: bool, step: timedelta | None) -> Guess:
    """What a column measures, whose numbers are `values`."""
    named = told_by(name)
    if named.usual is None and told.about:
        named = _by_sentence(told.about) or named
    by_cf = _as_cf_has_it(name)
    usual = by_cf or named.usual
    if usual is None:
        return Guess(None, why=_about(values))
    unit, how = _unit(name, usual, named, told)
    scale = 1.0
    if unit is None:
        unit, scale, how = _by_range(usual, values, told, american)
    if usual.sums and _only_grows(values):
        return Guess(None, why=f"its values only grow, as those of a counter of {usual.standard_name} do")
    if usual.standard_name == _AT_SEA_LEVEL and _is_too_low(values, unit, scale):
        usual = Usual("air_pressure", usual.unit)
    return _entry(name, usual, named, told, values, (unit, scale, how), step)


def _only_grows(values: pl.Series) -> bool:
    known = values.drop_nulls()
    return len(known) >= _ENOUGH and known.is_sorted() and known[0] < known[-1]


def _is_too_low(values: pl.Series, unit: str, scale: float) -> bool:
    """Whether pressures are those of a station on a mountain, whatever their name."""
    factor, offset = conversion(unit, "hPa") if _fits(unit, "hPa") else (1.0, 0.0)
    known = (values * scale * factor + offset).drop_nulls().to_numpy()
    return len(known) > 0 and bool((known < _LOWEST_AT_SEA_LEVEL).mean() > 0.5)


def unit_meant(text: str | None) -> str | None:
    """The unit that a text means, as UDUNITS spells it; None where it is none."""
    if not text or not text.strip():
        return None
    text = text.strip().strip("[]()").strip()
    spelled = _SPELLED.get(text.lower()) or suggest_unit(text) or text
    if not is_unit(spelled):
        spelled = UNITS_AT_ENDS.get(" ".join(words_of(text)), "")
    return spelled or None


def _entry(
    name: str,
    usual: Usual,
    named: Named,
    told: Told,
    values: pl.Series,
    unit: tuple[str, float, str],
    step: timedelta | None,
) -> Guess:
    of_file, scale, how = unit
    entry: dict[str, Any] = {"column": name, "standard_name": usual.standard_name}
    house = usual.unit
    try:
        factor, offset = conversion(of_file, house)
    except UnitError:
        return Guess(None, why=f"its name says {usual.standard_name}, but its unit {of_file!r} does not fit that")
    if of_file != house and (factor, offset) != (1.0, 0.0):
        entry["unit"] = of_file
    entry["cf_unit"] = house
    if scale != 1.0:
        entry["scale"] = scale
    level = named.level if named.level is not None else usual.level
    if level:
        entry["level"] = int(level) if level == int(level) else level
    method = _method(named, told, usual)
    if method not in ("point", None):
        entry["method"] = method
        if step is not None:
            entry["period"] = format_duration(step)
    plausible = _share_within(usual.standard_name, values * scale * factor + offset, house)
    sureness: Sureness = (
        "sure" if plausible is not None and plausible >= 0.95 and how.startswith("the file") else "likely"
    )
    reasons = [f"{name!r} is usually that" if not told.about else f"the file says: {told.about[:50]}", how]
    known = values.drop_nulls()
    if len(known):
        reasons.append(f"values {_span(known)}")
    implausible = plausible is not None and plausible < 0.8
    if implausible:
        sureness = "a guess"
        reasons.append("which is not plausible: check")
    elif "assumed" in how or "check" in how:
        sureness = "a guess"
    return Guess(entry, sureness, "; ".join(one for one in reasons if one),
                 bool(usual.level) and named.level is None, "assumed" in how, implausible)  # fmt: skip


def _method(named: Named, told: Told, usual: Usual) -> str | None:
    method = named.method or (method_called(told.method) if told.method else None)
    if method is None and usual.sums:
        return "sum"
    return method


def _as_cf_has_it(name: str) -> Usual | None:
    """A name that is CF's own."""
    found = lookup(name.strip().lower())
    if found.kind not in ("standard", "alias") or not found.units or len(found.current) != 1:
        return None
    if found.current[0] in _OF_STATIONS:
        return None
    usual = told_by(found.current[0]).usual
    if usual is not None and usual.standard_name == found.current[0]:
        return usual
    return Usual(found.current[0], "degC" if found.units == "K" and not found.is_difference else found.units)


def _by_sentence(text: str) -> Named | None:
    """What a sentence about a column tells, by its first words that are a quantity's name."""
    words = words_of(re.split(r"[(;,]| in ", text)[0])
    for many in range(min(4, len(words)), 0, -1):
        for start in range(len(words) - many + 1):
            named = told_by(" ".join(words[start : start + many]))
            if named.usual is not None and len("".join(words[start : start + many])) > 3:
                whole = told_by(text)
                return Named(named.usual, None, whole.method, whole.level)
    return None


def _unit(name: str, usual: Usual, named: Named, told: Told) -> tuple[str | None, str]:
    in_brackets = re.search(r"[\[(](.*?)[\])]", name)
    behind = re.search(r"(?: - |, )([^\[(]+)", name)
    of_name = [found[1] for found in (in_brackets, behind) if found]
    for text, where in ((told.unit, ""), *((one, " in the name") for one in (*of_name, named.unit))):
        meant = unit_meant(text)
        if meant is not None and _fits(meant, usual.unit):
            return meant, f"the file says{where} {text}"
    return None, ""


def _fits(one: str, other: str) -> bool:
    try:
        conversion(one, other)
    except UnitError:
        return False
    return True


def _by_range(usual: Usual, values: pl.Series, told: Told, american: bool) -> tuple[str, float, str]:
    """The unit in which the values are plausible, and what they are multiplied by."""
    known = values.drop_nulls()
    if usual.unit == "m s-1" and len(known) and known.to_numpy().max() > _STRONGEST_WIND:
        return "km h-1", 1.0, "its highest value is none in m s-1, km h-1 is assumed"
    if usual.unit == "%" and len(known) and known.to_numpy().max() <= 1.0 and not _are_whole(known):
        return "1", 1.0, "by its values it is a share of 1"
    if tenths := re.search(r"(?i)\b(0[.,]0?1)\b|\b(?:tenths?|zehntel|tienden)\b", told.about):
        scale = float((tenths[1] or "0.1").replace(",", "."))
        return usual.unit, scale, f"the file says {tenths[0]}"
    if american and usual.standard_name in _AMERICAN:
        unit = _AMERICAN[usual.standard_name]
        if _is_plausible(usual, known, unit):
            return unit, 1.0, "other columns are as in the United States: check the unit"
    if _is_plausible(usual, known, usual.unit):
        return usual.unit, 1.0, f"no unit is said, {usual.unit} is assumed"
    for unit in _OTHER_UNITS.get(usual.unit, ()):
        if _is_plausible(usual, known, unit):
            tenths_too = unit == "degF" and _are_whole(known)
            if tenths_too:
                break
            return unit, 1.0, f"by its values it is in {unit}"
    if _are_whole(known) and _is_plausible(usual, known * 0.1, usual.unit):
        return usual.unit, 0.1, f"whole numbers, as tenths of {usual.unit}: check"
    return usual.unit, 1.0, f"no unit is said, {usual.unit} is assumed"


def _is_plausible(usual: Usual, values: pl.Series, unit: str) -> bool:
    scale, offset = conversion(unit, usual.unit)
    share = _share_within(usual.standard_name, values * scale + offset, usual.unit, strict=True)
    return share is None or share >= 0.9


def _share_within(standard_name: str, values: pl.Series, unit: str, strict: bool = False) -> float | None:
    """The share of values, in `unit`, that are possible; None where no limits are known, or there are no values."""
    limits, known = DEFAULTS.get(standard_name), values.drop_nulls()
    if limits is None or limits.range is None or known.is_empty():
        return None
    scale, offset = conversion(unit, limits.unit)
    low, high = _PLAUSIBLE.get(standard_name, limits.range) if strict else limits.range
    within = (known * scale + offset).is_between(low, high)
    return int(within.sum()) / len(within)


def _are_whole(values: pl.Series) -> bool:
    return len(values) > 0 and bool((values == values.round()).all())


def _about(values: pl.Series) -> str:
    known = values.drop_nulls()
    return f"numbers from {_span(known)}" if len(known) else "no numbers in the sample"


def _span(known: pl.Series) -> str:
    low, high = known.to_numpy().min(), known.to_numpy().max()
    return f"{low:g} to {high:g}"


def differs(entry: Mapping[str, Any], others: list[Mapping[str, Any]]) -> bool:
    """Whether no other entry is of the same quantity at the same height by the same method."""
    keys = ("standard_name", "level", "method", "period")
    return all(any(entry.get(key) != other.get(key) for key in keys) for other in others)
