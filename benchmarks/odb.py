"""ODB-2: our exporter against `pyodc.encode_odb` fed by pandas, and our memory on windows of growing size.

``python benchmarks/odb.py`` prints both sides on one canonical file (400k rows of 5 variables, 2M values) and their
ratio; ``--memory`` prints ours on 1M, 5M and 20M rows. Each run is a fresh process, so that its peak memory is its own.
Our seconds include reading the file back and making it durable.

pyodc takes its rows in two orders: as melting the canonical file gives them (by variable, station and time), and in
order of time, as a time-series store gives them. ODB-2 writes a row from its first changed column on, so that the order
decides the size.
"""

from __future__ import annotations

import argparse
import json
import resource
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
from ionbeam_dagster.domain.quality.plan import quality_fields

STATIONS = 1_000
STATIONS_AT_ONCE = 50
VARNO_OF = {
    CanonicalVariable(column="t", standard_name="air_temperature", cf_unit="K", level=2): 39,
    CanonicalVariable(column="h", standard_name="relative_humidity", cf_unit="1", level=2): 58,
    CanonicalVariable(column="p", standard_name="surface_air_pressure", cf_unit="Pa"): 110,
    CanonicalVariable(
        column="d", standard_name="wind_from_direction", cf_unit="degree", level=10, method="mean", period="PT10M"
    ): 111,
    CanonicalVariable(
        column="f", standard_name="wind_speed", cf_unit="m s-1", level=10, method="mean", period="PT10M"
    ): 112,
}
CANONICAL = canonical_schema(
    [
        IngestionMetadata(
            dataset=DatasetMetadata(name="benchmark"),
            ingestion_map=DataIngestionMap(
                canonical_variables=list(VARNO_OF),
                metadata_variables=[Described(column="station_id"), Described(column="altitude")],
            ),
        )
    ]
)
SCHEMA = pa.schema(
    field
    for described in CANONICAL
    for field in (described, *(quality_fields(described.name)[:1] if b"standard_name" in described.metadata else ()))
    if described.name not in ("datetime", "lat", "lon") or field is described
)
FLAGS, SHARES, STATUS = [1, 2, 3, 4], [0.9, 0.05, 0.03, 0.02], [0, 1, 1, 2, 4]


def write_dataset(path: Path, rows: int) -> None:
    """A day of 1,000 fixed stations, as often as gives `rows`, sorted by station and time."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for table in dataset_tables(rows // STATIONS):
            writer.write_table(table, row_group_size=100_000)


def dataset_tables(times: int) -> Iterator[pa.Table]:
    random = np.random.default_rng(20250101)
    lat, lon = random.uniform(47, 55, STATIONS).round(5), random.uniform(5, 15, STATIONS).round(5)
    altitude = random.uniform(0, 900, STATIONS).round()
    day = np.datetime64("2025-01-01", "us") + np.arange(times) * 86_400 // times * np.timedelta64(1, "s")
    for first in range(0, STATIONS, STATIONS_AT_ONCE):
        station = np.repeat(np.arange(first, first + STATIONS_AT_ONCE), times)
        number = len(station)
        moment = np.tile(day, STATIONS_AT_ONCE)
        warmth = 4 * np.sin(((moment - day[0]) / np.timedelta64(1, "h") - 9) * np.pi / 12)
        columns = {
            "air_temperature": (283 + warmth + random.normal(0, 1, number)).round(1),
            "relative_humidity": np.clip(random.normal(0.7, 0.1, number), 0, 1).round(2),
            "surface_air_pressure": (101_000 - 12 * altitude[station] + random.normal(0, 200, number)).round(-1),
            "wind_from_direction": random.uniform(0, 360, number).round(),
            "wind_speed": random.gamma(2, 2, number).round(1),
            "datetime": moment,
            "lat": lat[station],
            "lon": lon[station],
            "station_id": np.array([f"st{n:06d}" for n in range(STATIONS)])[station],
            "altitude": altitude.astype(str)[station],
        }
        flags = pa.array(random.choice(FLAGS, number, p=SHARES), pa.uint8())
        yield pa.Table.from_arrays(
            [
                flags if column.name.endswith("__flag") else pa.array(columns[column.name.split("__")[0]], column.type)
                for column in SCHEMA
            ],
            schema=SCHEMA,
        )


def ours(dataset: Path, target: Path) -> None:
    from ionbeam_dagster.exporters.odb import OdbExporter
    from ionbeam_dagster.exporters.odb.settings import OdbSettings, VariableMapping

    # Both sides write the same rows: what we add by ourselves (107 beside 110, components of the wind) is left out.
    OdbExporter(
        OdbSettings(variable_map=[VariableMapping(varno=number, mapped_from=[]) for number in (41, 42, 107)])
    ).export(dataset, target)


def by_station(dataset: Path, target: Path) -> None:
    _pyodc(dataset, target, [])


def by_time(dataset: Path, target: Path) -> None:
    _pyodc(dataset, target, ["datetime", "station_id"])


def _pyodc(dataset: Path, target: Path, order: list[str]) -> None:
    """What a user of pandas writes: read, melt, add the columns of ours, encode."""
    import pandas as pd
    import pyodc

    wide = pd.read_parquet(dataset).rename(columns={v.to_canonical_name(): varno for v, varno in VARNO_OF.items()})
    described = ["datetime", "lat", "lon", "station_id", "altitude"]
    if order:
        wide = wide.sort_values(order)
    wide["seqno"] = range(1, len(wide) + 1)
    flags = wide.filter(like="__flag")
    wide = wide.drop(columns=flags.columns)
    long = wide.melt([*described, "seqno"], var_name="varno", value_name="value")
    long["quality"] = flags.to_numpy().ravel("F")
    status = np.array(STATUS)[flags]
    long["status"] = status.ravel("F")
    long["report_status"] = np.tile(status.min(axis=1), len(VARNO_OF))
    long = long.dropna(subset="value")
    analysis = (long["datetime"] + pd.Timedelta(hours=3)).dt.floor("6h")
    altitude = long["altitude"].astype(float)
    rows = pd.DataFrame(
        {
            "type": 264,
            "class": 2,
            "stream": 1025,
            "expver": "    xxxx",
            "andate": analysis.dt.strftime("%Y%m%d").astype(int),
            "antime": analysis.dt.strftime("%H%M%S").astype(int),
            "reportype": 16090,
            "groupid@hdr": 17,
            "obstype@hdr": 1,
            "codetype@hdr": 179,
            "statid@hdr": long["station_id"],
            "wigosid@hdr": "",
            "stalt@hdr": altitude,
            "lat@hdr": long["lat"],
            "lon@hdr": long["lon"],
            "date@hdr": long["datetime"].dt.strftime("%Y%m%d").astype(int),
            "time@hdr": long["datetime"].dt.strftime("%H%M%S").astype(int),
            "seqno@hdr": long["seqno"],
            "report_status@hdr": long["report_status"],
            "vertco_type@body": 2,
            "vertco_reference_1@body": altitude * 9.80665,
            "entryno@body": long["varno"].map({varno: place for place, varno in enumerate(VARNO_OF.values(), 1)}),
            "varno@body": long["varno"].astype(int),
            "obsvalue@body": long["value"],
            "datum_status@body": long["status"],
            "quality@body": long["quality"].astype(int),
        }
    )
    with target.open("wb") as file:
        pyodc.encode_odb(rows, file)


SIDES = {"ours": ours, "pyodc, melted": by_station, "pyodc, by time": by_time}


def measure(side: str, dataset: Path, runs: int = 1) -> dict[str, float]:
    """The best of `runs` fresh processes."""
    command = [sys.executable, __file__, "--side", side, "--dataset", str(dataset)]
    results = [json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout) for _ in range(runs)]
    return min(results, key=lambda result: result["seconds"])


def run_side(side: str, dataset: Path) -> None:
    target, small = dataset.with_suffix(".odb"), dataset.with_name("small.parquet")
    write_dataset(small, STATIONS)
    SIDES[side](small, target)  # imports and first calls are not what is measured, on either side
    start, processed = time.perf_counter(), processor_seconds()
    SIDES[side](dataset, target)
    seconds, cpu = time.perf_counter() - start, processor_seconds() - processed
    print(json.dumps({"seconds": seconds, "cpu": cpu, "bytes": target.stat().st_size, "peak": peak_megabytes()}))


def processor_seconds() -> float:
    """Of this process and those that it ran: the reading back of ours is one."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def row(name: str, rows: int, result: dict[str, float]) -> str:
    values = rows * len(VARNO_OF)
    speed = f"{result['seconds']:>9.2f}{result['cpu']:>9.2f}{values / result['seconds']:>12,.0f}"
    size = f"{result['bytes'] / 1e6:>9.1f}{result['bytes'] / values:>9.1f}"
    return f"{name:<16}{rows:>12,}{speed}{size}{result['peak']:>9.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--memory", action="store_true", help="ours on 1M, 5M and 20M rows")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--dataset", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        run_side(asked.side, asked.dataset)
        return
    print(f"{'ODB-2':<16}{'rows':>12}{'seconds':>9}{'CPU s':>9}{'values/s':>12}{'MB':>9}{'B/value':>9}{'peak MB':>9}")
    with TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset.parquet"
        if asked.memory:
            for rows in (1_000_000, 5_000_000, 20_000_000):
                write_dataset(dataset, rows)
                print(row("ours", rows, measure("ours", dataset)), flush=True)
            return
        write_dataset(dataset, asked.rows)
        results = {}
        for side in SIDES:
            results[side] = measure(side, dataset, runs=3 if side == "ours" else 1)
            print(row(side, asked.rows, results[side]), flush=True)
    mine = results.pop("ours")
    for side, theirs in results.items():
        ratio = {key: theirs[key] / mine[key] for key in mine}
        print(
            f"against {side}: {ratio['seconds']:.1f} times faster ({ratio['cpu']:.1f} in processor time), "
            f"{ratio['bytes']:.1f} times smaller, {ratio['peak']:.1f} times less memory"
        )


if __name__ == "__main__":
    main()
