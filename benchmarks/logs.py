"""Logs of stations as files: rows a second out of JSON lines and annotated CSV, and the memory of it.

A log of two measurements, whose CSV changes its head with every ten rows, is looked over (its parts and their times)
and read whole. The named alternatives, in the same run: json.loads on every line and a frame of what is kept, and the
client's own reader of annotated CSV, which `eht-influx-client replay` uses. Each side runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from measure import peak_megabytes

from ionbeam_client.influx.annotated import read_lines
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.sources.files import Files, FilesConfig

T0 = 1_709_251_200
HEADS = (
    "#datatype dateTime:number,measurement,tag,double,long\ntimestamp,measurement,station,t,rh\n",
    "#datatype dateTime:number,measurement,tag,double\ntimestamp,measurement,station,load\n",
)


def rows(count: int) -> Iterator[tuple[int, bool, str, float]]:
    for n in range(count):
        yield (T0 + n) * 10**9, n // 10 % 2 == 0, f"mast {n % 20}", n % 1000 / 7


def write(path: Path, count: int) -> None:
    with path.open("w") as file:
        for n, (time_ns, weather, station, value) in enumerate(rows(count)):
            if path.suffix == ".jsonl":
                fields = {"t": value, "rh": n % 100} if weather else {"load": value}
                row = {"timestamp": time_ns, "measurement": "weather" if weather else "cpu",
                       "tags": {"station": station}, "fields": fields}  # fmt: skip
                file.write(json.dumps(row, separators=(",", ":")) + "\n")
            else:
                file.write(HEADS[not weather] if n % 10 == 0 else "")
                file.write(
                    f"{time_ns},weather,{station},{value!r},{n % 100}\n"
                    if weather
                    else f"{time_ns},cpu,{station},{value!r}\n"
                )


def files(path: Path, count: int) -> int:
    block = {
        "path": str(path), "data_path": path.parent / "raw", "settle": 0, "latitude": 45.0, "longitude": 7.0,
        "format": "jsonl" if path.suffix == ".jsonl" else "influx_csv", "metadata": {"station_id": "station"},
        "variables": [
            {"column": "weather.t", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2},
            {"column": "rh", "standard_name": "relative_humidity", "cf_unit": "%", "level": 2},
        ],
    }  # fmt: skip
    source = Files("s", FilesConfig.model_validate(block))
    everything = Window(datetime(2024, 2, 1, tzinfo=UTC), datetime(2025, 2, 1, tzinfo=UTC))
    return sum(batch.num_rows for batch in source.fetch(everything))


def one_by_one(path: Path, count: int) -> int:
    with path.open(newline="") as file:
        if path.suffix == ".csv":
            return sum(line is not None and line.startswith("weather") for _, line, _ in read_lines(file))
        read = (json.loads(line) for line in file)
        kept = [
            (datetime.fromtimestamp(row["timestamp"] / 1e9, UTC), row["tags"]["station"], row["fields"]["t"])
            for row in read if row["measurement"] == "weather"
        ]  # fmt: skip
    return pl.DataFrame(kept, orient="row").height


def measured(side: str, path: Path, count: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", side, "--path", path, "--rows", str(count)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--side")
    parser.add_argument("--path", type=Path)
    options = parser.parse_args()
    if options.side:
        begun = time.process_time()
        found = globals()[options.side](options.path, options.rows)
        assert found == options.rows // 2
        print(json.dumps({"seconds": time.process_time() - begun, "peak": peak_megabytes()}))
        return
    with TemporaryDirectory() as folder:
        for name, title in (("log.jsonl", "JSON lines"), ("log.csv", "annotated CSV")):
            path = Path(folder) / name
            write(path, options.rows // 4)
            small = measured("files", path, options.rows // 4)
            write(path, options.rows)
            ours, theirs = measured("files", path, options.rows), measured("one_by_one", path, options.rows)
            print(f"{title}: {options.rows:,} rows, {path.stat().st_size / 2**20:.0f} MiB")
            print(f"  one by one        {options.rows / theirs['seconds']:10,.0f} rows a second of the processor")
            print(
                f"  as files          {options.rows / ours['seconds']:10,.0f}   ratio "
                f"{theirs['seconds'] / ours['seconds']:.1f} (looked over, then read: twice); "
                f"peak {ours['peak']:.0f} MiB, {small['peak']:.0f} of a quarter"
            )


if __name__ == "__main__":
    main()
