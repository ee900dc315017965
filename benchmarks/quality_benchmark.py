"""What quality control finds of errors that many stations share: hits and false alarms, by kind and share.

``python benchmarks/quality_benchmark.py --seed 1`` plants errors in a synthetic network of towns (a smooth field with
the day's course, a bias of 0.5 K a station, noise of 0.2 K a report, ten-minute reports for three hours of which the
last is judged) and prints, for all of our tests and for titanlib's buddy check alone, the share of wrong values that
is flagged, of ours also the share that is bad, and the share of the right values that is flagged. The same seed prints
the same. Speed is in quality.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
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
from ionbeam_dagster.domain.quality.limits import DEFAULTS, LAPSE_RATE
from ionbeam_dagster.domain.quality.plan import Plan
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline import quality_control as qc

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

START = datetime(2026, 3, 1, 8, tzinfo=UTC)
STEP = timedelta(minutes=10)
MOMENTS, JUDGED, TOWNS = 18, 6, 40
SHARES = (0.05, 0.1, 0.2, 0.3)


class Network:
    """Stations in towns, and what they would tell without an error; (stations x moments)."""

    def __init__(self, stations: int, random: np.random.Generator) -> None:
        towns = random.uniform([51.2, 4.6], [53.0, 6.4], (TOWNS, 2))
        town = random.integers(0, TOWNS, stations)
        self.lat = towns[town, 0] + random.normal(0, 0.06, stations)
        self.lon = towns[town, 1] + random.normal(0, 0.09, stations)
        self.height = np.full(stations, 10.0)
        hours = START.hour + np.arange(MOMENTS) * STEP.total_seconds() / 3600
        course = 6 * np.sin(2 * np.pi * (hours - 9) / 24)
        bias, noise = random.normal(0, 0.5, (stations, 1)), random.normal(0, 0.2, (stations, MOMENTS))
        self.right = 10 + np.sin(3 * self.lat)[:, None] + course + bias + noise


def planted(random: np.random.Generator) -> dict[str, Callable[[Floats], Floats]]:
    """What stations with an error tell instead of the right values."""
    return {
        "Fahrenheit": lambda right: right * 1.8 + 32,
        "indoor": lambda right: 22.5 + 0.01 * right,
        "4 K too warm": lambda right: right + 4,
        "radiation (4 +- 1.5 K)": lambda right: right + np.abs(random.normal(4, 1.5, (len(right), 1))),
        "2 K too warm": lambda right: right + 2,
        "an hour late": lambda right: np.concatenate([right[:, :6], right[:, :-6]], axis=1),
        "swapped in pairs": lambda right: np.roll(right, 1, axis=0),
    }


def ours(network: Network, told: Floats) -> npt.NDArray[np.uint8]:
    """The flags of the judged moments, by the platform's own quality control; (stations x judged)."""
    stations, moments = told.shape
    variable = CanonicalVariable(
        column="t", standard_name="air_temperature", cf_unit="degC", level=2.0, method="point", period="PT0S"
    )
    described = [MetadataVariable(column="station_id"), MetadataVariable(column="altitude")]
    metadata = IngestionMetadata(
        dataset=DatasetMetadata(name="crowd"),
        ingestion_map=DataIngestionMap(canonical_variables=[variable], metadata_variables=described),
    )
    schema, name = canonical_schema([metadata]), variable.to_canonical_name()
    times = np.datetime64(START.replace(tzinfo=None), "us") + np.arange(moments) * np.timedelta64(STEP)
    columns = {
        "datetime": pa.array(np.tile(times, stations)).cast(pa.timestamp("us", "UTC")),
        "lat": np.repeat(network.lat, moments),
        "lon": np.repeat(network.lon, moments),
        name: told.ravel(),
        "station_id": np.repeat([f"s{number:05d}" for number in range(stations)], moments),
        "altitude": np.repeat(network.height.astype(str), moments),
    }
    rows = pa.table([pa.array(columns[field.name]) for field in schema], schema=schema)
    window = Window(START + (MOMENTS - JUDGED) * STEP, START + MOMENTS * STEP)
    own = qc.Network(Plan.of(schema, DEFAULTS), point_key(schema), rows.to_batches())
    flags = pa.Table.from_batches(list(qc.checked(own, [], window, schema)))[f"{name}__flag"]
    return np.asarray(flags.to_numpy().reshape(stations, JUDGED))


def titanlibs(network: Network, told: Floats) -> Bools | None:
    """Which of the judged values titanlib's buddy check flags (2 deviations, five rounds); None: not installed."""
    try:
        import titanlib
    except ImportError:
        return None
    points = titanlib.Points(network.lat, network.lon, network.height)
    given = [15_000.0], [5], 2.0, 200.0, LAPSE_RATE, 1.0, 5
    found = [titanlib.buddy_check(points, told[:, moment], *given) for moment in range(MOMENTS - JUDGED, MOMENTS)]
    return np.array(found, bool).T


def line(network: Network, kind: str, share: float, told: Floats, wrong: Bools) -> str:
    told = told.round(1)
    flags, theirs = ours(network, told), titanlibs(network, told)

    def shares(flagged: Bools | None) -> str:
        if flagged is None:
            return f"{'':>9}{'':>9}"
        hits = f"{flagged[wrong].mean():>9.1%}" if wrong.any() else f"{'':>9}"
        return hits + f"{flagged[~wrong].mean():>9.2%}"

    bad = f"{(flags[wrong] == 4).mean():>9.1%}" if wrong.any() else f"{'':>9}"
    return f"{kind:<24}{share:>5.0%}{shares(flags >= 3)}{bad}{shares(theirs)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stations", type=int, default=600)
    given = parser.parse_args()
    random = np.random.default_rng(given.seed)
    network = Network(given.stations, random)
    print(f"{given.stations} stations, seed {given.seed}; titanlib: buddy check, 2 deviations, five rounds")
    print(f"{'error':<24}{'bad':>5}{'hits':>9}{'false':>9}{'as bad':>9}{'titanlib':>9}{'false':>9}")
    print(line(network, "none", 0, network.right, np.zeros(given.stations, np.bool_)))
    for kind, spoil in planted(random).items():
        for share in SHARES:
            wrong = np.zeros(given.stations, np.bool_)
            wrong[random.choice(given.stations, int(share * given.stations), replace=False)] = True
            told = network.right.copy()
            told[wrong] = spoil(network.right[wrong])
            print(line(network, kind, share, told, wrong), flush=True)


if __name__ == "__main__":
    main()
