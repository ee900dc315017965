"""What quality control finds of the errors of every quantity, in six hours of one field.

``python benchmarks/quality_quantities.py`` makes networks of sixty stations within 30 km (a seed each) that tell
pressure, wind, radiation, particles and rain every ten minutes, plants one kind of error in a twelfth of the stations
at a time, and prints the share of the wrong values that is flagged, that is bad, and the share of right values that
is flagged. Sites differ: 0.3 hPa, an eighth of the wind speed, 10 degrees, a tenth of the radiation, a quarter of
particles and rain. The same seeds print the same. Temperature is in quality_benchmark.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.domain.canonical import canonical_schema, point_key
from ionbeam_dagster.domain.quality.fields import clear_sky
from ionbeam_dagster.domain.quality.limits import DEFAULTS
from ionbeam_dagster.domain.quality.plan import Plan
from ionbeam_dagster.domain.quality.series import sun_elevation
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline import quality_control as qc

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

START, STEP = datetime(2026, 3, 20, 9, tzinfo=UTC), timedelta(minutes=10)
BEFORE, JUDGED = 12, 36
STATIONS, BAD = 60, 5
PM = "mass_concentration_of_pm2p5_ambient_aerosol_particles_in_air"
VARIABLES = [
    CanonicalVariable(column=name, standard_name=name, cf_unit=unit, level=level, method=method, period=period)
    for name, unit, level, method, period in [
        ("air_temperature", "degC", 2.0, "point", "PT0S"),
        ("surface_air_pressure", "hPa", 0.0, "point", "PT0S"),
        ("air_pressure_at_mean_sea_level", "hPa", 0.0, "point", "PT0S"),
        ("wind_speed", "m s-1", 10.0, "mean", "PT10M"),
        ("wind_from_direction", "degree", 10.0, "mean", "PT10M"),
        ("surface_downwelling_shortwave_flux_in_air", "W m-2", 0.0, "point", "PT0S"),
        (PM, "ug m-3", 2.0, "point", "PT0S"),
        ("rainfall_amount", "kg m-2", 0.0, "sum", "PT10M"),
    ]
]
NAMES = {v.standard_name: v.to_canonical_name() for v in VARIABLES}


class Field:
    """Stations of one field, and what they would tell without an error; (stations x moments) by standard name."""

    def __init__(self, random: np.random.Generator, heights: bool = True) -> None:
        of_station, of_report = (STATIONS, 1), (STATIONS, BEFORE + JUDGED)

        def sites(spread: float) -> Floats:
            return random.normal(0, spread, of_station)

        def noise(spread: float) -> Floats:
            return random.normal(0, spread, of_report)

        self.lat, self.lon = 52 + random.uniform(0, 0.27, STATIONS), 5 + random.uniform(0, 0.44, STATIONS)
        self.height = random.uniform(0, 300, STATIONS).round()
        self.told_height = self.height if heights else np.full(STATIONS, np.nan)
        hours = (np.arange(BEFORE + JUDGED) - BEFORE) / 6
        height = self.height[:, None]
        temperature = 9 - 0.0065 * height + 2 * np.sin((hours - 2) / 4) + sites(0.4) + noise(0.2)
        sea_level = 1006 - 0.9 * hours + 3 * (self.lat[:, None] - 52)
        kelvin = temperature + 273.15 + 0.0065 * height / 2
        station = sea_level * np.exp(-0.0341632 * height / kelvin)
        offset = sites(0.3) + noise(0.1)
        seconds = START.timestamp() + hours * 3600
        sun = sun_elevation(
            np.repeat(self.lat, hours.size), np.repeat(self.lon, hours.size), np.tile(seconds, STATIONS)
        ).reshape(of_report)
        cloud = 0.6 + 0.25 * np.sin(4 * hours + 20 * self.lon[:, None]) + noise(0.05)
        gauge = np.exp(sites(0.25))
        self.right = {
            "air_temperature": temperature,
            "surface_air_pressure": station + offset,
            "air_pressure_at_mean_sea_level": sea_level + offset,
            "wind_speed": (6 + 1.5 * np.sin(hours)) * np.exp(sites(0.12) + noise(0.12)),
            "wind_from_direction": (350 + 6 * hours + sites(10) + noise(10)) % 360,
            "surface_downwelling_shortwave_flux_in_air": clear_sky(sun) * cloud * np.exp(sites(0.1)),
            PM: np.exp(2.4 + 0.2 * np.sin(hours) + sites(0.25) + noise(0.1)),
            "rainfall_amount": gauge * random.gamma(4, 0.15, of_report),
        }


@dataclass(frozen=True)
class Error:
    """A kind of error: what it makes of the right values of `name`, at stations that are at least `above` m high."""

    kind: str
    name: str
    spoil: Callable[[Field, Floats, Bools], Floats]
    above: float = 0.0
    heights: bool = True


def told_as(other: str) -> Callable[[Field, Floats, Bools], Floats]:
    return lambda field, right, wrong: field.right[other][wrong]


def times(factor: float) -> Callable[[Field, Floats, Bools], Floats]:
    return lambda field, right, wrong: factor * right


def always(value: float) -> Callable[[Field, Floats, Bools], Floats]:
    return lambda field, right, wrong: np.full_like(right, value)


SEA, STATION, SUN = (
    "air_pressure_at_mean_sea_level",
    "surface_air_pressure",
    "surface_downwelling_shortwave_flux_in_air",
)
ERRORS = [
    Error("575 hPa near the sea", STATION, always(575.0)),
    Error("12 hPa too low", STATION, lambda field, right, wrong: right - 12),
    Error("3 hPa too high", STATION, lambda field, right, wrong: right + 3),
    Error("sea level's told as the station's, above 50 m", STATION, told_as(SEA), above=50),
    Error("the station's told as sea level's, above 50 m", SEA, told_as(STATION), above=50),
    Error("stuck, heights unknown", STATION, lambda field, right, wrong: right[:, :1] + 0 * right, heights=False),
    Error("km/h told as m/s", "wind_speed", times(3.6)),
    Error("knots told as m/s", "wind_speed", times(1.94)),
    Error("m/s told as knots", "wind_speed", times(0.51)),
    Error("cups seized at 0", "wind_speed", always(0.0)),
    Error("vane turned by 180 degrees", "wind_from_direction", lambda field, right, wrong: (right + 180) % 360),
    Error("dark pyranometer", SUN, always(0.0)),
    Error("radiation three times as strong", SUN, times(3.0)),
    Error("ten times the particles", PM, times(10.0)),
    Error("no particles", PM, always(0.0)),
    Error("blocked gauge in rain", "rainfall_amount", always(0.0)),
    Error("negative rain", "rainfall_amount", always(-0.2)),
]


def flags(field: Field, told: dict[str, Floats]) -> dict[str, npt.NDArray[np.uint8]]:
    """The flags of the judged moments by standard name; (stations x judged)."""
    described = [MetadataVariable(column="station_id"), MetadataVariable(column="altitude")]
    metadata = IngestionMetadata(
        dataset=DatasetMetadata(name="crowd"),
        ingestion_map=DataIngestionMap(canonical_variables=VARIABLES, metadata_variables=described),
    )
    schema, moments = canonical_schema([metadata]), BEFORE + JUDGED
    begin = np.datetime64(START.replace(tzinfo=None), "us") - BEFORE * np.timedelta64(STEP)
    times = begin + np.arange(moments) * np.timedelta64(STEP)
    heights = [None if np.isnan(height) else str(height) for height in field.told_height]
    columns = {
        "datetime": pa.array(np.tile(times, STATIONS)).cast(pa.timestamp("us", "UTC")),
        "lat": np.repeat(field.lat, moments),
        "lon": np.repeat(field.lon, moments),
        "station_id": np.repeat([f"s{number:03d}" for number in range(STATIONS)], moments),
        "altitude": [height for height in heights for _ in range(moments)],
        **{NAMES[name]: values.round(2).ravel() for name, values in told.items()},
    }
    rows = pa.table([pa.array(columns[one.name], one.type) for one in schema], schema=schema)
    window = Window(START, START + JUDGED * STEP)
    own = qc.Network(Plan.of(schema, DEFAULTS), point_key(schema), rows.to_batches())
    found = pa.Table.from_batches(list(qc.checked(own, [], window, schema)))
    return {name: found[f"{column}__flag"].to_numpy().reshape(STATIONS, JUDGED) for name, column in NAMES.items()}


def of_seed(seed: int) -> dict[str, tuple[float, float, float]]:
    """By kind of error: the shares of wrong values that are flagged and that are bad, and of right ones flagged."""
    results = {}
    for heights in (True, False):
        random = np.random.default_rng(seed)
        field = Field(random, heights)
        if heights:
            for name, found in flags(field, field.right).items():
                results[f"none: {name}"] = (np.nan, np.nan, float((found >= 3).mean()))
        for error in (one for one in ERRORS if one.heights == heights):
            wrong = np.zeros(STATIONS, np.bool_)
            wrong[random.choice(np.flatnonzero(field.height >= error.above), BAD, replace=False)] = True
            values = field.right[error.name].copy()
            values[wrong] = error.spoil(field, values[wrong], wrong)
            found = flags(field, field.right | {error.name: values})[error.name]
            results[f"{error.name}: {error.kind}"] = (
                float((found[wrong] >= 3).mean()),
                float((found[wrong] == 4).mean()),
                float((found[~wrong] >= 3).mean()),
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    given = parser.parse_args()
    seeds = [of_seed(seed) for seed in given.seeds]
    print(f"{STATIONS} stations, {BAD} of them wrong, six hours; seeds {given.seeds}")
    print("| quantity: error | flagged | least of a seed | bad | right values flagged | most of a seed |")
    print("| --- |" + " ---: |" * 5)
    for kind in seeds[0]:
        hits, bad, false = np.array([one[kind] for one in seeds]).T
        cells = [f"{n:.0%}" if np.isfinite(n) else "" for n in (hits.mean(), hits.min(), bad.mean())]
        print(f"| {kind} | {' | '.join(cells)} | {false.mean():.2%} | {false.max():.2%} |")


if __name__ == "__main__":
    main()
