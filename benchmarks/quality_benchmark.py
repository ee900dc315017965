"""What quality control finds of errors that many stations share: hits and false alarms, by kind and share.

``python benchmarks/quality_benchmark.py`` plants errors in synthetic networks of towns (a smooth field with
the day's course, a bias of 0.5 K a station, noise of 0.2 K a report, ten-minute reports for three hours of which the
last is judged), one a seed, and prints, for all of our tests and for titanlib's buddy check alone, the share of wrong
values that is flagged, of ours also the share that is bad, and the share of the right values that is flagged; "at best"
is what would be flagged by who knows the field, with 1 % of false alarms. ``--picture FILE`` draws it. The same seeds
print the same. Speed is in quality.py, other quantities are in quality_quantities.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.figure import Figure

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
BIAS, NOISE = 0.5, 0.2  # K
AT_BEST = 2.58 * np.hypot(BIAS, NOISE / np.sqrt(JUDGED))  # K: the mean of an hour is further off in 1 %
FLOORS: dict[str, tuple[float, ...]] = {
    "Fahrenheit": (0.95, 0.95, 0.9, 0.7),
    "indoor": (0.95, 0.95, 0.9, 0.7),
    "4 K too warm": (0.95, 0.95, 0.9, 0.7),
    "radiation (4 +- 1.5 K)": (0.9, 0.9, 0.8, 0.6),
    "2 K too warm": (0.8,),
    "an hour late": (0.5,),
    "swapped in pairs": (0.5,),
}
"""What is to be found at least, by share."""


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
        bias, noise = random.normal(0, BIAS, (stations, 1)), random.normal(0, NOISE, (stations, MOMENTS))
        self.field = 10 + np.sin(3 * self.lat)[:, None] + course
        self.right = self.field + bias + noise


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


@dataclass(frozen=True)
class Found:
    """Of one kind and share of wrong stations: which share of the wrong values is flagged, is bad, and would be flagged
    by who knows the field; of the right values, which share is flagged; and titanlib's hits and false alarms."""

    hits: float
    bad: float
    at_best: float
    false: float
    theirs: float
    theirs_false: float


def found(network: Network, told: Floats, wrong: Bools) -> Found:
    flags, theirs = ours(network, told.round(1)), titanlibs(network, told.round(1))
    mean = (told - network.field)[:, -JUDGED:].mean(axis=1)
    known = np.abs(mean) > AT_BEST

    def share(flagged: Bools, of: Bools) -> float:
        return float(flagged[of].mean()) if of.any() else np.nan

    return Found(
        hits=share(flags >= 3, wrong),
        bad=share(flags == 4, wrong),
        at_best=share(known, wrong),
        false=share(flags >= 3, ~wrong),
        theirs=np.nan if theirs is None else share(theirs, wrong),
        theirs_false=np.nan if theirs is None else share(theirs, ~wrong),
    )


def of_seed(seed: int, stations: int) -> dict[tuple[str, float], Found]:
    random = np.random.default_rng(seed)
    network = Network(stations, random)
    results = {("none", 0.0): found(network, network.right, np.zeros(stations, np.bool_))}
    for kind, spoil in planted(random).items():
        for share in SHARES:
            wrong = np.zeros(stations, np.bool_)
            wrong[random.choice(stations, int(share * stations), replace=False)] = True
            told = network.right.copy()
            told[wrong] = spoil(network.right[wrong])
            results[kind, share] = found(network, told, wrong)
    return results


def told_of(results: dict[tuple[str, float], list[Found]]) -> None:
    """A table: means over the seeds, and the least hits and most false alarms of one."""
    names = ("error", "bad", "hits", "least", "as bad", "at best", "false", "most", "titanlib", "false")
    print("| " + " | ".join(names) + " |")
    print("| --- |" + " ---: |" * (len(names) - 1))
    for (kind, share), seeds in results.items():
        column = {name: np.array([getattr(one, name) for one in seeds]) for name in Found.__dataclass_fields__}
        hits, false = column["hits"], column["false"]
        numbers = [hits.mean(), hits.min(), column["bad"].mean(), column["at_best"].mean()]
        alarms = [false.mean(), false.max(), column["theirs"].mean(), column["theirs_false"].mean()]
        cells = [f"{n:.0%}" if np.isfinite(n) else "" for n in numbers] + [
            "" if np.isnan(n) else f"{n:.0%}" if place == 2 else f"{n:.2%}" for place, n in enumerate(alarms)
        ]
        print(f"| {kind} | {share:.0%} | " + " | ".join(cells) + " |")


def drawn(results: dict[tuple[str, float], list[Found]], file: Path) -> None:
    """Hits by kind and share, a bar for each seed's mean with its range, the floor that is wanted, and titanlib's."""
    kinds = [kind for kind in dict.fromkeys(kind for kind, _ in results) if kind != "none"]
    figure = Figure(figsize=(12, 5), layout="constrained")
    axes = figure.subplots()
    for place, share in enumerate(SHARES):
        hits = np.array([[one.hits for one in results[kind, share]] for kind in kinds])
        theirs = np.array([[one.theirs for one in results[kind, share]] for kind in kinds])
        at = np.arange(len(kinds)) + 0.2 * (place - 1.5)
        spread = np.abs(np.stack([hits.min(axis=1), hits.max(axis=1)]) - hits.mean(axis=1))
        axes.bar(at, hits.mean(axis=1), 0.18, yerr=spread, label=f"{share:.0%} of the stations", capsize=2, alpha=0.8)
        axes.plot(at, theirs.mean(axis=1), "k_", label="titanlib" if place == 0 else None)
        floors = [FLOORS[kind][place] if place < len(FLOORS[kind]) else np.nan for kind in kinds]
        axes.plot(at, floors, "r_", markersize=12, label="wanted at least" if place == 0 else None)
    axes.set_xticks(np.arange(len(kinds)), kinds)
    axes.set_ylabel("share of the wrong values that is flagged")
    axes.legend(ncols=3, loc="upper right")
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--stations", type=int, default=600)
    parser.add_argument("--picture", type=Path, help="a PNG to draw")
    given = parser.parse_args()
    print(f"{given.stations} stations, seeds {given.seeds}; titanlib: buddy check, 2 deviations, five rounds")
    results: dict[tuple[str, float], list[Found]] = {}
    for seed in given.seeds:
        for of, one in of_seed(seed, given.stations).items():
            results.setdefault(of, []).append(one)
    told_of(results)
    if given.picture:
        drawn(results, given.picture)


if __name__ == "__main__":
    main()
