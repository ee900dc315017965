"""`open_dataset` beside DuckDB's own `read_parquet`, for the same questions of the same windows.

``python benchmarks/opening.py`` makes hourly windows (``--rows`` and ``--files``; ``--keep FOLDER`` keeps them), asks
each question of both in turn in one run, and prints the least seconds of processors and by the clock, their ratios, and
the peak of memory of a process that asks only ours, or only DuckDB's. DuckDB is told by hand which files hold the time.
Of ours the opening counts: the list of windows and their footers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import polars as pl
from edr import name_of, write_windows
from measure import peak_megabytes

from ionbeam_client import open_dataset

TIMES = 5
TEMPERATURE = "air_temperature__K__2.0__point__PT0S"
BOX = (9.0, 50.0, 9.5, 50.5)
DAY = ("2024-01-02T00:00Z", "2024-01-02T23:59:59.999999Z")
_MEANS = f'station_id, avg("{TEMPERATURE}")'
_INSIDE = "lon BETWEEN 9 AND 9.5 AND lat BETWEEN 50 AND 50.5"

Answer = Callable[[], Any]


def of_duckdb(folder: Path) -> dict[str, Answer]:
    day = [str(folder / name_of(number)) for number in range(24, 48)]
    every = [str(path) for path in sorted(folder.glob("net_*.parquet"))]

    def asked(select: str, files: list[str], rest: str = "") -> Answer:
        return lambda: duckdb.execute(f"SELECT {select} FROM read_parquet(?) {rest}", [files]).fetchall()

    return {
        "a day, means of stations": asked(_MEANS, day, "GROUP BY station_id"),
        "a box, every time": asked(f'count(*), avg("{TEMPERATURE}")', every, f"WHERE {_INSIDE}"),
        "all of it, means of stations": asked(_MEANS, every, "GROUP BY station_id"),
        "the first rows of all": asked("*", every, "LIMIT 5"),
    }


def of_ours(folder: Path) -> dict[str, Answer]:
    temperature = pl.col(TEMPERATURE)

    def means(**asked: Any) -> Answer:
        return lambda: (
            open_dataset(folder, variables=TEMPERATURE, **asked)
            .group_by("station_id")
            .agg(temperature.mean())
            .collect(engine="streaming")
        )

    return {
        "a day, means of stations": means(time=DAY),
        "a box, every time": lambda: (
            open_dataset(folder, variables=TEMPERATURE, bbox=BOX).select(pl.len(), temperature.mean()).collect()
        ),
        "all of it, means of stations": means(),
        "the first rows of all": lambda: open_dataset(folder).head(5).collect(),
    }


SIDES = {"ours": of_ours, "duckdb": of_duckdb}


def seconds(ask: Answer) -> tuple[float, float]:
    """Of processors, and by the clock."""
    begun, clock = time.process_time(), time.perf_counter()
    ask()
    return time.process_time() - begun, time.perf_counter() - clock


def peak(side: str, folder: Path) -> float:
    ran = subprocess.run(
        [sys.executable, __file__, "--side", side, "--keep", str(folder)], check=True, capture_output=True
    )
    return float(json.loads(ran.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--side", choices=SIDES)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        windows = (given.keep or Path(folder)) / "net"
        if given.side:
            for ask in SIDES[given.side](windows).values():
                ask()
            print(peak_megabytes())
            return
        write_windows(windows, given.rows, given.files)
        print(f"{given.rows:,} rows in {given.files} windows; least of {TIMES}: seconds of processors, by the clock")
        theirs = of_duckdb(windows)
        for question, ask in of_ours(windows).items():
            taken = [(*seconds(ask), *seconds(theirs[question])) for _ in range(TIMES)]
            own, by_clock, other, others_clock = map(min, zip(*taken, strict=True))
            print(f"  {question:<30} ours {own:6.3f} {by_clock:6.3f}   DuckDB {other:6.3f} {others_clock:6.3f}", end="")
            print(f"   ratio {own / other:5.2f} {by_clock / others_clock:5.2f}", flush=True)
        for side in SIDES:
            print(f"  peak of memory, {side}: {peak(side, windows.parent):.0f} MB")


if __name__ == "__main__":
    main()
