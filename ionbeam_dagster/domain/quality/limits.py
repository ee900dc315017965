"""The limits of the tests, for each quantity, and where they come from.

Belongs here: limits by CF standard name, in the unit that each states, and how a configuration changes them. Does not
belong here: the tests.

Sources, by the letters in the table: W = WMO-No. 488, Guide to the Global Observing System, appendix VI.2 (plausible
values of automatic stations); M = NOAA MADIS quality control (validity, temporal consistency); C = CrowdQC+ (Fenner et
al., 2021, doi:10.3389/fenvs.2021.720747); T = titanlib's examples and MET Norway's tuning (Baaserud et al., 2020); O =
chosen here, and measured on the synthetic crowd (docs/quality.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

HOUR = 3600.0


class _Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BuddyLimits(_Limits):
    """Limits of the buddy test; lengths in m, the gradient per m, the deviation in the quantity's unit."""

    radius: float = Field(default=15_000.0, gt=0)  # T
    num_min: int = Field(default=5, ge=1)  # C
    threshold: float = Field(default=3.0, gt=0)  # C
    max_height_difference: float = Field(default=200.0, gt=0)  # T
    gradient: float = 0.0
    min_std: float = Field(gt=0)


class ResistantLimits(_Limits):
    """Limits of the resistant buddy test; lengths in m, the gradient per m, the spread in the quantity's unit.

    `threshold`, `lasting` and `bad` are spreads: of one report; of the mean of an hour, for which it is suspect, and
    for which it is bad. `field` is what is compared (fields.py), which `gradient` and `min_spread` are of: the
    logarithm of a speed or a concentration, for a vector the direction in degrees.
    """

    field: Literal["as told", "at sea level", "speed", "concentration", "share of clear sky", "vector"] = "as told"

    radius: float = Field(default=15_000.0, gt=0)  # T
    num_min: int = Field(default=5, ge=1)  # C
    num_max: int = Field(default=40, ge=1)  # O
    threshold: float = Field(default=3.2, gt=0)  # O
    lasting: float = Field(default=2.8, gt=0)  # O
    bad: float = Field(default=5.0, gt=0)  # O
    max_height_difference: float = Field(default=200.0, gt=0)  # T
    gradient: float = 0.0
    min_spread: float = Field(gt=0)
    rounds: int = Field(default=5, ge=1)  # O


class EventLimits(_Limits):
    """Limits of the buddy event test: what counts as happening, and the share of neighbours that must agree; and those
    that disagree in the mean of an hour, for which a report is suspect (`lasting`) or bad."""

    radius: float = Field(default=15_000.0, gt=0)
    num_min: int = Field(default=5, ge=1)
    event: float
    threshold: float = Field(default=0.1, ge=0, lt=1)
    lasting: float = Field(default=0.75, gt=0)  # O
    bad: float = Field(default=0.9, gt=0)  # O
    max_height_difference: float = Field(default=500.0, gt=0)


class ConsistencyLimits(_Limits):
    """Limits of the spatial consistency test; lengths in m."""

    num_min: int = Field(default=5, ge=2)  # T
    num_max: int = Field(default=50, ge=2)  # O: half of titanlib's example, for a quarter of the time
    inner_radius: float = Field(default=20_000.0, gt=0)
    outer_radius: float = Field(default=50_000.0, gt=0)  # T
    min_horizontal_scale: float = Field(default=10_000.0, gt=0)  # T
    vertical_scale: float = Field(default=200.0, gt=0)  # T
    above: float = Field(default=16.0, gt=0)  # O
    below: float = Field(default=16.0, gt=0)  # O
    error_ratio: float = Field(default=0.5, gt=0)  # T
    gradient: float | None = None


class Limits(_Limits):
    """The limits of one quantity, in `unit`; a test without a limit is not applied.

    `step` and `spike` are the most that a value may be away from those within an hour; `persistence` the least by which
    values must vary in two hours, values at or beyond `steady_from` (saturated air) or equal to `steady_at` (calm, dry)
    excepted; `climatology` twelve pairs, January first; `per_hour` says that the range grows with the period that a
    sum is over; `bounded_by` what a value cannot be beyond at its place and time; `tendency` the limits of the change
    in two hours, for stations whose height is unknown.
    """

    unit: str
    range: tuple[float, float] | None = None
    per_hour: bool = False
    bounded_by: Literal["height", "sun"] | None = None
    climatology: tuple[tuple[float, float], ...] | None = Field(default=None, min_length=12, max_length=12)
    step: float | None = Field(default=None, gt=0)
    spike: float | None = Field(default=None, gt=0)
    persistence: float | None = Field(default=None, gt=0)
    steady_from: float | None = None
    steady_at: float | None = None
    buddy: BuddyLimits | None = None
    resistant: ResistantLimits | None = None
    tendency: ResistantLimits | None = None
    event: EventLimits | None = None
    consistency: ConsistencyLimits | None = None

    @model_validator(mode="after")
    def _range_is_one(self) -> Limits:
        for low, high in [*([self.range] if self.range else []), *(self.climatology or ())]:
            if low >= high:
                raise ValueError(f"the lower limit {low} is not below the upper one {high}")
        return self


LAPSE_RATE = -0.0065
"""K per m: the standard atmosphere's."""

_TEMPERATURE_BUDDY = BuddyLimits(gradient=LAPSE_RATE, min_std=1.0)  # C, T

_STATION_PRESSURE = Limits(
    unit="hPa", range=(500, 1100), step=10, spike=5, bounded_by="height",  # W; M
    resistant=ResistantLimits(field="at sea level", max_height_difference=500.0, min_spread=0.6),  # O
    tendency=ResistantLimits(min_spread=0.3),  # O
)  # fmt: skip
_SEA_LEVEL_PRESSURE = Limits(
    unit="hPa", range=(846, 1100), step=10, spike=5,  # M
    buddy=BuddyLimits(min_std=1.0), resistant=ResistantLimits(min_spread=0.4),  # O
    consistency=ConsistencyLimits(),
)  # fmt: skip
_WIND = ResistantLimits(field="speed", min_spread=0.14)  # O
_DIRECTION = ResistantLimits(field="vector", min_spread=30.0)  # O
_PARTICLES = Limits(
    unit="ug m-3", range=(0, 1000), resistant=ResistantLimits(field="concentration", min_spread=0.35)  # O: sensors
)  # fmt: skip
_AMOUNT = Limits(
    unit="kg m-2", range=(0, 1117.6), per_hour=True, event=EventLimits(event=0.1),  # M (44 in an hour)
)  # fmt: skip
_RATE = Limits(unit="kg m-2 h-1", range=(0, 1117.6), event=EventLimits(event=0.6))  # O: the same in ten minutes

_AMOUNTS = {
    "precipitation_amount": "kg m-2", "rainfall_amount": "kg m-2",
    "lwe_thickness_of_precipitation_amount": "mm", "thickness_of_rainfall_amount": "mm",
}  # fmt: skip
_RATES = {
    "precipitation_flux": "kg m-2 h-1", "rainfall_flux": "kg m-2 h-1",
    "lwe_precipitation_rate": "mm h-1", "rainfall_rate": "mm h-1",
}  # fmt: skip
ONE_THING: Mapping[str, str] = {
    "air_pressure": "surface_air_pressure",
    "air_pressure_at_sea_level": "air_pressure_at_mean_sea_level",
    **dict.fromkeys(_AMOUNTS, "precipitation_amount"),
    **dict.fromkeys(_RATES, "precipitation_flux"),
}
"""CF's further names of a quantity, and the one by which it is known here; a depth of water in mm is its mass in
kg m-2."""

DEFAULTS: Mapping[str, Limits] = {
    "air_temperature": Limits(
        unit="degC", range=(-80, 60), step=19.4, spike=10, persistence=0.05,  # W; M (35 F); O; O
        buddy=_TEMPERATURE_BUDDY, resistant=ResistantLimits(gradient=LAPSE_RATE, min_spread=0.4),  # O
        consistency=ConsistencyLimits(gradient=LAPSE_RATE),
    ),
    "dew_point_temperature": Limits(
        unit="degC", range=(-80, 35), step=19.4, spike=10, persistence=0.05,  # W; M
        buddy=BuddyLimits(gradient=LAPSE_RATE, min_std=1.5),
        resistant=ResistantLimits(gradient=LAPSE_RATE, min_spread=0.6),  # O
    ),
    "relative_humidity": Limits(
        unit="%", range=(0, 105), step=50, spike=30, persistence=0.5, steady_from=95,  # W, with a sensor's error; M
        buddy=BuddyLimits(min_std=8.0), resistant=ResistantLimits(min_spread=3.0),  # O
    ),
    "surface_air_pressure": _STATION_PRESSURE,
    "air_pressure": _STATION_PRESSURE,
    "air_pressure_at_mean_sea_level": _SEA_LEVEL_PRESSURE,
    "air_pressure_at_sea_level": _SEA_LEVEL_PRESSURE,
    "wind_speed": Limits(
        unit="m s-1", range=(0, 75), step=20, persistence=0.05, steady_at=0, resistant=_WIND,  # W; W
    ),
    "wind_speed_of_gust": Limits(
        unit="m s-1", range=(0, 150), persistence=0.05, steady_at=0, resistant=_WIND,  # W
    ),
    "wind_from_direction": Limits(unit="degree", range=(0, 360), resistant=_DIRECTION),  # W
    "wind_gust_from_direction": Limits(unit="degree", range=(0, 360)),
    **{name: _AMOUNT.model_copy(update={"unit": unit}) for name, unit in _AMOUNTS.items()},
    **{name: _RATE.model_copy(update={"unit": unit}) for name, unit in _RATES.items()},
    "surface_downwelling_shortwave_flux_in_air": Limits(
        unit="W m-2", range=(-10, 1600), bounded_by="sun",  # W, with a sensor's offset
        resistant=ResistantLimits(field="share of clear sky", min_spread=0.12),  # O
    ),
    "visibility_in_air": Limits(unit="m", range=(0, 100_000)),
    "surface_snow_thickness": Limits(unit="m", range=(0, 25)),
    "mass_concentration_of_pm1_ambient_aerosol_particles_in_air": _PARTICLES,
    "mass_concentration_of_pm2p5_ambient_aerosol_particles_in_air": _PARTICLES,
    "mass_concentration_of_pm10_ambient_aerosol_particles_in_air": _PARTICLES.model_copy(update={"range": (0, 2000)}),
}  # fmt: skip

Given = Mapping[str, Literal[False] | Mapping[str, Any]]
"""What a configuration may say: by standard name, False (not tested) or the limits that differ from the defaults."""


def limits_with(given: Given) -> dict[str, Limits]:
    """The defaults with what a configuration gives instead; raises ValueError for what cannot be a limit."""
    chosen = dict(DEFAULTS)
    for name, changes in given.items():
        if changes is False:
            chosen.pop(name, None)
            continue
        default = chosen[name].model_dump() if name in chosen else {}
        chosen[name] = Limits.model_validate(_merged(default, changes))
    return chosen


def _merged(default: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(default)
    for key, value in changes.items():
        inner = default.get(key)
        if value is False:
            merged[key] = None
        elif isinstance(inner, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(inner, value)
        else:
            merged[key] = value
    return merged
