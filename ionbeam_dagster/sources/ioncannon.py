"""The source `ioncannon`: a synthetic network of weather stations, for load tests, demonstrations and trials of faults.

Belongs here: the stations, the weather over them, and the faults that can be asked for. Every number is a function of
the seed, the station and the time, never of a state: a window gives the same rows for ever, asked for at once or in
parts, in this process or another. Does not belong here: real observations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    IngestionMetadata,
    MetadataVariable,
    format_duration,
)
from ionbeam_dagster.domain.geo import KM_PER_DEGREE
from ionbeam_dagster.domain.windows import EPOCH, Window
from ionbeam_dagster.sources import Source, SourceConfig

GENERATOR_VERSION = 1  # raise it when the same configuration gives other rows than before
BATCH_ROWS = 65_536  # arrays of that size stay in the processor's cache

Fraction = Annotated[float, Field(ge=0, le=1)]
Floats = npt.NDArray[np.float64]
Bits = npt.NDArray[np.uint64]


class IonCannonConfig(SourceConfig):
    """A network of made-up stations, for trials and load; the fractions are shares of its rows (0..1)."""

    num_stations: int = Field(default=1000, ge=1, description="How many stations there are.")
    measurement_frequency_minutes: int = Field(default=5, ge=1, description="Minutes between two reports of a station.")
    min_lat: float = Field(default=47, ge=-90, le=90, description="Southern edge of the network in degrees.")
    max_lat: float = Field(default=55, ge=-90, le=90, description="Northern edge.")
    min_lon: float = Field(default=5, ge=-180, le=180, description="Western edge.")
    max_lon: float = Field(default=15, ge=-180, le=180, description="Eastern edge.")
    metadata_cardinality: int = Field(
        default=10, ge=1, description="How many kinds of sensors and of places there are."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="The same seed gives the same observations.")
    gap_fraction: Fraction = Field(default=0.0, description="Rows that are missing.")
    duplicate_fraction: Fraction = Field(default=0.0, description="Rows that come twice.")
    late_fraction: Fraction = Field(
        default=0.0,
        description="Rows that are missing in their own window, and come late_by later.",
    )
    correction_fraction: Fraction = Field(
        default=0.0, description="Rows with a wrong temperature, which come again with the right one late_by later."
    )
    late_by: timedelta = Field(
        default=timedelta(hours=1), gt=timedelta(0), description="How late late and corrected rows come."
    )
    bad_value_fraction: Fraction = Field(default=0.0, description="Rows with a value that cannot be.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.min_lat >= self.max_lat or self.min_lon >= self.max_lon:
            raise ValueError("min_lat must be below max_lat, and min_lon below max_lon")
        if self.late_fraction + self.correction_fraction > 1:
            raise ValueError(
                "late_fraction and correction_fraction together must not exceed 1: a row is one or the other"
            )
        return self


class IonCannon(Source):
    """A network of synthetic stations that all report at the same times, every `measurement_frequency_minutes`."""

    Config = IonCannonConfig
    default_window = timedelta(minutes=5)
    default_span = timedelta(hours=1)

    def __init__(self, name: str, config: IonCannonConfig) -> None:
        super().__init__(name, config)
        self._config = config
        self._every = timedelta(minutes=config.measurement_frequency_minutes)

    @property
    def metadata(self) -> IngestionMetadata:
        return IngestionMetadata(
            dataset=self.described(
                "Synthetic observations of a network that does not exist",
                keywords=["synthetic", "load test"],
            ),
            ingestion_map=DataIngestionMap(
                canonical_variables=self._variables(),
                metadata_variables=[MetadataVariable(column=one.name) for one in fields(_Descriptions)],
            ),
        )

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """What the network sends in `window`, by time and station; rows that are late or corrected come last.

        Columns: ``datetime``, ``lat``, ``lon`` (degrees), ``temperature`` and ``dew_point`` (degC), ``humidity`` (%),
        ``pressure`` (hPa), ``wind_speed`` and ``wind_gust`` (m s-1), ``wind_direction`` (degrees), ``rain`` (kg m-2),
        and the texts ``station_id``, ``altitude`` (m), ``sensor_type`` and ``location_type``.
        """
        yield from self._sent(window, again=False)
        if self._config.late_fraction or self._config.correction_fraction:
            late_by = self._config.late_by
            yield from self._sent(Window(window.start - late_by, window.end - late_by), again=True)

    def answers_whole(self, window: Window) -> bool:
        return True

    def signature(self, window: Window) -> str:
        """A hash of the network's parameters and of the version of its generator."""
        own = set(IonCannonConfig.model_fields) - set(SourceConfig.model_fields)
        return hashlib.sha256(f"{GENERATOR_VERSION} {self._config.model_dump_json(include=own)}".encode()).hexdigest()

    def _variables(self) -> list[CanonicalVariable]:
        def one(column: str, name: str, unit: str, level: float, method: str = "point", period: str = "PT0S") -> Any:
            return CanonicalVariable(
                column=column, standard_name=name, cf_unit=unit, level=level, method=method, period=period
            )

        return [
            one("temperature", "air_temperature", "degC", 2.0),
            one("dew_point", "dew_point_temperature", "degC", 2.0),
            one("humidity", "relative_humidity", "%", 2.0),
            one("pressure", "surface_air_pressure", "hPa", 0.0),
            one("wind_speed", "wind_speed", "m s-1", 10.0, "mean", "PT10M"),
            one("wind_direction", "wind_from_direction", "degree", 10.0, "mean", "PT10M"),
            one("wind_gust", "wind_speed_of_gust", "m s-1", 10.0, "maximum", "PT10M"),
            one("rain", "precipitation_amount", "kg m-2", 0.0, "sum", format_duration(self._every)),
        ]

    @cached_property
    def _stations(self) -> list[_Stations]:
        """All stations, in groups that fit into a batch."""
        count = self._config.num_stations
        return [
            _Stations.of(self._config, np.arange(first, min(first + BATCH_ROWS, count), dtype=np.uint64))
            for first in range(0, count, BATCH_ROWS)
        ]

    def _sent(self, window: Window, *, again: bool) -> Iterator[pa.RecordBatch]:
        """The rows measured in `window` that are sent at once, or those that are sent `again` (or only then) later."""
        first, end = (-((EPOCH - moment) // self._every) for moment in (window.start, window.end))
        at_once = max(1, BATCH_ROWS // self._config.num_stations)
        for slot in range(first, end, at_once):
            slots = np.arange(slot, min(slot + at_once, end))
            for stations in self._stations:
                batch = self._batch(stations, slots, again)
                if batch.num_rows:
                    yield batch

    def _batch(self, stations: _Stations, slots: npt.NDArray[np.int64], again: bool) -> pa.RecordBatch:
        """The rows of all `stations` at all times `slots` (counted from the epoch in measurement intervals)."""
        seconds = slots.astype(np.float64) * self._every.total_seconds()
        random = _mixed(_mixed(slots.astype(np.uint64))[:, None] + stations.random)
        columns = _weather(stations, seconds, self._every / timedelta(hours=1), random, self._config.seed)
        shape = random.shape
        columns = {
            "lat": np.broadcast_to(stations.lat, shape),
            "lon": np.broadcast_to(stations.lon, shape),
            **columns,
        }
        columns = {name: np.array(values).ravel() for name, values in columns.items()}
        chosen = self._with_faults(columns, random.ravel(), again)
        times = np.repeat(seconds.astype(np.int64) * 1_000_000, shape[1])
        places = np.tile(np.arange(shape[1]), shape[0])
        if chosen is not None:
            times, places = times[chosen], places[chosen]
            columns = {name: values[chosen] for name, values in columns.items()}
        nowhere = {name: np.isnan(columns[name]) for name in ("lat", "lon")}
        arrays = {"datetime": pa.array(times).cast(pa.timestamp("us", tz="UTC"))}
        arrays |= {name: pa.array(values, mask=nowhere.get(name)) for name, values in columns.items()}
        arrays |= {one.name: getattr(stations.texts, one.name).take(pa.array(places)) for one in fields(_Descriptions)}
        return pa.RecordBatch.from_pydict(arrays)

    def _with_faults(self, columns: dict[str, Floats], random: Bits, again: bool) -> npt.NDArray[np.intp] | None:
        """Damage `columns` in place, and tell which rows are sent, and how often; None means each one once."""
        config = self._config
        if not any(getattr(config, name) for name in IonCannonConfig.model_fields if name.endswith("_fraction")):
            return None
        gap, second, duplicate, bad = (_uniform(_mixed(random + np.uint64(stream))) for stream in (101, 102, 103, 104))
        late = second < config.late_fraction
        corrected = ~late & (second < config.late_fraction + config.correction_fraction)
        if not again:
            columns["temperature"][corrected] += 8.0
        spoilt = bad < config.bad_value_fraction
        _spoil(columns, np.flatnonzero(spoilt & ~(again & corrected)), random)
        sent = (late | corrected if again else ~late) & (gap >= config.gap_fraction)
        return np.repeat(np.arange(random.size), sent * (1 + (duplicate < config.duplicate_fraction)))


def _spoil(columns: dict[str, Floats], rows: npt.NDArray[np.intp], random: Bits) -> None:
    """Give each of `rows` one of six faults as real networks have them."""
    kind = _mixed(random[rows] + np.uint64(105)) % np.uint64(6)
    columns["temperature"][rows[kind == 0]] = np.nan
    columns["temperature"][rows[kind == 1]] = -146.1  # a sensor that is not connected
    columns["humidity"][rows[kind == 2]] = 250.0
    columns["pressure"][rows[kind == 3]] = 0.0
    columns["lat"][rows[kind == 4]] = columns["lon"][rows[kind == 4]] = np.nan
    columns["lat"][rows[kind == 5]] = 147.0


# --- stations ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Descriptions:
    """What stations say of themselves: a text for each station."""

    station_id: pa.Array
    altitude: pa.Array
    sensor_type: pa.Array
    location_type: pa.Array


@dataclass(frozen=True)
class _Stations:
    """Where stations are (degrees; m), what their sensors are wrong by (K), and the random number of each."""

    lat: Floats
    lon: Floats
    height: Floats
    bias: Floats
    random: Bits
    texts: _Descriptions

    @classmethod
    def of(cls, config: IonCannonConfig, numbers: Bits) -> Self:
        random = _mixed(_mixed(np.array([config.seed], np.uint64)) + numbers)
        lat, lon, bias, sensor, place = (_uniform(_mixed(random + np.uint64(stream))) for stream in range(5))
        lat = (config.min_lat + lat * (config.max_lat - config.min_lat)).round(5)
        lon = (config.min_lon + lon * (config.max_lon - config.min_lon)).round(5)
        height = _relief(lat, lon).round()
        texts = _Descriptions(
            station_id=pa.array([f"SYNTH_{number:04d}" for number in numbers.tolist()]),
            altitude=pa.array([f"{metres:.0f}" for metres in height.tolist()]),
            sensor_type=_kinds("sensor", sensor, config.metadata_cardinality),
            location_type=_kinds("location", place, config.metadata_cardinality),
        )
        return cls(lat, lon, height, (bias - 0.5) * 0.6, random, texts)


def _kinds(name: str, random: Floats, count: int) -> pa.Array:
    return pa.array([f"{name}_{kind}" for kind in (random * count).astype(np.int64).tolist()])


def _relief(lat: Floats, lon: Floats) -> Floats:
    """The height (m) of a land with hills, and with mountains along 47.3 degrees north."""
    hills = 220 + 180 * np.sin(1.3 * lon + 0.5) * np.sin(1.7 * lat) + 120 * np.sin(3.1 * lon - 2.3 * lat)
    mountains = 1100 * np.exp(-(((lat - 47.3) / 0.8) ** 2)) * (0.6 + 0.4 * np.sin(0.9 * lon))
    height: Floats = np.maximum(0.0, hills + mountains)
    return height


# --- weather ----------------------------------------------------------------------------------------------------------

EAST_KM_PER_DEGREE = 70.0  # of longitude, at 51 degrees
DAY = 86_400.0
YEAR = 365.2425 * DAY
COLDEST = 20 * DAY  # of the year
WARMEST_HOUR = 15  # of the local solar day

# Two pressure waves that move eastward: amplitude (hPa), wave numbers (radians per degree east and north), period (s).
WAVES = ((6.0, 0.25, 0.10, 52 * 3600.0), (2.0, 0.57, -0.30, 19 * 3600.0))
GEOSTROPHIC = 1 / (1.2 * 1.1e-4)  # 1 / (density of air times Coriolis parameter): m s-1 per Pa m-1
SURFACE_SHARE, TURNING = 0.4, np.radians(25)  # what friction leaves of the wind, and turns it by towards the low
MEAN_EAST, MEAN_NORTH = 2.5, 1.0  # m s-1

# Rain cells live in the squares of a grid that moves with the wind above; each grows and dies in its time.
CELL_KM, CELL_LIFE = 160.0, 4 * 3600.0
DRIFT_EAST, DRIFT_NORTH = 0.009, 0.004  # km s-1
HEAVIEST = 14.0  # kg m-2 h-1


def _weather(stations: _Stations, seconds: Floats, hours: float, random: Bits, seed: int) -> dict[str, Floats]:
    """The values that `stations` report at `seconds` since the epoch (times x stations), rounded as sensors round.

    `hours` is the time over which rain is summed up.
    """
    sixteen = np.stack([_mixed(random + np.uint64(1)), _mixed(random + np.uint64(2))]).view(np.uint16)
    noise = sixteen.reshape(2, *random.shape, 4) / 65_535 - 0.5
    pressure, east, north = _pressure_and_wind(stations, seconds, seed)
    rate = _rain_rate(stations, seconds, seed)
    wet = np.minimum(1.0, rate / 3)

    season = -np.cos(2 * np.pi * (seconds - COLDEST) / YEAR)[:, None] * (stations.lat / 51)
    _, daily = _wave(np.radians(stations.lon), -2 * np.pi * (seconds / DAY - WARMEST_HOUR / 24))
    mean = 10 - 0.7 * (np.abs(stations.lat) - 50) - 0.0065 * stations.height + stations.bias
    temperature = mean + 9.5 * season + (3.5 + 1.8 * season) * daily + 0.3 * north - 1.5 * wet + 0.4 * noise[0, ..., 0]
    spread = (3.5 + 2.2 * daily + 0.25 * (pressure - 1012) + 0.6 * noise[0, ..., 1]) * (1 - 0.8 * wet)
    temperature = temperature.round(1)
    dew_point = (temperature - np.maximum(0.1, spread)).round(1)
    at_station = pressure * (1 - 2.25577e-5 * stations.height) ** 5.25588  # the standard atmosphere
    speed = np.hypot(east, north) * (1 + 0.5 * noise[0, ..., 2])
    direction = np.degrees(np.arctan2(-east, -north)) + 20 * noise[0, ..., 3]
    return {
        "temperature": temperature,
        "dew_point": dew_point,
        "humidity": (100 * np.exp(_magnus(dew_point) - _magnus(temperature))).round(),
        "pressure": (at_station + 0.2 * noise[1, ..., 0]).round(1),
        "wind_speed": speed.round(1),
        "wind_direction": direction.round() % 360,
        "wind_gust": (speed * (1.5 + 0.6 * noise[1, ..., 1]) + 0.5).round(1),
        "rain": (rate * hours).round(1),
    }


def _magnus(temperature: Floats) -> Floats:
    """The logarithm of the saturation vapour pressure over water at `temperature` (degC), but for a constant."""
    return 17.62 * temperature / (243.12 + temperature)


def _wave(places: Floats, times: Floats) -> tuple[Floats, Floats]:
    """Sine and cosine of ``places - times`` for all pairs, without a transcendental function for each of them."""
    sin_places, cos_places = np.sin(places), np.cos(places)
    sin_times, cos_times = np.sin(times)[:, None], np.cos(times)[:, None]
    return sin_places * cos_times - cos_places * sin_times, cos_places * cos_times + sin_places * sin_times


def _pressure_and_wind(stations: _Stations, seconds: Floats, seed: int) -> tuple[Floats, Floats, Floats]:
    """Pressure at sea level (hPa), and the wind that belongs to it, eastward and northward (m s-1)."""
    pressure = np.full((seconds.size, stations.lat.size), 1015.0)
    east, north = np.zeros_like(pressure), np.zeros_like(pressure)
    for number, (amplitude, per_east, per_north, period) in enumerate(WAVES):
        phase = 2 * np.pi * _uniform(_mixed(np.array([seed + 1000 + number], np.uint64)))
        sine, cosine = _wave(
            per_east * stations.lon + per_north * stations.lat, 2 * np.pi * (seconds % period) / period + phase
        )
        pressure += amplitude * sine
        slope = 100 * amplitude * GEOSTROPHIC * SURFACE_SHARE / 1000 * cosine
        north += per_east / EAST_KM_PER_DEGREE * slope
        east -= per_north / KM_PER_DEGREE * slope
    east, north = east * np.cos(TURNING) - north * np.sin(TURNING), east * np.sin(TURNING) + north * np.cos(TURNING)
    return pressure, east + MEAN_EAST, north + MEAN_NORTH


def _rain_rate(stations: _Stations, seconds: Floats, seed: int) -> Floats:
    """How hard it rains (kg m-2 h-1)."""
    x = (EAST_KM_PER_DEGREE * stations.lon - DRIFT_EAST * seconds[:, None]) / CELL_KM
    y = (KM_PER_DEGREE * stations.lat - DRIFT_NORTH * seconds[:, None]) / CELL_KM
    column, line = np.floor(x), np.floor(y)
    square = _mixed(_bits(column) * np.uint64(0x9E3779B1) + _mixed(_bits(line) + np.uint64(seed)))
    age = seconds[:, None] / CELL_LIFE + _uniform(square)
    generation = np.floor(age)
    age -= generation
    cell = _mixed(square + _bits(generation)).view(np.uint16).reshape(*square.shape, 4) / 65_535
    radius = 0.1 + 0.2 * cell[..., 0]
    middle = radius[..., None] + (1 - 2 * radius[..., None]) * cell[..., 1:3]
    distance = (x - column - middle[..., 0]) ** 2 + (y - line - middle[..., 1]) ** 2
    strength = HEAVIEST * np.maximum(0.0, 2 * cell[..., 3] - 1)
    return strength * 4 * age * (1 - age) * np.maximum(0.0, 1 - distance / radius**2)


# --- random numbers that are functions of what they are for -----------------------------------------------------------


def _mixed(bits: Bits) -> Bits:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): unrelated outputs for neighbouring inputs."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _bits(whole: Floats) -> Bits:
    return whole.astype(np.int64).view(np.uint64)


def _uniform(bits: Bits) -> Floats:
    """Numbers in [0, 1)."""
    return (bits >> np.uint64(11)) * np.float64(2.0**-53)
