"""EDR queries over many windows: ours against DuckDB on the same files, while windows are being replaced.

``python benchmarks/edr.py`` makes a network of windows (``--rows`` and ``--files``; the claim is made at 100M rows in
2,000 files, which take 1.2 GB), asks position, radius, area and locations queries of a day somewhere in all of it, and
prints the median and the 95th percentile of each, the same of DuckDB's `read_parquet` with the same bounds (the files
of that day, by name), and the ratio; then of all of them by four clients at once. Half-way through, another process
begins to replace windows. Then pages of items by offset, and the configuration's upkeep with ``--datasets`` and
``--windows`` files. ``--keep FOLDER`` keeps the files for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from geoparquet import SCHEMA
from measure import peak_megabytes

TIMES = 12
START = np.datetime64("2024-01-01", "us")
HOUR = np.timedelta64(3600, "s")
PARAMETER = "air_temperature:2.0:point:PT0S"
CLIENTS = 4
QUERIES = ("position", "radius", "area", "locations")


def write_windows(folder: Path, rows: int, files: int) -> int:
    """Hourly windows of a network that reports every five minutes; gives the number of its stations.

    One window goes through the exporter; the others are its rows with other times, ids and temperatures, which costs a
    tenth, and gives files of the same layout.
    """
    from ionbeam_dagster.exporters.geoparquet import GeoParquetExporter

    stations = rows // files // TIMES
    folder.mkdir(parents=True, exist_ok=True)
    source, first = folder / ".source.parquet", folder / ".first.parquet"
    pq.write_table(window_table(stations), source, compression="zstd")
    GeoParquetExporter().export(source, first)
    with pq.ParquetFile(first) as file:
        table, groups = file.read(), file.metadata.row_group(0).num_rows
    hashes = pc.utf8_slice_codeunits(table.column("id"), 16)
    temperature = next(name for name in table.column_names if name.startswith("air_temperature"))
    for number in range(files):
        target = folder / name_of(number)
        if not target.exists():
            replaced(table, hashes, temperature, number, 0.0, target, groups)
    source.unlink()
    first.unlink()
    return stations


def name_of(number: int) -> str:
    moment = str((START + number * HOUR).astype("datetime64[s]")).replace("-", "").replace(":", "")
    return f"net_{moment}_PT1H.parquet"


def window_table(stations: int) -> pa.Table:
    random = np.random.default_rng(7)
    lat, lon = random.uniform(47, 55, stations).round(5), random.uniform(5, 15, stations).round(5)
    station = np.repeat(np.arange(stations), TIMES)
    number = len(station)
    values = {
        "datetime": np.resize(START + np.arange(TIMES) * np.timedelta64(300, "s"), number),
        "lat": lat[station],
        "lon": lon[station],
        "station_id": np.array([f"station-{one:06d}" for one in range(stations)])[station],
        "air_temperature": random.normal(283, 5, number).round(1),
        "relative_humidity": random.uniform(0.3, 1, number).round(2),
        "surface_air_pressure": random.normal(100_500, 400, number).round(-1),
        "wind_speed": random.gamma(2, 2, number).round(1),
        "precipitation_amount": np.where(random.random(number) < 0.1, random.exponential(0.5, number), 0).round(1),
    }
    return pa.Table.from_arrays([pa.array(values[f.name.split("__")[0]], f.type) for f in SCHEMA], schema=SCHEMA)


def replaced(
    table: pa.Table, hashes: Any, temperature: str, number: int, warmer: float, target: Path, groups: int
) -> None:
    """A window made of another's rows, written as the exporter does and moved to its place."""
    shift = number * HOUR
    moments = table.column("datetime").to_numpy() + shift
    stamp = str((START + shift).astype("datetime64[s]")).replace("-", "").replace(":", "")[:11]
    minutes = ((moments - moments.min()) / np.timedelta64(60, "s")).astype(int)
    texts = np.array([f"{stamp}{minute:02d}00Z" for minute in range(60)])[minutes]
    ids = pc.binary_join_element_wise(pa.array(texts), hashes.combine_chunks(), "")
    columns = {name: table.column(name) for name in table.column_names}
    columns["datetime"] = pa.array(moments).cast(table.schema.field("datetime").type)
    columns["id"] = ids
    columns[temperature] = pc.add(columns[temperature], number % 10 + warmer)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    deltas = {"id": "DELTA_BYTE_ARRAY", "datetime": "DELTA_BINARY_PACKED"}
    repeated = [name for name in table.column_names if name not in deltas and name != "bbox"]
    pq.write_table(
        pa.table(columns, table.schema), draft, compression="zstd", row_group_size=groups, column_encoding=deltas,
        use_dictionary=repeated, write_page_index=True,
    )  # fmt: skip
    draft.replace(target)


def keep_replacing(folder: Path, files: int) -> None:
    """Replace windows, newest first, until killed."""
    with pq.ParquetFile(folder / name_of(0)) as file:
        table, groups = file.read(), file.metadata.row_group(0).num_rows
    hashes = pc.utf8_slice_codeunits(table.column("id"), 16)
    temperature = next(name for name in table.column_names if name.startswith("air_temperature"))
    for revision in range(1, 10**9):
        number = files - 1 - revision % min(files, 200)
        replaced(table, hashes, temperature, number, float(revision % 2), folder / name_of(number), groups)
        time.sleep(0.2)


def asked(kind: str, random: np.random.Generator, files: int, stations: int, place: Any) -> tuple[str | None, dict]:
    """A query of one day anywhere in the whole, about a place where there is a station."""
    day = START + int(random.integers(0, max(1, files - 24))) * HOUR
    until = day + 24 * HOUR - np.timedelta64(1, "s")
    given = {
        "datetime": f"{day.astype('datetime64[s]')}Z/{until.astype('datetime64[s]')}Z",
        "parameter-name": PARAMETER,
    }
    lon, lat, name = place(int(random.integers(stations)))
    if kind == "locations":
        return name, given
    if kind == "area":
        ring = f"{lon - 0.1} {lat - 0.1},{lon + 0.1} {lat - 0.1},{lon + 0.1} {lat + 0.1},{lon} {lat + 0.15}"
        return None, given | {"coords": f"POLYGON(({ring},{lon - 0.1} {lat + 0.1},{lon - 0.1} {lat - 0.1}))"}
    given["coords"] = f"POINT({lon} {lat})"
    return None, given | ({"within": "10", "within-units": "km"} if kind == "radius" else {})


def ours(folder: Path, files: int, stations: int, runs: int) -> dict[str, Any]:
    from ionbeam_dagster.edr.service import EDR_PLUGIN, Service

    provider = {"type": "edr", "name": EDR_PLUGIN, "data": str(folder)}
    service = Service({"resources": {"net": {"type": "collection", "providers": [provider]}}}, "http://localhost")
    place = places_of(folder)

    def answer(kind: str, id: str | None, given: dict[str, str]) -> int:
        reply = service.answer("net", kind, id, given)
        assert reply.status == 200, reply.body
        size = len(reply.body) if isinstance(reply.body, bytes) else sum(map(len, reply.body))
        reply.end()
        return size

    told = measured(answer, folder, files, stations, runs, place)
    offsets = {}
    total = files * stations * TIMES
    answer("items", None, {"limit": "100", "offset": str(total - 200)})  # row counts are looked up once
    for part in (0.0, 0.5, 0.99):
        seconds = []
        for _ in range(7):
            begun = time.perf_counter()
            answer("items", None, {"limit": "100", "offset": str(int(total * part))})
            seconds.append(time.perf_counter() - begun)
        offsets[f"offset {int(total * part):,}"] = float(np.median(seconds))
    return told | {"offsets": offsets, "peak": peak_megabytes()}


def duckdb_side(folder: Path, files: int, stations: int, runs: int) -> dict[str, Any]:
    """The same questions in SQL, over the files of the day that is asked for, by their names."""
    import duckdb

    database = duckdb.connect(config={"threads": 2})
    database.execute("SET GLOBAL enable_geoparquet_conversion = false")
    own = threading.local()
    place = places_of(folder)
    column = next(f.name for f in SCHEMA if f.name.startswith("air_temperature"))
    columns = f'SELECT datetime, lon, lat, station_id, "{column}" FROM read_parquet(?) WHERE datetime BETWEEN ? AND ?'

    def answer(kind: str, id: str | None, given: dict[str, str]) -> int:
        start, end = given["datetime"].split("/")
        first = int((np.datetime64(start[:-1]) - START) / HOUR)
        paths = [str(folder / name_of(number)) for number in range(first, first + 24) if number < files]
        if kind == "locations":
            where, values = "station_id = ?", [id]
        else:
            import shapely

            shape = shapely.from_wkt(given["coords"])
            west, south, east, north = shape.bounds
            pad = {"position": 0.02, "radius": 0.16}.get(kind, 0.0)
            where = "lon BETWEEN ? AND ? AND lat BETWEEN ? AND ?"
            values = [west - pad, east + pad, south - pad / 1.6, north + pad / 1.6]
        if not hasattr(own, "connection"):
            own.connection = database.cursor()
        found = own.connection.sql(f"{columns} AND {where}", params=[paths, start, end, *values]).to_arrow_table()
        return int(found.num_rows)

    return measured(answer, folder, files, stations, runs, place) | {"peak": peak_megabytes()}


def places_of(folder: Path) -> Callable[[int], tuple[float, float, str]]:
    table = pq.read_table(folder / name_of(0), columns=["lon", "lat", "station_id"])
    lon, lat, name = (table.column(column).to_numpy(zero_copy_only=False)[::TIMES] for column in table.column_names)
    return lambda number: (float(lon[number]), float(lat[number]), str(name[number]))


def measured(
    answer: Callable[..., int], folder: Path, files: int, stations: int, runs: int, place: Any
) -> dict[str, Any]:
    random = np.random.default_rng(3)
    told: dict[str, Any] = {}
    for kind in QUERIES:
        answer(kind, *asked(kind, random, files, stations, place))  # imports and first calls are not what is measured
    for state in ("quiet", "replacing"):
        busy = None
        if state == "replacing":
            command = [sys.executable, __file__, "--replace", str(folder), "--files", str(files)]
            busy = subprocess.Popen(command)
            time.sleep(2)
        try:
            for kind in QUERIES:
                seconds, worked = [], time.process_time()
                for _ in range(runs):
                    question = asked(kind, random, files, stations, place)
                    begun = time.perf_counter()
                    answer(kind, *question)
                    seconds.append(time.perf_counter() - begun)
                worked = (time.process_time() - worked) / runs
                told[f"{kind}, {state}"] = [*(float(np.percentile(seconds, part)) for part in (50, 95)), worked]
            if state == "quiet":
                questions = [
                    (kind, *asked(kind, random, files, stations, place)) for _ in range(runs) for kind in QUERIES
                ]
                told[f"all, {CLIENTS} clients"] = at_once(answer, questions)
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
    return told


def at_once(answer: Callable[..., int], questions: list[Any]) -> list[float]:
    """Median, 95th percentile and CPU seconds of a query while `CLIENTS` ask without a pause."""

    def timed(question: Any) -> float:
        begun = time.perf_counter()
        answer(*question)
        return time.perf_counter() - begun

    worked = time.process_time()
    with ThreadPoolExecutor(CLIENTS) as clients:
        seconds = list(clients.map(timed, questions))
    worked = (time.process_time() - worked) / len(questions)
    return [*(float(np.percentile(seconds, part)) for part in (50, 95)), worked]


SIDES = {"ours": ours, "duckdb": duckdb_side}


def upkeep(folder: Path, datasets: int, windows: int) -> None:
    """The configuration of many datasets: at first, then with one new window each, then with nothing new."""
    from ionbeam_dagster.edr.configuration import Served, update
    from ionbeam_dagster.exporters.geoparquet import GeoParquetExporter

    source, first = folder / "source.parquet", folder / "first.parquet"
    pq.write_table(window_table(20), source)
    GeoParquetExporter().export(source, first)
    each = windows // datasets
    served = [Served(f"d{number:02d}", folder / f"d{number:02d}") for number in range(datasets)]
    for one in served:
        one.folder.mkdir()
        for number in range(each):
            if number % 1000 == 0:  # a file cannot have more names than the file system allows
                own = one.folder / name_of(number).replace("net", one.name)
                copyfile(first, own)
            else:
                os.link(own, one.folder / name_of(number).replace("net", one.name))
    print(f"{'configuration':<34}{datasets:>8} datasets{datasets * each:>12,} files")
    for what in ("at first", "one window more in each dataset", "nothing new"):
        if what.startswith("one"):
            for one in served:
                copyfile(first, one.folder / name_of(each).replace("net", one.name))
        if what.startswith("nothing"):
            time.sleep(2.5)  # a listing is trusted once its folder is older than the clock's grain
            update(folder / "config.yml", folder / "state", served)
        begun = time.perf_counter()
        update(folder / "config.yml", folder / "state", served)
        print(f"  {what:<40}{time.perf_counter() - begun:>8.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--runs", type=int, default=40, help="queries of each kind")
    parser.add_argument("--datasets", type=int, default=50)
    parser.add_argument(
        "--windows", type=int, default=5_000, help="files of the configuration; the claim is at 100,000"
    )
    parser.add_argument("--keep", type=Path, help="a folder for the windows, kept for the next run")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--stations", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--replace", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replace:
        keep_replacing(given.replace, given.files)
        return
    if given.side:
        told = SIDES[given.side](given.keep, given.files, given.stations, given.runs)
        print(json.dumps(told))
        return
    with TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch) / "net"
        stations = write_windows(folder, given.rows, given.files)
        print(f"{given.files:,} windows, {stations * TIMES * given.files:,} rows; seconds: median, p95, CPU")
        results = {}
        for side in SIDES:
            command = [sys.executable, __file__, "--side", side, "--keep", str(folder), "--files", str(given.files)]
            command += ["--stations", str(stations), "--runs", str(given.runs)]
            results[side] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        mine, other = results["ours"], results["duckdb"]
        print(f"{'query':<26}{'ours':>24}{'DuckDB':>28}{'ratios: p95, CPU':>20}")
        for kind in (name for name in mine if ", " in name):
            (a, b, c), (d, e, f) = mine[kind], other[kind]
            print(f"{kind:<26}{a:>8.3f}{b:>8.3f}{c:>8.3f}{d:>12.3f}{e:>8.3f}{f:>8.3f}{e / b:>10.1f}{f / c:>10.1f}")
        print(f"{'peak MB':<26}{mine['peak']:>24.0f}{other['peak']:>28.0f}")
        for offset, seconds in mine["offsets"].items():
            print(f"items, {offset:<27}{seconds:>10.3f}")
    with TemporaryDirectory() as scratch:
        upkeep(Path(scratch), given.datasets, given.windows)


if __name__ == "__main__":
    main()
