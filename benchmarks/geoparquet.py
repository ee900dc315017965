"""GeoParquet: our exporter against geopandas' `to_parquet`, and our memory on windows of growing size.

``python benchmarks/geoparquet.py`` prints both sides on one canonical file (400k rows) and their ratio;
``--memory`` prints ours on 1M, 5M and 20M rows. Each run is a fresh process, so that its peak memory is its own; our
seconds include reading the file back and making it durable.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import peak_megabytes

from ionbeam_client.models import CanonicalVariable, DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam_client.models import MetadataVariable as Described
from ionbeam_dagster.domain.canonical import canonical_schema

TIMES = 288
STATIONS_AT_ONCE = 350
VARIABLES = [
    CanonicalVariable(column="temperature", standard_name="air_temperature", cf_unit="K", level=2),
    CanonicalVariable(column="humidity", standard_name="relative_humidity", cf_unit="1", level=2),
    CanonicalVariable(column="pressure", standard_name="surface_air_pressure", cf_unit="Pa"),
    CanonicalVariable(
        column="wind", standard_name="wind_speed", cf_unit="m s-1", level=10, method="mean", period="PT10M"
    ),
    CanonicalVariable(
        column="rain", standard_name="precipitation_amount", cf_unit="kg m-2", method="sum", period="PT5M"
    ),
]
SCHEMA = canonical_schema(
    [
        IngestionMetadata(
            dataset=DatasetMetadata(name="benchmark"),
            ingestion_map=DataIngestionMap(
                canonical_variables=VARIABLES, metadata_variables=[Described(column="station_id")]
            ),
        )
    ]
)


def write_dataset(path: Path, rows: int) -> None:
    """A day of fixed stations every 5 minutes, sorted by station and time; about 2 % of the values are missing."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for table in dataset_tables(rows):
            writer.write_table(table)


def dataset_tables(rows: int) -> Iterator[pa.Table]:
    random = np.random.default_rng(20250101)
    stations = -(-rows // TIMES)
    lat, lon = random.uniform(47, 55, stations).round(5), random.uniform(5, 15, stations).round(5)
    day = np.datetime64("2025-01-01", "us") + np.arange(TIMES) * np.timedelta64(5, "m")
    for first in range(0, stations, STATIONS_AT_ONCE):
        station = np.repeat(np.arange(first, min(stations, first + STATIONS_AT_ONCE)), TIMES)[: rows - first * TIMES]
        number = len(station)
        moment = np.resize(day, number)
        hour = (moment - day[0]) / np.timedelta64(1, "h")
        warmth = 4 * np.sin((hour - 9) * np.pi / 12)
        columns = {
            "air_temperature": (283 + warmth + random.normal(0, 1, number)).round(1),
            "relative_humidity": np.clip(random.normal(0.7, 0.1, number), 0, 1).round(2),
            "surface_air_pressure": random.normal(100_500, 400, number).round(-1),
            "wind_speed": random.gamma(2, 2, number).round(1),
            "precipitation_amount": np.where(random.random(number) < 0.1, random.exponential(0.5, number), 0).round(1),
            "datetime": moment,
            "lat": lat[station],
            "lon": lon[station],
            "station_id": np.array([f"station-{n:06d}" for n in range(first, station[-1] + 1)])[station - first],
        }
        yield pa.Table.from_arrays(
            [
                pa.array(columns[column.name.split("__")[0]], column.type, mask=random.random(number) < 0.02)
                if "__" in column.name
                else pa.array(columns[column.name], column.type)
                for column in SCHEMA
            ],
            schema=SCHEMA,
        )


def ours(dataset: Path, target: Path) -> float:
    from ionbeam_dagster.exporters.geoparquet import GeoParquetExporter

    start = time.perf_counter()
    GeoParquetExporter().export(dataset, target)
    return time.perf_counter() - start


def geopandas(dataset: Path, target: Path) -> float:
    """What a user of pandas writes: read, points, an id each, to_parquet."""
    from uuid import uuid4

    import geopandas as gpd
    import pandas as pd

    start = time.perf_counter()
    frame = pd.read_parquet(dataset)
    frame["id"] = [str(uuid4()) for _ in range(len(frame))]
    features = gpd.GeoDataFrame(frame, geometry=gpd.points_from_xy(frame["lon"], frame["lat"]), crs="OGC:CRS84")
    features.to_parquet(target)
    return time.perf_counter() - start


SIDES = {"ours": ours, "geopandas": geopandas}


def measure(side: str, dataset: Path) -> dict[str, float]:
    """Seconds, bytes and peak memory (MB) of a fresh process."""
    command = [sys.executable, __file__, "--side", side, "--dataset", str(dataset)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def run_side(side: str, dataset: Path) -> None:
    target = dataset.with_name(f"{side}.parquet")
    small = dataset.with_name("small.parquet")
    write_dataset(small, TIMES)
    SIDES[side](small, target)  # imports and first calls are not what is measured, on either side
    seconds = SIDES[side](dataset, target)
    peak = peak_megabytes()
    print(json.dumps({"seconds": seconds, "bytes": target.stat().st_size, "peak": peak}))


def row(name: str, rows: int, result: dict[str, float]) -> str:
    rate = rows / result["seconds"]
    size = result["bytes"] / 1e6
    return f"{name:<12}{rows:>12,}{result['seconds']:>10.2f}{rate:>14,.0f}{size:>10.1f}{result['peak']:>10.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--runs", type=int, default=3, help="fresh processes a side; the best counts")
    parser.add_argument("--memory", action="store_true", help="ours on 1M, 5M and 20M rows")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--dataset", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        run_side(asked.side, asked.dataset)
        return
    print(f"{'GeoParquet':<12}{'rows':>12}{'seconds':>10}{'rows/s':>14}{'MB':>10}{'peak MB':>10}")
    with TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset.parquet"
        if asked.memory:
            for rows in (1_000_000, 5_000_000, 20_000_000):
                write_dataset(dataset, rows)
                print(row("ours", rows, measure("ours", dataset)))
            return
        write_dataset(dataset, asked.rows)
        runs = [{side: measure(side, dataset) for side in SIDES} for _ in range(asked.runs)]
    results = {side: min((run[side] for run in runs), key=lambda result: result["seconds"]) for side in SIDES}
    for side, result in results.items():
        print(row(side, asked.rows, result))
    ratio = {key: results["geopandas"][key] / results["ours"][key] for key in ("seconds", "bytes", "peak")}
    print(f"ours: {ratio['seconds']:.1f} times faster, {ratio['bytes']:.1f} times smaller")


if __name__ == "__main__":
    main()
