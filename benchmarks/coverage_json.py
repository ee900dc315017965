"""E-SOH's CoverageJSON to wide rows, against pandas.

``python benchmarks/coverage_json.py`` reads one answer of 10,000 stations, 7 parameters and 12 times each, and the same
answer the straightforward way: a pandas frame for each coverage, put together at the end. That both give the same rows
is checked. Peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
from measure import peak_megabytes

from ionbeam_dagster.sources.coverage_json import read_coverages
from ionbeam_dagster.sources.netatmo.parameters import NETATMO, UNITS


def answer(stations: int) -> bytes:
    chance = random.Random(1)
    times = [f"2026-06-21T12:{minute:02d}:00Z" for minute in range(0, 60, 5)]

    def coverage(number: int) -> dict:
        return {
            "type": "Coverage",
            "domain": {
                "type": "Domain",
                "domainType": "PointSeries",
                "axes": {
                    "x": {"values": [round(chance.uniform(5, 15), 6)]},
                    "y": {"values": [round(chance.uniform(47, 55), 6)]},
                    "t": {"values": times},
                },
            },
            "parameters": {
                name: {"type": "Parameter", "unit": {"label": {"en": UNITS[name.split(":")[0]]}}} for name in NETATMO
            },
            "ranges": {
                name: {
                    "type": "NdArray",
                    "dataType": "float",
                    "axisNames": ["t", "y", "x"],
                    "shape": [len(times), 1, 1],
                    "values": [None if chance.random() < 0.02 else round(chance.uniform(0, 100), 1) for _ in times],
                }
                for name in NETATMO
            },
            "rodeo:wigosId": f"0-578-5-{number:06d}",
        }

    return json.dumps({"type": "CoverageCollection", "coverages": [coverage(n) for n in range(stations)]}).encode()


def ours(document: bytes) -> pa.Table:
    return read_coverages(document).rows


def with_pandas(document: bytes) -> pa.Table:
    frames = []
    for coverage in json.loads(document)["coverages"]:
        axes = coverage["domain"]["axes"]
        columns = {name: found["values"] for name, found in coverage["ranges"].items()}
        frame = pd.DataFrame(columns, dtype="float64")
        frame["datetime"] = pd.to_datetime(axes["t"]["values"])
        frame["lat"] = axes["y"]["values"][0]
        frame["lon"] = axes["x"]["values"][0]
        frame["station_id"] = coverage["rodeo:wigosId"]
        frames.append(frame)
    return pa.Table.from_pandas(pd.concat(frames, ignore_index=True), preserve_index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stations", type=int, default=10_000)
    parser.add_argument("--way", choices=["ours", "pandas"])
    parser.add_argument("--document", type=Path)
    given = parser.parse_args()
    if given.way:
        document = given.document.read_bytes()
        began = time.perf_counter()
        rows = (ours if given.way == "ours" else with_pandas)(document)
        seconds = time.perf_counter() - began
        sums = [float(np.nansum(rows[name].to_numpy())) for name in NETATMO]
        print(json.dumps([rows.num_rows, sums, seconds, peak_megabytes()]))
        return
    with TemporaryDirectory() as folder:
        place = Path(folder) / "answer.json"
        place.write_bytes(answer(given.stations))
        found = {}
        for way in ("ours", "pandas"):
            command = [sys.executable, __file__, "--way", way, "--document", str(place)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[way] = json.loads(done.stdout.splitlines()[-1])
        size = place.stat().st_size / 1e6
    (rows, sums, fast, small), (theirs, their_sums, slow, large) = found["ours"], found["pandas"]
    assert rows == theirs and np.allclose(sums, their_sums, rtol=1e-9)
    print(f"CoverageJSON: {given.stations:,} stations, {rows:,} rows, {size:.0f} MB")
    print(f"  ours    {fast:8.2f} s  {rows / fast:>12,.0f} rows/s  {small:6.0f} MB")
    print(f"  pandas  {slow:8.2f} s  {rows / slow:>12,.0f} rows/s  {large:6.0f} MB")
    print(f"  ours is {slow / fast:.1f} times as fast")


if __name__ == "__main__":
    main()
