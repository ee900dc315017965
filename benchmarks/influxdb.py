"""InfluxDB 2: writing and reading points on the real server, against what its own client does with data frames.

Three tables: rows to line protocol (ours, and influxdb-client's DataframeSerializer, on a tenth of the rows, scaled),
the same rows written through the store, with the share of the time in which the server worked, and a window read back
(ours, and `query_data_frame` with a pandas pivot). Each side runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from measure import peak_megabytes

from ionbeam_dagster.domain.windows import Window

START = datetime(2026, 6, 21, tzinfo=UTC)
STATIONS = 1000
TAGS = ["station_id", "sensor_type", "location_type"]
FIELDS = [
    "lat", "lon", "air_temperature__degC__2.0__mean__PT5M", "relative_humidity__1__2.0__mean__PT5M",
    "surface_air_pressure__Pa__0.0__mean__PT5M", "wind_speed__m s-1__10.0__mean__PT10M",
]  # fmt: skip
SCALE = 10  # the alternative to line protocol is given a tenth of the rows


def points(rows: int) -> pl.DataFrame:
    """A network of 1,000 stations that report every 5 minutes; a tenth of the temperatures is missing."""
    place = pl.int_range(rows)
    station = place % STATIONS
    moment = pl.lit(START) + (place // STATIONS) * timedelta(minutes=5)
    values = [(((place * (7919 + number)) % 100_003) / 1000).round(3).alias(name) for number, name in enumerate(FIELDS)]
    frame = pl.select(
        moment.dt.cast_time_unit("us").alias("datetime"), *values, pl.format("STATION_{}", station).alias(TAGS[0]),
        pl.format("type {}", station % 10).alias(TAGS[1]), pl.format("place={}", station % 7).alias(TAGS[2]),
    )  # fmt: skip
    return frame.with_columns(pl.when(place % 10 > 0).then(pl.col(FIELDS[2])).alias(FIELDS[2]))


def window_of(rows: int) -> Window:
    return Window(START, START + -(-rows // STATIONS) * timedelta(minutes=5))


def lines_ours(rows: int, server: list[str]) -> dict[str, float]:
    from ionbeam_dagster.stores.timeseries.influxdb.line_protocol import body_of, line_protocol
    from ionbeam_dagster.stores.timeseries.influxdb.store import REQUEST_LINES

    frame = points(rows)
    body_of(line_protocol("crowd,layer=0", frame[:1000], TAGS))
    begun, size = time.perf_counter(), 0
    for some in frame.iter_slices(REQUEST_LINES):
        size += len(body_of(line_protocol("crowd,layer=0", some, TAGS)))
    return {"seconds": time.perf_counter() - begun, "bytes": size}


def lines_theirs(rows: int, server: list[str]) -> dict[str, float]:
    from influxdb_client import WritePrecision
    from influxdb_client.client.write.dataframe_serializer import DataframeSerializer
    from influxdb_client.client.write_api import PointSettings

    frame = points(rows // SCALE).to_pandas().set_index("datetime")
    begun, size = time.perf_counter(), 0
    serializer = DataframeSerializer(
        frame,
        PointSettings(),
        WritePrecision.US,
        50_000,
        data_frame_measurement_name="crowd",
        data_frame_tag_columns=TAGS,
    )
    for chunk in range(serializer.number_of_chunks):
        size += len("\n".join(serializer.serialize(chunk)).encode())
    return {"seconds": (time.perf_counter() - begun) * SCALE, "bytes": size * SCALE}


def write_ours(rows: int, server: list[str]) -> dict[str, float]:
    from ionbeam_dagster.stores.timeseries.influxdb.bucket import OpenBucket
    from ionbeam_dagster.stores.timeseries.influxdb.store import InfluxStore

    waited, ask = 0.0, OpenBucket._ask

    def timed(bucket, request):
        nonlocal waited
        begun = time.perf_counter()
        try:
            return ask(bucket, request)
        finally:
            waited += time.perf_counter() - begun

    OpenBucket._ask = timed
    frame = points(rows)
    begun = time.perf_counter()
    InfluxStore(*server).write("crowd", "one", 1, frame.iter_slices(100_000), TAGS)
    return {"seconds": time.perf_counter() - begun, "waited": waited}


def read_ours(rows: int, server: list[str]) -> dict[str, float]:
    from ionbeam_dagster.stores.timeseries.influxdb.store import InfluxStore

    schema = points(1).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    store = InfluxStore(*server)
    list(store.read("crowd", Window(START, START + timedelta(minutes=5)), schema, TAGS))
    begun = time.perf_counter()
    found = sum(batch.num_rows for batch in store.read("crowd", window_of(rows), schema, TAGS))
    seconds = time.perf_counter() - begun
    assert found == rows, found
    return {"seconds": seconds}


def read_theirs(rows: int, server: list[str]) -> dict[str, float]:
    """As is usual with the client: one row a value, then a pivot."""
    from influxdb_client import InfluxDBClient
    from influxdb_client.client.warnings import MissingPivotFunction

    url, org, bucket, token = server
    window = window_of(rows)
    flux = (
        f'from(bucket: "{bucket}") |> range(start: {window.start:%Y-%m-%dT%H:%M:%SZ}, '
        f'stop: {window.end:%Y-%m-%dT%H:%M:%SZ}) |> filter(fn: (r) => r._measurement == "crowd")'
    )
    warnings.simplefilter("ignore", MissingPivotFunction)
    with InfluxDBClient(url, token, org=org, timeout=600_000) as client:
        begun = time.perf_counter()
        frame = client.query_api().query_data_frame(flux)
        wide = frame.pivot_table(
            index=["_time", *TAGS], columns="_field", values="_value", aggfunc="first"
        ).reset_index()
        seconds = time.perf_counter() - begun
    assert len(wide) == rows, len(wide)
    return {"seconds": seconds}


SIDES = {
    "lines ours": lines_ours, "lines influxdb-client": lines_theirs, "write ours": write_ours,
    "read ours": read_ours, "read influxdb-client + pandas": read_theirs,
}  # fmt: skip


def measured(side: str, rows: int, server: list[str]) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", side, "--rows", str(rows), "--server", json.dumps(server)]
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    size = f"{result['bytes'] / 1e6:8.0f} MB" if "bytes" in result else " " * 11
    rate, peak = rows / result["seconds"], result["peak"]
    print(f"  {side:30} {rows:>9,} rows {result['seconds']:8.2f} s {rate:12,.0f} rows/s {size}  peak {peak:5.0f} MB")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--window", type=int, default=144_000, help="rows of the window that is read back")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--server", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        result = SIDES[asked.side](asked.rows, asked.server)
        print(json.dumps(result | {"peak": peak_megabytes()}))
        return
    from backends import Missing, start_influxdb

    print("influxdb: 3 tags and 6 fields a row")
    ours = measured("lines ours", asked.rows, [])
    theirs = measured("lines influxdb-client", asked.rows, [])
    print(f"  to line protocol: {theirs['seconds'] / ours['seconds']:.0f} times faster")
    with TemporaryDirectory() as folder:
        try:
            running = start_influxdb(Path(folder))
        except Missing as missing:
            print(f"  no server: {missing.reason}")
            return
        server = [running.url, running.org, running.bucket, running.token]
        try:
            written = measured("write ours", asked.rows, server)
            print(f"  written: the server's share of the time is {written['waited'] / written['seconds']:.0%}")
            window = min(asked.window, asked.rows)
            ours, theirs = (
                measured("read ours", window, server),
                measured("read influxdb-client + pandas", window, server),
            )
            print(f"  a window read: {theirs['seconds'] / ours['seconds']:.0f} times faster")
        finally:
            running.process.stop()


if __name__ == "__main__":
    main()
