"""Runs every benchmark of this folder, one after the other, and lets each print its own table.

`python benchmarks/run.py` takes all; `python benchmarks/run.py odb chain` takes those named. With `--small` each is so
small that its figures say nothing: it tells whether the benchmark still runs.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SMALL = {
    "archfx": "--readings 2000",
    "bookkeeping": "--days 1",
    "bridge": "--commands 5 --rows 10",
    "bufr": "--rows 500",
    "chain": "--stations 5 --hours 1",
    "client": "--rows 2000",
    "coverage_json": "--stations 50",
    "datastore": "--items 2000",
    "edr": "--rows 20000 --files 4 --runs 2",
    "files": "--stations 5 --hours 1 --rows 100000",
    "files_many": "--files 20 --mebibytes 1 --stations 5",
    "geoparquet": "--rows 2000 --runs 1",
    "heard": "--stations 500",
    "influx_client": "--rows 5000 --writes 20",
    "influxdb": "--rows 2000",
    "ioncannon": "--rows 200000",
    "latency": "--sources 1 --minutes 1",
    "ledger": "--rows 100",
    "logs": "--rows 2000",
    "memory": "--rows 2000",
    "mqtt": "--messages 50",
    "odb": "--rows 2000",
    "opening": "--rows 9600 --files 48",
    "quality": "--stations 100 --crowd 100",
    "quality_benchmark": "--seeds 1 --stations 60",
    "quality_quantities": "--seeds 1",
    "segments": "--rows 2000",
    "sensor_community": "--files 2 --rows 500",
    "stations": "--stations 500",
    "waiting": "--rows 2000",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="benchmarks; without any, all")
    parser.add_argument("--small", action="store_true", help="see that they run, no more")
    given = parser.parse_args()
    named = given.names or sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("run", "measure"))
    failed = []
    for name in named:
        sizes = SMALL.get(name, "").split() if given.small else []
        if subprocess.run([sys.executable, str(HERE / f"{name}.py"), *sizes]).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
