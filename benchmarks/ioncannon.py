"""The load generator: our vectorised weather against a plain Python generator of random rows.

``python benchmarks/ioncannon.py`` prints both sides in one run, each in a process of its own; ``--rows`` sets how many
rows ours makes (the plain one makes a tenth). The plain generator draws each value of each row with `random.uniform`,
as a load generator is commonly written, and collects rows into batches of the same columns.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from measure import peak_megabytes

START = datetime(2026, 6, 21, tzinfo=UTC)
STATIONS = 1000
EVERY = timedelta(minutes=5)
BATCH_ROWS = 65_536


def ours(times: int) -> Iterator[pa.RecordBatch]:
    from ionbeam_dagster.domain.windows import Window
    from ionbeam_dagster.sources.ioncannon import IonCannon, IonCannonConfig

    return IonCannon("ioncannon", IonCannonConfig(num_stations=STATIONS)).fetch(Window(START, START + times * EVERY))


def plain(times: int) -> Iterator[pa.RecordBatch]:
    rows = []
    for slot in range(times):
        for station in range(STATIONS):
            rows.append(
                {
                    "datetime": START + slot * EVERY,
                    "lat": random.uniform(47, 55),
                    "lon": random.uniform(5, 15),
                    "temperature": random.uniform(0, 100),
                    "dew_point": random.uniform(0, 100),
                    "humidity": random.uniform(0, 100),
                    "pressure": random.uniform(0, 100),
                    "wind_speed": random.uniform(0, 100),
                    "wind_direction": random.uniform(0, 100),
                    "wind_gust": random.uniform(0, 100),
                    "rain": random.uniform(0, 100),
                    "station_id": f"SYNTH_{station:04d}",
                    "altitude": f"{random.uniform(0, 100):.0f}",
                    "sensor_type": f"sensor_{random.randrange(10)}",
                    "location_type": f"location_{random.randrange(10)}",
                }
            )
            if len(rows) == BATCH_ROWS:
                yield pa.RecordBatch.from_pylist(rows)
                rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows)


def measure(side: str, rows: int) -> None:
    make = {"ours": ours, "plain": plain}[side]
    for _ in make(1):  # what is made once, such as the stations, is not timed
        pass
    begun = time.perf_counter()
    made = sum(batch.num_rows for batch in make(rows // STATIONS))
    seconds = time.perf_counter() - begun
    print(json.dumps([made, seconds, peak_megabytes()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--side", choices=("ours", "plain"))
    given = parser.parse_args()
    if given.side:
        measure(given.side, given.rows)
        return
    speeds = {}
    print("ioncannon: rows of a synthetic network, 8 variables each, on one core")
    for side, rows in (("ours", given.rows), ("plain", given.rows // 10)):
        command = [sys.executable, __file__, "--rows", str(rows), "--side", side]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        made, seconds, peak = json.loads(done.stdout.splitlines()[-1])
        speeds[side] = made / seconds
        print(f"  {side:<6}{made:>12,} rows {seconds:8.2f} s {made / seconds:>12,.0f} rows/s   peak {peak:6.0f} MB")
    print(f"  ours is {speeds['ours'] / speeds['plain']:.0f} times as fast as a plain Python generator")


if __name__ == "__main__":
    main()
