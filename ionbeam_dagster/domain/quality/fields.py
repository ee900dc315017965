"""What neighbours have in common of a quantity, which is not always the quantity as it is told.

Belongs here: the value of a report in the field in which it is compared (pressure at sea level, the logarithm of a
speed, the share of what a clear sky would give, wind as a vector), and what is possible at a place and time. Does not
belong here: the comparison (resistant.py), nor its limits (limits.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ionbeam_dagster.domain.quality import series
from ionbeam_dagster.domain.quality.neighbours import Bools, Floats
from ionbeam_dagster.domain.quality.plan import Plan, Reports, Tested, sane

Field = npt.NDArray[Any]
"""Of real numbers, or of vectors as complex ones (east of north)."""

_GRAVITY_OVER_GAS, _LAPSE, _SEA_LEVEL, _ZERO = 0.0341632, 0.0065, 15.0, 273.15  # K m-1, K m-1, degC, K
_AT_SEA_LEVEL = (870.0, 1085.0)  # hPa: the lowest and the highest that were ever measured
_HIGH_SUN, _LOW_SUN = 10.0, -3.0  # degrees
_CLOUDS, _STORM = 1.5, 0.01  # times a clear sky's: beside clouds, and under the darkest
_HAZE, _DARK = 150.0, 30.0  # W m-2: what twilight adds, and what a sensor may tell in the night
_CALM = 0.5  # m s-1: below it, a factor of two says nothing
_TOLD_APART, _ALIKE, _METRES_A_HECTOPASCAL = 40.0, 3.0, 8.3  # m; hPa; near the ground
_UNITS = {3.6: "km/h told as m/s", 1.94: "knots told as m/s", 2.24: "mph told as m/s", 0.51: "m/s told as knots"}
_UNIT_LIKE = 0.15  # of the logarithm
_FOG = 90.0  # %
_CLEAN = 3.0  # ug m-3: likewise


def at_sea_level(pressure: Floats, height: Floats, temperature: Floats) -> Floats:
    """Station pressure (hPa) reduced from `height` (m) by the hypsometric equation; NaN where that is unknown.

    `temperature` (degC) is the station's; where it is NaN the standard atmosphere's is taken.
    """
    of_standard = _SEA_LEVEL - _LAPSE * height
    mean = np.where(np.isfinite(temperature), temperature, of_standard) + _LAPSE * height / 2 + _ZERO
    return np.asarray(pressure * np.exp(_GRAVITY_OVER_GAS * height / mean))


def clear_sky(elevation: Floats) -> Floats:
    """Global radiation (W m-2) without clouds at the sun's `elevation` (degrees): Haurwitz (1945)."""
    sine = np.maximum(np.sin(np.radians(elevation)), 1e-3)
    return np.where(elevation > 0, 1098.0 * sine * np.exp(-0.059 / sine), 0.0)


def field_of(plan: Plan, one: Tested, reports: Reports) -> Field:
    """The values of a column in the field in which they are compared; NaN where there is none, or out of range."""
    values = sane(one, reports.values[one.column])
    return values if one.limits.resistant is None else _FIELDS[one.limits.resistant.field](plan, one, reports, values)


def in_words(one: Tested, value: float, field: complex, expected: float) -> tuple[str, float, str]:
    """A value as it is compared, what is expected of it in the same terms, and their unit."""
    kind, unit = one.limits.resistant.field if one.limits.resistant else "as told", one.limits.unit
    if kind == "at sea level":
        return f"{value:.6g} is {field.real:.6g} at sea level", expected, unit
    if kind == "speed":
        return f"{value:.6g}", max(float(np.exp(expected)) - _CALM, 0.0), unit
    if kind == "concentration":
        return f"{value:.6g}", max(float(np.exp(expected)) - _CLEAN, 0.0), unit
    if kind == "share of clear sky":
        return f"{value:.6g} is {field.real:.0%} of what a clear sky would give", expected * 100, "%"
    return f"{value:.6g}", expected, unit


def likely_cause(plan: Plan, one: Tested, report: Reports, expected: float) -> str:
    """What would explain that the value of one report is not what its neighbours make `expected` in its field.

    A pressure that is off as of another height, or as if it were told of another level; a wind in another unit.
    """
    value = float(report.values[one.column][0])
    kind = one.limits.resistant.field if one.limits.resistant else ""
    height = float(report.height[0])
    if kind == "at sea level":
        off = float(at_sea_level(np.array([value]), np.array([height]), np.array([np.nan]))[0]) - expected
        if height > _TOLD_APART and abs(value - expected) < _ALIKE:
            return "it is sea level's pressure, told as the station's"
        return f"it would be right {-off * _METRES_A_HECTOPASCAL:+.0f} m from the height that is told ({height:g} m)"
    if one.name == "air_pressure_at_mean_sea_level" and height > _TOLD_APART:
        reduced = at_sea_level(np.array([value]), np.array([height]), np.array([np.nan]))[0]
        return "it is the station's pressure, told as sea level's" if abs(reduced - expected) < _ALIKE else ""
    if kind == "speed" and value > 0:
        usual = max(float(np.exp(expected)) - _CALM, 0.01)
        near = min(_UNITS, key=lambda factor: abs(np.log(value / usual / factor)))
        return f"{near:g} times as much: {_UNITS[near]}" if abs(np.log(value / usual / near)) < _UNIT_LIKE else ""
    if kind == "speed":
        return "a calm among wind: its cups may be seized"
    if kind == "concentration":
        humidity = _beside(plan, report, "relative_humidity")
        fog = humidity is not None and humidity[0] > _FOG and np.log(value + _CLEAN) > expected
        return (
            f"in {humidity[0]:.0f} % of humidity drops are counted as particles" if fog and humidity is not None else ""
        )
    if kind == "vector":
        turned = abs((value - expected + 180) % 360 - 180)
        return f"its vane is turned by {turned:.0f} degrees"
    return ""


def impossible_here(plan: Plan, one: Tested, reports: Reports) -> tuple[Bools, Bools] | None:
    """Whether a value can be judged by its height or by the sun, and whether it is impossible there; None: it cannot.

    A station pressure must be between the lowest and the highest of sea levels in the standard atmosphere; radiation
    at most half as much again as a clear sky's, none in the night, and by day more than under the darkest clouds.
    """
    values = reports.values[one.column]
    if one.limits.bounded_by == "height":
        reduced = at_sea_level(values, reports.height, np.full(values.size, np.nan))
        return np.isfinite(reduced), (reduced < _AT_SEA_LEVEL[0]) | (reduced > _AT_SEA_LEVEL[1])
    if one.limits.bounded_by == "sun":
        elevation = series.sun_elevation(reports.lat, reports.lon, reports.time)
        bright = clear_sky(elevation)
        most = np.where(elevation < _LOW_SUN, _DARK, _CLOUDS * bright + _HAZE)
        least = np.where(elevation > _HIGH_SUN, _STORM * bright, -np.inf)
        return np.isfinite(values), (values > most) | (values < least)
    return None


def _as_told(plan: Plan, one: Tested, reports: Reports, values: Floats) -> Field:
    return values


def _reduced(plan: Plan, one: Tested, reports: Reports, values: Floats) -> Field:
    temperature = _beside(plan, reports, "air_temperature")
    return at_sea_level(values, reports.height, np.full(values.size, np.nan) if temperature is None else temperature)


def _speed(plan: Plan, one: Tested, reports: Reports, values: Floats) -> Field:
    return np.log(np.maximum(values, 0) + _CALM)


def _concentration(plan: Plan, one: Tested, reports: Reports, values: Floats) -> Field:
    return np.log(np.maximum(values, 0) + _CLEAN)


def _share_of_clear_sky(plan: Plan, one: Tested, reports: Reports, values: Floats) -> Field:
    elevation = series.sun_elevation(reports.lat, reports.lon, reports.time)
    return np.where(elevation > _HIGH_SUN, values / np.maximum(clear_sky(elevation), 1.0), np.nan)


def _vector(plan: Plan, one: Tested, reports: Reports, values: Floats) -> Field:
    """Of length one where no speed is told; a direction in a calm says nothing."""
    speed = _beside(plan, reports, "wind_speed", one.column.split("__")[2:])
    long = np.ones(values.size) if speed is None else np.where(speed > _CALM, speed, np.nan)
    return np.asarray(long * np.exp(1j * np.radians(values)))


def _beside(plan: Plan, reports: Reports, name: str, measured: list[str] | None = None) -> Floats | None:
    """Another quantity of the same reports, `measured` at this level, by this method and period (None: any)."""
    for column, other in plan.tested.items():
        if other.name == name and column in reports.values and measured in (None, column.split("__")[2:]):
            return sane(other, reports.values[column])
    return None


_FIELDS: Mapping[str, Callable[[Plan, Tested, Reports, Floats], Field]] = {
    "as told": _as_told,
    "at sea level": _reduced,
    "speed": _speed,
    "concentration": _concentration,
    "share of clear sky": _share_of_clear_sky,
    "vector": _vector,
}
