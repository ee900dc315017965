"""The whole chain on one day of a network: the plain pipeline against the same work through Dagster.

1,000 stations every 5 minutes (288,000 rows) are collected in 288 windows, made into 24 hourly datasets and exported as
ODB-2 and GeoParquet. Prints seconds, those of the processor, rows per second, peak memory, the ratios, and what Dagster
adds for each window.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from measure import peak_megabytes

START = datetime(2026, 6, 21, tzinfo=UTC)
NOW = datetime(2026, 7, 1, tzinfo=UTC)
CONFIG = """
sources:
  scheduler: {{windows: [{{source_name: ioncannon, window_size: PT5M}}]}}
  ioncannon: {{num_stations: {stations}, start: 2026-06-21, aggregation_span: PT1H}}
"""


def plain(platform, end: datetime) -> None:
    from ionbeam_dagster.domain.windows import windows_between
    from ionbeam_dagster.pipeline.build import build
    from ionbeam_dagster.pipeline.collect import collect
    from ionbeam_dagster.pipeline.export import export
    from ionbeam_dagster.pipeline.ingest import ingest

    for window in windows_between(START, end, timedelta(minutes=5)):
        collect(platform, platform.source("ioncannon"), window, NOW)
        ingest(platform, platform.source("ioncannon"), window)
    for window in windows_between(START, end, timedelta(hours=1)):
        build(platform, platform.dataset("ioncannon"), window, NOW)
        for format in ("odb", "pygeoapi"):
            export(platform, platform.dataset("ioncannon"), platform.config.window_exporters[format], window)


def through_dagster(platform, end: datetime) -> None:
    from ionbeam_dagster.orchestration.home import dagster_at, ensure_home
    from ionbeam_dagster.orchestration.runs import run_range

    home = Path("dagster").absolute()
    ensure_home(home)
    os.environ["DAGSTER_HOME"] = str(home)
    with dagster_at(home) as instance:
        run_range(platform, "ioncannon", START, end, instance)


def measured(side: str, stations: int, hours: int) -> None:
    from ionbeam_dagster.config import IonbeamConfig
    from ionbeam_dagster.pipeline.recovery import open_platform

    Path("config.yaml").write_text(CONFIG.format(stations=stations))
    platform = open_platform(IonbeamConfig.load(Path("config.yaml")))
    end = START + timedelta(hours=hours)
    begun, worked = time.perf_counter(), time.process_time()
    {"plain": plain, "dagster": through_dagster}[side](platform, end)
    seconds, worked = time.perf_counter() - begun, time.process_time() - worked
    rows = sum(built.facts.rows for built in platform.ledger.revisions("ioncannon", START, end))
    print(json.dumps([seconds, worked, rows, peak_megabytes()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stations", type=int, default=1000)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--side", choices=["plain", "dagster"])
    given = parser.parse_args()
    if given.side:
        measured(given.side, given.stations, given.hours)
        return
    took = {}
    print(f"chain: {given.stations} stations x 5 minutes x {given.hours} h, {given.hours * 12} windows")
    for side in ("plain", "dagster"):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--side", side, "--stations", given.stations, "--hours", given.hours]
            done = subprocess.run(
                [str(part) for part in command], cwd=folder, check=True, stdout=subprocess.PIPE, text=True,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        seconds, worked, rows, peak = json.loads(done.stdout.splitlines()[-1])
        took[side] = seconds, worked
        print(f"  {side:8} {seconds:7.1f} s, {worked:.1f} s of work, {rows / seconds:,.0f} rows/s, peak {peak:.0f} MB")
    windows = given.hours * 12 + given.hours * 3
    for number, of in enumerate(("as long", "the processor's time")):
        ours, alone = took["dagster"][number], took["plain"][number]
        print(
            f"  Dagster takes {ours / alone:.1f} times {of}: {(ours - alone) / windows * 1000:.0f} ms for each window"
        )


if __name__ == "__main__":
    main()
