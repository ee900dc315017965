"""The source `files` beside polars: thousands of small files of a day, a compressed file, one sorted by station.

Processor time of `ionbeam config check` (what the source does for it) and of the hourly windows of a day, against one
scan of the same files by polars with times parsed. Then a `.csv.gz` of growing size, and one file sorted by station
against the same rows sorted by time. Last what `ionbeam source guess` takes for the small files, and for one of 2 GiB.
Ratios are of one run; right are at most 3 for the small files, 1 for the compressed one (linear), 2 for the order.
"""

import argparse
import gzip
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from ionbeam_dagster.domain.windows import HOUR, Window, windows_between
from ionbeam_dagster.sources.files import Files, FilesConfig
from ionbeam_dagster.sources.files.guessing import propose

DAY = datetime(2024, 3, 1, tzinfo=UTC)
STEP = timedelta(minutes=30)


def source(path: str, folder: Path, **keys: object) -> Files:
    variables = [{"column": "t", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2.0}]
    block = {"type": "files", "data_path": str(folder), "path": path, "time": "time", "latitude": 45.0,
             "longitude": 7.0, "variables": variables}  # fmt: skip
    return Files("many", FilesConfig.model_validate(block | keys))


def processor_time(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def rows(count: int, step: timedelta = STEP, station: str = "") -> str:
    return "".join(f"{DAY + n * step:%Y-%m-%dT%H:%M:%SZ},{station}{n % 40}\n" for n in range(count))


def taken(read: Files, windows: list[Window]) -> int:
    return sum(batch.num_rows for window in windows for batch in read.fetch(window))


def many(folder: Path, count: int) -> None:
    (folder / "in").mkdir()
    text = "time,t\n" + rows(48)
    for number in range(count):
        (folder / "in" / f"st{number:05}.csv").write_text(text)
    time.sleep(3)  # until the files count as finished
    glob, hours = str(folder / "in" / "*.csv"), list(windows_between(DAY, DAY + 24 * HOUR, HOUR))

    def check() -> None:
        read = source(glob, folder / "raw", constants={"station_id": "{stem}"})
        read.metadata, read.problems(), read.extent()

    def day() -> None:
        read = source(glob, folder / "raw", constants={"station_id": "{stem}"})
        assert [read.signature(hour) for hour in hours] and taken(read, hours) == 48 * count

    scanned = processor_time(
        lambda: pl.scan_csv(glob, try_parse_dates=True, include_file_paths="file").collect(engine="streaming")
    )
    checked, collected = processor_time(check), processor_time(day)
    print(f"files_many: {count:,} files of 48 rows; processor time")
    print(f"  polars, one scan         {scanned:7.2f} s")
    print(f"  config check             {checked:7.2f} s")
    print(f"  24 hourly windows        {collected:7.2f} s")
    print(f"  ours / polars            {(checked + collected) / scanned:7.2f}")


def compressed(folder: Path, sizes: list[int]) -> None:
    print("files_many: one .csv.gz, all of it indexed and read; processor time for each MiB of text")
    each = []
    for size in sizes:
        path = folder / f"{size}.csv.gz"
        text = ("time,t\n" + rows(size * (1 << 20) // 24, timedelta(seconds=60))).encode()
        path.write_bytes(gzip.compress(text, 1))
        time.sleep(3)
        read = source(str(path), folder / f"gz{size}", constants={"station_id": "A"})
        took = processor_time(lambda read=read: taken(read, [Window(DAY, DAY + timedelta(days=4000))]))  # type: ignore[misc]
        each.append(took / size)
        print(f"  {size:4} MiB  {1000 * took / size:7.1f} ms")
    print(f"  largest / smallest       {each[-1] / each[0]:7.2f}")


def orders(folder: Path, stations: int) -> None:
    names = [f"S{number}" for number in range(stations)]
    of = {name: rows(48 * 7, STEP, f"{name},").splitlines(keepends=True) for name in names}
    by_station = "".join("".join(of[name]) for name in names)
    by_time = "".join("".join(line) for line in zip(*of.values(), strict=True))
    took = {}
    hours = list(windows_between(DAY, DAY + timedelta(days=7), HOUR))
    for order, text in (("time", by_time), ("station", by_station)):
        path = folder / f"by_{order}.csv"
        path.write_text("time,id,t\n" + text)
        time.sleep(3)
        read = source(str(path), folder / order, metadata={"station_id": "id"})
        took[order] = processor_time(lambda read=read: taken(read, hours))  # type: ignore[misc]
        print(f"files_many: a week of {stations} stations sorted by {order}: {took[order]:.2f} s of processor time")
    print(f"  by station / by time     {took['station'] / took['time']:7.2f}")


def guessed(folder: Path, count: int) -> None:
    large = folder / "large.csv"
    with large.open("wb") as file:
        file.write(f"time,station,temp\n{rows(20_000, STEP, 'A,')}".encode())
        file.truncate(2 << 30)  # what lies between is not read
        file.seek(0, 2)
        file.write(f"\n{rows(500, STEP, 'A,')}".encode())
    few, one = (processor_time(lambda path=path: propose(str(path))) for path in (folder / "in", large))
    print(
        f"files_many: source guess of {count:,} files takes {few:.2f} s of processor time, of 2 GiB of CSV {one:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--mebibytes", type=int, nargs="+", default=[5, 20, 80])
    parser.add_argument("--stations", type=int, default=300)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        many(Path(folder), given.files)
        compressed(Path(folder), given.mebibytes)
        orders(Path(folder), given.stations)
        guessed(Path(folder), given.files)


if __name__ == "__main__":
    main()
