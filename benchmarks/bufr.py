"""BUFR: our exporter against csv2bufr, the encoder of wis2box, and our memory on windows of growing size.

``python benchmarks/bufr.py`` prints stations per second and bytes per station of both sides, and their ratios. Each
side is a fresh process, so that its peak memory is its own. Ours reads the dataset file, writes, reads back and makes
durable; csv2bufr turns a CSV with the same values (2,000 stations: its rate does not depend on the number) into one
message a station, in the sequence that it ships for automatic stations (3 01 150, 3 07 096) and in ours (3 07 092).
On a machine that does other work as well, the ratio of the CPU seconds is the steadier one.
``--memory`` prints ours on 1M, 5M and 20M rows.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import peak_megabytes

from ionbeam_client.models import CanonicalVariable, DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam_client.models import MetadataVariable as Described
from ionbeam_dagster.domain.canonical import canonical_schema
from ionbeam_dagster.domain.quality.plan import quality_fields

T, RH = "air_temperature__degC__2.0__point__PT0S", "relative_humidity__%__2.0__point__PT0S"
PS, RAIN = "surface_air_pressure__hPa__0.0__point__PT0S", "precipitation_amount__mm__0.0__sum__PT1H"
FF, DD = "wind_speed__m s-1__10.0__mean__PT10M", "wind_from_direction__degree__10.0__mean__PT10M"
FX = "wind_speed_of_gust__m s-1__10.0__maximum__PT10M"
VARIABLES = (T, RH, PS, RAIN, FF, DD, FX)
CANONICAL = canonical_schema(
    [
        IngestionMetadata(
            dataset=DatasetMetadata(name="benchmark"),
            ingestion_map=DataIngestionMap(
                canonical_variables=[CanonicalVariable.from_canonical_name(name) for name in VARIABLES],
                metadata_variables=[Described(column="station_id"), Described(column="altitude")],
            ),
        )
    ]
)
SCHEMA = pa.schema([*CANONICAL, *(quality_fields(name)[0] for name in VARIABLES)])
FLAGS, SHARES = [1, 3, 4], [0.93, 0.05, 0.02]
ABOUT = {"window_start": "2026-06-21T12:00:00Z", "window_end": "2026-06-21T13:00:00Z", "revision": 1}
ISSUER, ISSUE = 276, 7
TARGET_RATE, TARGET_BYTES = 300, 10
STATIONS_OF_THEIRS = 2_000
STATIONS_AT_ONCE = 50_000

# Which key of eccodes takes which column, by sequence, and how columns are converted to its unit.
SEQUENCES: dict[str, dict[str, Any]] = {
    "3 07 096": {
        "descriptors": [301150, 307096],
        "short": [],
        "delayed": [1, 1, 1, 0, 0, 1, 0, 0, 0],
        "category": (0, 2),
        "keys": {
            "nonCoordinatePressure": PS,
            "airTemperature": T,
            "relativeHumidity": RH,
            "totalPrecipitationOrTotalWaterEquivalent": RAIN,
            "windDirection": DD,
            "windSpeed": FF,
            "maximumWindGustSpeed": FX,
        },
    },
    "3 07 092": {
        "descriptors": [307092],
        "short": [1, 0, 0, 0, 0, 1, 0, 0, 0],
        "delayed": [1, 0, 1],
        "category": (0, 7),
        "keys": {
            "longStationName": "station_id",
            "nonCoordinatePressure": PS,
            "airTemperature": T,
            "relativeHumidity": RH,
            "totalPrecipitationOrTotalWaterEquivalent": RAIN,
            "windDirection": DD,
            "windSpeed": FF,
            "maximumWindGustSpeed": FX,
        },
    },
}
TO_BUFR = {T: (1, 273.15), PS: (100, 0)}


def write_dataset(path: Path, stations: int) -> None:
    """A report of each of `stations`; about 2 % of the values are missing."""
    schema = SCHEMA.with_metadata({b"ionbeam": json.dumps(ABOUT).encode()})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in tables(stations, schema):
            writer.write_table(table)


def tables(stations: int, schema: pa.Schema) -> Iterator[pa.Table]:
    random = np.random.default_rng(20260621)
    for first in range(0, stations, STATIONS_AT_ONCE):
        number = min(STATIONS_AT_ONCE, stations - first)
        minutes = random.integers(0, 60, number) * np.timedelta64(1, "m")
        columns = {
            "datetime": np.datetime64("2026-06-21T12:00", "us") + minutes,
            "lat": random.uniform(47, 55, number).round(5),
            "lon": random.uniform(5, 15, number).round(5),
            "station_id": np.char.mod("ws%08d", np.arange(first, first + number)),
            "altitude": np.char.mod("%d", random.integers(0, 900, number)),
            T: random.normal(18, 4, number).round(1),
            RH: np.clip(random.normal(70, 12, number), 1, 100).round(0),
            PS: random.normal(1005, 5, number).round(1),
            RAIN: np.where(random.random(number) < 0.1, random.exponential(1, number), 0).round(1),
            FF: random.gamma(2, 2, number).round(1),
            DD: random.integers(1, 361, number).astype(float),
            FX: random.gamma(3, 3, number).round(1),
        }
        columns |= {f"{name}__flag": random.choice(FLAGS, number, p=SHARES) for name in VARIABLES}
        yield pa.Table.from_arrays(
            [
                pa.array(columns[f.name], f.type, mask=random.random(number) < 0.02 if f.name in VARIABLES else None)
                for f in schema
            ],
            schema=schema,
        )


def ours(dataset: Path, target: Path, wigos: bool) -> dict[str, float]:
    from ionbeam_dagster.exporters.bufr import BufrExporter
    from ionbeam_dagster.exporters.bufr.settings import BufrService, BufrSettings

    sender = BufrSettings(wigos_issuer=ISSUER, wigos_issue_number=ISSUE) if wigos else BufrSettings()
    exporter = BufrExporter(BufrService(settings=sender))
    exporter.plan(pq.read_schema(dataset))  # both sides have read their tables before they are timed
    start, busy = time.perf_counter(), time.process_time()
    report = exporter.export(dataset, target)
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    return {"stations": report.rows, "seconds": seconds, "cpu": cpu, "bytes": target.stat().st_size}


def theirs(dataset: Path, target: Path, sequence: str) -> dict[str, float]:
    """csv2bufr from a CSV in memory to files' worth of messages, as its command line does."""
    logging.disable()
    from csv2bufr import transform

    text, template = csv_of(pq.read_table(dataset).slice(0, STATIONS_OF_THEIRS)), template_of(sequence)
    start, busy = time.perf_counter(), time.process_time()
    sizes = []
    with target.open("wb") as file:
        for result in transform(text, template):
            if result["bufr4"] is None:
                raise SystemExit(f"csv2bufr wrote no message: {result}")
            sizes.append(file.write(result["bufr4"]))
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    return {"stations": len(sizes), "seconds": seconds, "cpu": cpu, "bytes": sum(sizes)}


def csv_of(table: pa.Table) -> str:
    text = io.StringIO()
    rows = table.to_pylist()
    writer = csv.writer(text)
    names = [*VARIABLES, "station_id", "altitude", "lat", "lon"]
    clock = ["year", "month", "day", "hour", "minute"]
    writer.writerow([*names, *clock, "wsi", "local"])
    for row in rows:
        moment: datetime = row["datetime"].astimezone(UTC)
        values = ["" if row[name] is None else row[name] for name in names]
        wsi = f"0-{ISSUER}-{ISSUE}-{row['station_id']}"
        writer.writerow([*values, *(getattr(moment, part) for part in clock), wsi, row["station_id"]])
    return text.getvalue()


def template_of(sequence: str) -> dict[str, Any]:
    spec = SEQUENCES[sequence]
    category, sub_category = spec["category"]
    header = {
        "edition": "const:4",
        "masterTableNumber": "const:0",
        "bufrHeaderCentre": "const:65535",
        "bufrHeaderSubCentre": "const:0",
        "updateSequenceNumber": "const:0",
        "dataCategory": f"const:{category}",
        "internationalDataSubCategory": f"const:{sub_category}",
        "masterTablesVersionNumber": "const:39",
        **{f"typical{part.title()}": f"data:{part}" for part in ("year", "month", "day", "hour", "minute")},
        "numberOfSubsets": "const:1",
        "observedData": "const:1",
        "compressedData": "const:0",
        "unexpandedDescriptors": "array:" + ",".join(map(str, spec["descriptors"])),
    }
    data = {
        "wigosIdentifierSeries": "const:0",
        "wigosIssuerOfIdentifier": f"const:{ISSUER}",
        "wigosIssueNumber": f"const:{ISSUE}",
        "wigosLocalIdentifierCharacter": "data:local",
        "latitude": "data:lat",
        "longitude": "data:lon",
        "heightOfStationGroundAboveMeanSeaLevel": "data:altitude",
        **{part: f"data:{part}" for part in ("year", "month", "day", "hour", "minute")},
        **{key: f"data:{column}" for key, column in spec["keys"].items()},
    }
    return {
        "conformsTo": ["csv2bufr-template-v3.json"],
        "metadata": dict.fromkeys(("label", "description", "author", "editor", "id"), "benchmark")
        | {"version": "1", "dateCreated": "2026-06-21", "dateModified": "2026-06-21"},
        "inputShortDelayedDescriptorReplicationFactor": spec["short"],
        "inputDelayedDescriptorReplicationFactor": spec["delayed"],
        "inputExtendedDelayedDescriptorReplicationFactor": [],
        "number_header_rows": 1,
        "column_names_row": 1,
        "delimiter": ",",
        "quoting": "QUOTE_NONE",
        "quotechar": "",
        "wigos_station_identifier": "data:wsi",
        "header": [{"eccodes_key": key, "value": value} for key, value in header.items()],
        "data": [_entry(key, value) for key, value in data.items()],
    }


def _entry(key: str, value: str) -> dict[str, str]:
    scale, offset = TO_BUFR.get(value.removeprefix("data:"), (1, 0))
    entry = {"eccodes_key": f"#1#{key}", "value": value}
    if (scale, offset) != (1, 0):
        entry |= {"scale": f"const:{len(str(scale)) - 1}", "offset": f"const:{offset}"}
    return entry


SIDES = {
    "ours, ids as names": lambda dataset, target: ours(dataset, target, wigos=False),
    "ours, with WIGOS ids": lambda dataset, target: ours(dataset, target, wigos=True),
    "csv2bufr, 3 07 096": lambda dataset, target: theirs(dataset, target, "3 07 096"),
    "csv2bufr, 3 07 092": lambda dataset, target: theirs(dataset, target, "3 07 092"),
}


def measure(side: str, dataset: Path, runs: int = 1) -> dict[str, float]:
    """The best of `runs` fresh processes."""
    results = []
    for _ in range(runs):
        command = [sys.executable, __file__, "--side", side, "--dataset", str(dataset)]
        results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return min(results, key=lambda result: result["seconds"] / result["stations"])


def run_side(side: str, dataset: Path) -> None:
    with TemporaryDirectory(dir=dataset.parent) as folder:
        result = SIDES[side](dataset, Path(folder) / "window.bufr")
    result["rss"] = peak_megabytes() * 2**20
    print(json.dumps(result))


def show(name: str, result: dict[str, float]) -> None:
    rate, size = result["stations"] / result["seconds"], result["bytes"] / result["stations"]
    print(
        f"{name:22s} {result['stations']:>10,.0f} stations {result['seconds']:7.2f} s ({result['cpu']:.2f} of CPU) "
        f"{rate:>10,.0f} stations/s {size:7.1f} B/station, peak {result['rss'] / 1e6:.0f} MB"
    )


def compare(stations: int) -> None:
    with TemporaryDirectory() as folder:
        dataset = Path(folder) / "window.parquet"
        write_dataset(dataset, stations)
        results = {side: measure(side, dataset, runs=2) for side in SIDES}
    for side, result in results.items():
        show(side, result)
    for mine in list(SIDES)[:2]:
        for other in list(SIDES)[2:]:
            one, two = results[mine], results[other]
            faster, cheaper = (
                two[seconds] / two["stations"] / (one[seconds] / one["stations"]) for seconds in ("seconds", "cpu")
            )
            smaller = two["bytes"] / two["stations"] / (one["bytes"] / one["stations"])
            print(f"{mine} against {other}: {faster:.0f} x the rate ({cheaper:.0f} x by CPU), {smaller:.1f} x smaller")
    print(f"targets: {TARGET_RATE} x the rate, {TARGET_BYTES} x smaller than csv2bufr's own sequence")


def memory() -> None:
    for stations in (1_000_000, 5_000_000, 20_000_000):
        with TemporaryDirectory() as folder:
            dataset = Path(folder) / "window.parquet"
            write_dataset(dataset, stations)
            show("ours, ids as names", measure("ours, ids as names", dataset))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="stations of our side, a row each")
    parser.add_argument("--memory", action="store_true", help="our memory on 1M, 5M and 20M rows")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--dataset", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments.side, arguments.dataset)
    elif arguments.memory:
        memory()
    else:
        compare(arguments.rows)


if __name__ == "__main__":
    main()
