"""What ODB-2 calls things: varnos and their units, where they come from by default, codes that go together, columns.

Belongs here: numbers and names of ECMWF's ODB governance (codes.ecmwf.int/odb) that the exporter writes, as data. Does
not belong here: how a dataset becomes an ODB file (rows.py).

The varnos were compared in the tables of py3odb (a copy of ECMWF's), of JCSDA's ioda and of DWD, and with files of IFS.
Those whose unit these do not agree on (cloud cover 91, gases) are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ionbeam_dagster.domain.quality import Flag

LOWEST, HIGHEST = -450.0, 9000.0  # m: from the shore of the Dead Sea to above Mount Everest
STANDARD_GRAVITY = 9.80665  # m s-2: turns the height of a station into the geopotential that IFS keeps


@dataclass(frozen=True, slots=True, order=True)
class Varno:
    """An observed quantity: its number, its short name and the unit (UDUNITS) of its values."""

    number: int
    name: str
    meaning: str
    unit: str

    def __str__(self) -> str:
        return f"{self.number} ({self.name}, {self.unit})"


VARNOS = {
    varno.number: varno
    for varno in (
        Varno(1, "z", "geopotential", "m2 s-2"),
        Varno(25, "ssrd", "downward surface solar radiation", "J m-2"),
        Varno(37, "t2m_min", "2 m minimum temperature", "K"),
        Varno(38, "t2m_max", "2 m maximum temperature", "K"),
        Varno(39, "t2m", "2 m temperature", "K"),
        Varno(40, "td2m", "2 m dew point", "K"),
        Varno(41, "u10m", "10 m eastward wind", "m s-1"),
        Varno(42, "v10m", "10 m northward wind", "m s-1"),
        Varno(58, "rh2m", "2 m relative humidity, 0 to 1", "1"),
        Varno(62, "vv", "horizontal visibility", "m"),
        Varno(66, "nh", "height of the cloud base", "m"),
        Varno(71, "sdepth", "snow depth", "m"),
        Varno(79, "trtr", "period of the rain amount", "h"),
        Varno(80, "rr", "rain amount", "kg m-2"),
        Varno(92, "sfall", "6 h snowfall", "m"),
        Varno(107, "pstation", "station pressure", "Pa"),
        Varno(108, "pmsl", "mean sea level pressure", "Pa"),
        Varno(110, "ps", "pressure at the station or at sea level, which IFS analyses", "Pa"),
        Varno(111, "dd", "wind direction", "degree"),
        Varno(112, "ff", "wind speed", "m s-1"),
        Varno(261, "wind_gust", "maximum wind gust", "m s-1"),
        Varno(281, "q2m", "2 m specific humidity", "kg kg-1"),
    )
}


def label_of(number: int) -> str:
    """What a report calls a varno, also one that is not of ours."""
    return f"{number} {VARNOS[number].name}" if number in VARNOS else str(number)


SPEED, DIRECTION = 112, 111
EASTWARD, NORTHWARD = 41, 42
HEIGHT_OF_COMPONENTS = 10.0
"""What IFS analyses, 10 m above ground: where a dataset has no components, they follow from speed and direction."""

PERIOD_OF_RAIN = 79  # hours; goes with every value of RAIN
RAIN = 80


@dataclass(frozen=True, slots=True)
class Rule:
    """Which variables become `varno`: by CF name, level (m above ground, from-to), cell method and period (from-to)."""

    varno: int
    standard_names: tuple[str, ...]
    levels: tuple[float, float]
    methods: tuple[str, ...]
    periods: tuple[timedelta, timedelta]


_INSTANT = timedelta(0), timedelta(minutes=10)  # WMO reports 1 and 10 minute means as instantaneous values
_ANY_AMOUNT = timedelta(minutes=1), timedelta(days=1)
_SCREEN = 1.25, 2.0  # m, the heights of thermometer screens (WMO-No. 8)
_ANEMOMETER = 10.0, 10.0
_NEAR_GROUND = 0.0, 10.0
_STATE = "point", "mean"
_RAIN = "precipitation_amount", "lwe_thickness_of_precipitation_amount", "rainfall_amount"

_AT_STATION = "surface_air_pressure", "air_pressure"
AT_SEA_LEVEL = "air_pressure_at_mean_sea_level"
STATION_PRESSURE, SURFACE_PRESSURE, HUMIDITY = 107, 110, 58

DEFAULT_RULES = (
    Rule(39, ("air_temperature",), _SCREEN, _STATE, _INSTANT),
    Rule(40, ("dew_point_temperature",), _SCREEN, _STATE, _INSTANT),
    Rule(41, ("eastward_wind",), _ANEMOMETER, _STATE, _INSTANT),
    Rule(42, ("northward_wind",), _ANEMOMETER, _STATE, _INSTANT),
    Rule(HUMIDITY, ("relative_humidity",), _SCREEN, _STATE, _INSTANT),
    Rule(62, ("visibility_in_air",), _NEAR_GROUND, _STATE, _INSTANT),
    Rule(71, ("surface_snow_thickness",), _NEAR_GROUND, _STATE, _INSTANT),
    Rule(80, _RAIN, _NEAR_GROUND, ("sum",), _ANY_AMOUNT),
    Rule(STATION_PRESSURE, _AT_STATION, _NEAR_GROUND, _STATE, _INSTANT),
    Rule(108, (AT_SEA_LEVEL,), _NEAR_GROUND, _STATE, _INSTANT),
    Rule(SURFACE_PRESSURE, (*_AT_STATION, AT_SEA_LEVEL), _NEAR_GROUND, _STATE, _INSTANT),
    Rule(111, ("wind_from_direction",), _ANEMOMETER, _STATE, _INSTANT),
    Rule(112, ("wind_speed",), _ANEMOMETER, _STATE, _INSTANT),
    Rule(261, ("wind_speed_of_gust",), _ANEMOMETER, ("point", "maximum"), (timedelta(0), timedelta(hours=1))),
)


@dataclass(frozen=True, slots=True)
class ReportType:
    """A report type and the observation group, type and code types that agree with it."""

    meaning: str
    groupid: int
    obstype: int
    codetypes: tuple[int, ...]


REPORT_TYPES = {
    16001: ReportType("automatic land SYNOP", 17, 1, (14,)),
    16002: ReportType("manual land SYNOP", 17, 1, (11,)),
    16090: ReportType("crowd AWS", 17, 1, (179, 19)),  # 19 is DWD's code for citizens' weather stations
}

PRESETS = {
    "ecmwf_crowd": {"reportype": 16090, "groupid": 17, "obstype": 1, "codetype": 179},
    "synop": {"reportype": 16001, "groupid": 17, "obstype": 1, "codetype": 14},
    "dwd": {"reportype": 16090, "groupid": 17, "obstype": 1, "codetype": 19},
}
"""Codes by whom the file is for. DWD's 19 is a citizens' weather station; group and type are ECMWF's."""

STATUS_BITS = ("active", "passive", "rejected", "blacklisted", "use_emiskf_only")
STATUSES = ACTIVE, PASSIVE, REJECTED = 1, 2, 4
STATUS_OF = {Flag.PASS: ACTIVE, Flag.NOT_EVALUATED: ACTIVE, Flag.SUSPECT: PASSIVE, Flag.FAIL: REJECTED}
"""`datum_status` by quality flag: what was not tested is as usable as ever; what is suspect is kept, but not used."""
STATUS_BY_FLAG = np.zeros(max(Flag) + 1, np.int64)
STATUS_BY_FLAG[list(STATUS_OF)] = list(STATUS_OF.values())
"""The same as an array, whose index is the flag."""

PRESSURE, GEOPOTENTIAL = 1, 2  # vertco_type: the reference is a pressure in Pa, or a geopotential in m2 s-2
OF_SEA_LEVEL, OF_STATION = 0, 1  # ppcode: what a pressure is valid for

STATION_ID_WIDTH = 8  # as in IFS's files, whose readers take no more
SOURCE_WIDTH = 32
WIGOS_ID_WIDTH = 32  # series, issuer, issue number and 16 characters, with their hyphens, have at most 30

Column = tuple[str, Literal["INTEGER", "REAL", "STRING", "BITFIELD"]]
Arrays = dict[str, npt.NDArray[Any]]
"""The values of columns, by the column's name."""

# A row is stored from its first changed column on: what changes least stands first. Rows of one report differ from
# `entryno` on; where their vertical coordinates differ, too, from these on, which then stand before it.
COLUMNS: tuple[Column, ...] = (
    ("type", "INTEGER"),
    ("class", "INTEGER"),
    ("stream", "INTEGER"),
    ("expver", "STRING"),
    ("andate", "INTEGER"),
    ("antime", "INTEGER"),
    ("reportype", "INTEGER"),
    ("groupid@hdr", "INTEGER"),
    ("obstype@hdr", "INTEGER"),
    ("codetype@hdr", "INTEGER"),
    ("source@hdr", "STRING"),
    ("statid@hdr", "STRING"),
    ("wigosid@hdr", "STRING"),
    ("stalt@hdr", "REAL"),
    ("lat@hdr", "REAL"),
    ("lon@hdr", "REAL"),
    ("ppcode@conv_body", "INTEGER"),
    ("vertco_type@body", "INTEGER"),
    ("vertco_reference_1@body", "REAL"),
    ("date@hdr", "INTEGER"),
    ("time@hdr", "INTEGER"),
    ("seqno@hdr", "INTEGER"),
    ("report_status@hdr", "BITFIELD"),
    ("entryno@body", "INTEGER"),
    ("varno@body", "INTEGER"),
    ("obsvalue@body", "REAL"),
    ("datum_status@body", "BITFIELD"),
    ("quality@body", "INTEGER"),
)
OWN_COLUMNS = ("source@hdr", "wigosid@hdr", "quality@body")
"""Those that IFS's files do not have: the dataset, the WIGOS identifier, and the quality flag as it is in the dataset
(QARTOD)."""
