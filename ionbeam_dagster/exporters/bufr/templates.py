"""What BUFR calls things: the sequences that we write, what goes where in them, and the tables behind them.

Belongs here: WMO's templates and which variables they take, as data, and the layout of a message, read from the tables
of eccodes (no width, scale or reference value is typed here). Does not belong here: how a dataset becomes messages
(the modules beside it).

The templates and their categories are those of WMO-No. 306, Volume I.2 (tables B, C and D) and its common code table
C-13.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Literal

import numpy as np
import numpy.typing as npt

from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.errors import ExportError

MASTER_TABLES = 39  # of 2022: what readers that are a few years old still know

ECCODES = Lock()
"""Held while eccodes is at work: its wheels are built without support for threads."""

ASSOCIATED_FIELD = 999999  # what eccodes calls the quality information before a value
ASSOCIATED_BITS = 18  # 2 04 018
SIGNIFICANCE = 31021
TWO_BITS_OF_QUALITY = 2
"""The significance written where there are flags: 0 good, 1 slightly suspect, 2 highly suspect, 3 unfit for use."""
QUALITY_OF = {Flag.PASS: 0, Flag.SUSPECT: 1, Flag.FAIL: 3}
"""The associated field by quality flag; it is missing where a value was not evaluated."""
FACTORS = {31000: "inputShortDelayedDescriptorReplicationFactor", 31001: "inputDelayedDescriptorReplicationFactor"}
TIME_SIGNIFICANCE, AVERAGED = 8021, 2
PERIODS = {4024: timedelta(hours=1), 4025: timedelta(minutes=1)}
SENSOR_HEIGHT = 7032
CONSTITUENT = 8043
STATION_NAME, MOBILE_ID, LOCAL_ID = 1019, 1011, 1128
WIGOS_SERIES, WIGOS_ISSUER, WIGOS_ISSUE = 1125, 1126, 1127
WMO_BLOCK, WMO_STATION_NUMBER = 1001, 1002
YEAR, MONTH, DAY, HOUR, MINUTE, SECOND = range(4001, 4007)
LATITUDE, LONGITUDE, STATION_HEIGHT, BAROMETER_HEIGHT = 5001, 6001, 7030, 7031
STATION_PRESSURE = 10004
HEADER = (
    *(STATION_NAME, MOBILE_ID, LOCAL_ID, WIGOS_SERIES, WIGOS_ISSUER, WIGOS_ISSUE, WMO_BLOCK, WMO_STATION_NUMBER),
    *(YEAR, MONTH, DAY, HOUR, MINUTE, SECOND, LATITUDE, LONGITUDE, STATION_HEIGHT),
)
"""What is told of every report, as far as its template has it."""
STATION_TYPE, AUTOMATIC = 2001, 0
WIND = {11001: 11002, 11043: 11041}
"""The direction of a wind, and its speed."""

UDUNITS = {"m/s": "m s-1", "deg": "degree"}
"""BUFR's units where UDUNITS spells them otherwise."""


def eccodes() -> ModuleType:
    """The package eccodes, which the extra `bufr` brings; raises ExportError where it is missing."""
    try:
        return import_module("eccodes")
    except (ImportError, RuntimeError) as error:
        raise ExportError(
            f"BUFR needs eccodes, which cannot be used here ({error}): pip install 'ionbeam-dagster[bufr]'"
        ) from error


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a variable: CF names, the descriptors that take it, and what it must be to fit.

    `levels` are metres above ground and `limits` the values that make sense, in the descriptor's unit. The message also
    tells the height of the sensor (`has_height`), the period (`has_period`) and which `constituent` of the air; of
    several sensors, the one nearest to the `usual_level` comes first. `integrated`: a mean flux times its period.
    """

    names: tuple[str, ...]
    codes: tuple[int, ...]
    levels: tuple[float, float]
    methods: tuple[str, ...]
    periods: tuple[timedelta, timedelta]
    limits: tuple[float, float] = (-math.inf, math.inf)
    has_height: bool = False
    has_period: bool = False
    usual_level: float = 0.0
    constituent: int | None = None
    integrated: bool = False

    @property
    def is_averaged(self) -> bool:
        """Whether the message says that the value is a mean over its period."""
        return self.has_period and "mean" in self.methods and not self.integrated


@dataclass(frozen=True, slots=True)
class Template:
    """A list of descriptors, its data category and international sub-category (C-13), and what it takes."""

    name: str
    stations: Literal["fixed", "mobile", "all"]
    descriptors: tuple[int, ...]
    category: tuple[int, int]
    slots: tuple[Slot, ...]


_INSTANT = timedelta(0), timedelta(minutes=10)  # WMO reports 1 and 10 minute means as instantaneous values
_ANY = timedelta(0), timedelta(minutes=2047)  # what 0 04 025 can tell
_AMOUNT = timedelta(minutes=1), _ANY[1]
_AT_A_HEIGHT = 0.01, 655.0  # what 0 07 032 can tell; 0 would be the ground itself
_NEAR_GROUND = 0.0, 10.0
_STATE = "point", "mean"
_GUST = "point", "maximum"
_PERCENT = 0.0, 100.0
_MOIST = 0.0, 110.0  # sensors overshoot in fog
_CIRCLE = 0.0, 360.0
_SUM = ("sum",)
_RAIN = "precipitation_amount", "lwe_thickness_of_precipitation_amount", "rainfall_amount"
_RADIATION = "integral_wrt_time_of_surface_downwelling_shortwave_flux_in_air"
_POSITIVE = 0.0, math.inf  # less than 0 means a trace of rain or snow

WEATHER = (
    Slot(("surface_air_pressure", "air_pressure"), (10004,), _NEAR_GROUND, _STATE, _INSTANT),
    Slot(("air_pressure_at_mean_sea_level",), (10051,), _NEAR_GROUND, _STATE, _INSTANT),
    Slot(("air_temperature",), (12101,), _AT_A_HEIGHT, _STATE, _INSTANT, has_height=True, usual_level=2.0),
    Slot(("dew_point_temperature",), (12103,), _AT_A_HEIGHT, _STATE, _INSTANT, has_height=True, usual_level=2.0),
    # Some readers take the one and some the other.
    Slot(
        ("relative_humidity",), (13003, 13009), _AT_A_HEIGHT, _STATE, _INSTANT, _MOIST, has_height=True, usual_level=2.0
    ),
    Slot(("visibility_in_air",), (20001,), _NEAR_GROUND, _STATE, _INSTANT),
    Slot(("cloud_area_fraction",), (20010,), _NEAR_GROUND, _STATE, _INSTANT, _PERCENT),
    Slot(("surface_snow_thickness",), (13013,), _NEAR_GROUND, _STATE, _INSTANT, _POSITIVE),
    Slot(_RAIN, (13011,), _NEAR_GROUND, _SUM, _AMOUNT, _POSITIVE, has_period=True),
    Slot(("wind_speed",), (11002,), _AT_A_HEIGHT, _STATE, _ANY, has_height=True, has_period=True, usual_level=10.0),
    Slot(
        ("wind_from_direction",),
        (11001,),
        _AT_A_HEIGHT,
        _STATE,
        _ANY,
        _CIRCLE,
        has_height=True,
        has_period=True,
        usual_level=10.0,
    ),
    Slot(
        ("wind_speed_of_gust",), (11041,), _AT_A_HEIGHT, _GUST, _ANY, has_height=True, has_period=True, usual_level=10.0
    ),
    Slot(
        ("wind_gust_from_direction",),
        (11043,),
        _AT_A_HEIGHT,
        _GUST,
        _ANY,
        _CIRCLE,
        has_height=True,
        has_period=True,
        usual_level=10.0,
    ),
    Slot(("duration_of_sunshine",), (14031,), _NEAR_GROUND, _SUM, _AMOUNT, has_period=True),
    Slot((_RADIATION,), (14028,), _NEAR_GROUND, _SUM, _AMOUNT, has_period=True),
    Slot(
        ("surface_downwelling_shortwave_flux_in_air",),
        (14028,),
        _NEAR_GROUND,
        ("mean",),
        _AMOUNT,
        has_period=True,
        integrated=True,
    ),
)

_IN_AIR = {
    "pm1_ambient_aerosol_particles": 25,
    "pm2p5_ambient_aerosol_particles": 26,
    "pm10_ambient_aerosol_particles": 27,
    "ozone": 0,
    "carbon_monoxide": 4,
    "nitrogen_dioxide": 5,
    "sulfur_dioxide": 8,
}
CONCENTRATIONS = tuple(
    Slot(
        (f"mass_concentration_of_{matter}_in_air",),
        (15027,),
        (0.0, 655.0),
        _STATE,
        _ANY,
        _POSITIVE,
        has_height=True,
        has_period=True,
        constituent=code,
    )
    for matter, code in _IN_AIR.items()
)

FIXED = Template("3 07 092", "fixed", (307092,), (0, 7), WEATHER)
# 3 07 090 ends at the minute, in which a drive has several reports: the second stands before it.
MOBILE = Template("3 07 090", "mobile", (301150, SECOND, 307090), (0, 3), WEATHER)
# No sequence of WMO has particulate matter. In this list 0 15 027 has two more decimals (0.01 ug m-3) and, as in
# 3 07 092, room for the quality of each value; the name of the station is as wide as there.
AIR = Template(
    "list of air constituents",
    "all",
    (
        *(301150, 208040, 1019, 208000, 301011, 301013, 301021, 7030, 7032, 8021, 4025),
        *(109000, 31001, 8043, 204018, 31021, 201138, 202130, 15027, 202000, 201000, 204000),
    ),
    (8, 0),
    CONCENTRATIONS,
)
TEMPLATES = (FIXED, MOBILE, AIR)


MISSING = -1
"""Stands for no value where values are packed integers."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Element:
    """How a descriptor is packed where it stands: an integer of `width` bits, ``value * 10**scale - reference``."""

    code: int
    name: str
    unit: str
    scale: int
    reference: int
    width: int

    @property
    def descriptor(self) -> str:
        return f"{self.code:06d}"

    @property
    def is_text(self) -> bool:
        return self.unit == "CCITT IA5"

    @property
    def udunit(self) -> str:
        return UDUNITS.get(self.unit, self.unit)

    def coded(self, values: npt.NDArray[np.float64] | np.float64) -> npt.NDArray[np.float64]:
        """Values in the element's unit as the whole numbers that stand for them."""
        return np.asarray(np.rint(values * 10.0**self.scale) - self.reference)


Place = tuple[int, int]
"""A node of a template (the position of a descriptor in its expansion) and the round of the replication it is in."""


class Expansion:
    """A template's descriptors as eccodes expands them, read from its tables once.

    A *block* is the node of a delayed replication, 0 outside; `rounds` tells how often each can be repeated.
    """

    def __init__(self, descriptors: Sequence[int]) -> None:
        library = eccodes()
        with ECCODES:
            handle = _handle(library, descriptors)
            self.codes: list[int] = library.codes_get_array(handle, "expandedDescriptors").tolist()
            library.codes_release(handle)
            self.blocks = [0] * len(self.codes)
            for node, code in enumerate(self.codes):
                if _is_replication(code):
                    # An inner replication comes later and overrides the outer one.
                    self.blocks[node + 2 : _end(node, code)] = [node] * (_end(node, code) - node - 2)
            blocks = set(self.blocks) - {0}
            self.rounds = {0: 1} | {block: 1 if self.codes[block + 1] == 31000 else 254 for block in blocks}
            # With every block there once, every node is there once.
            nodes = [node for node, _ in self._unrolled(0, len(self.codes), 0, dict.fromkeys(blocks, (0,)))]
            factors = {code: [1] * self.codes.count(code) for code in FACTORS}
            handle = _handle(library, descriptors, factors)
            self.elements = dict(zip(nodes, self._read(library, handle, nodes), strict=True))
            library.codes_release(handle)

    def node(self, code: int) -> int | None:
        """Where `code` comes first."""
        return self.codes.index(code) if code in self.codes else None

    def quality(self, node: int) -> int | None:
        """The associated field of the element at `node`, which stands before it, if it has one."""
        return node - 1 if self.codes[node - 1] == ASSOCIATED_FIELD else None

    def before(self, node: int, codes: Sequence[int]) -> int | None:
        """The last of `codes` before `node` in its block, or else outside of all blocks."""
        found = [place for place in range(node) if self.codes[place] in codes]
        within = [place for place in found if self.blocks[place] == self.blocks[node]]
        outside = [place for place in found if self.blocks[place] == 0]
        nearest = within or outside
        return nearest[-1] if nearest else None

    def places(self, rounds: Mapping[int, Sequence[int]]) -> Iterator[Place]:
        """Every place of a message in which the blocks have the given `rounds`, and the others none."""
        return self._unrolled(0, len(self.codes), 0, rounds)

    def _unrolled(self, node: int, end: int, turn: int, rounds: Mapping[int, Sequence[int]]) -> Iterator[Place]:
        while node < end:
            code = self.codes[node]
            if _is_replication(code):
                yield node + 1, turn
                for inner in rounds.get(node, ()):
                    yield from self._unrolled(node + 2, _end(node, code), inner, rounds)
                node = _end(node, code)
            else:
                yield node, turn
                node += 1

    def _read(self, library: ModuleType, handle: int, nodes: list[int]) -> Iterator[Element]:
        keys = iter(_data_keys(library, handle))
        key = next(keys)
        for node in nodes:
            code = self.codes[node]
            # These two are not keys of their own: they hang on the value that follows.
            where = {ASSOCIATED_FIELD: "->associatedField", 31021: "->associatedField->associatedFieldSignificance"}
            path = key + where.get(code, "")
            found = int(library.codes_get(handle, f"{path}->code"))
            if found != code:
                raise ExportError(
                    f"eccodes has {found:06d} where its own expansion has {code:06d}; use another version"
                )
            yield Element(
                code,
                path.split("#")[-1],
                library.codes_get(handle, f"{path}->units"),
                *(library.codes_get_long(handle, f"{path}->{part}") for part in ("scale", "reference", "width")),
            )
            if code not in where:
                key = next(keys, "")


def _handle(library: ModuleType, descriptors: Sequence[int], factors: Mapping[int, list[int]] | None = None) -> int:
    """A message of `descriptors`. The order matters: factors of replications, tables, and last what expands."""
    handle: int = library.codes_bufr_new_from_samples("BUFR4")
    for code, ones in (factors or {}).items():
        if ones:
            library.codes_set_array(handle, FACTORS[code], ones)
    library.codes_set(handle, "masterTablesVersionNumber", MASTER_TABLES)
    library.codes_set(handle, "localTablesVersionNumber", 0)
    library.codes_set_array(handle, "unexpandedDescriptors", list(descriptors))
    return handle


def _is_replication(code: int) -> bool:
    return code // 100_000 == 1


def _end(node: int, replication: int) -> int:
    return node + 2 + replication // 1000 % 100


def _data_keys(library: ModuleType, handle: int) -> list[str]:
    iterator = library.codes_bufr_keys_iterator_new(handle)
    keys = []
    while library.codes_bufr_keys_iterator_next(iterator):
        keys.append(library.codes_bufr_keys_iterator_get_name(iterator))
    library.codes_bufr_keys_iterator_delete(iterator)
    return [key for key in keys if key.startswith("#") and "->" not in key]


@cache
def expansion(template: Template) -> Expansion:
    """The expansion of a template, read once."""
    return Expansion(template.descriptors)
