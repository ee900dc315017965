"""Peak memory of ingest, build and export as the window grows: it should not grow with it.

A window of a synthetic network whose stations report every minute is collected into one raw partition of 1, 5 and 20
million rows; each step then runs in a process of its own. The windows grow in time: an hour, six, a day, of 14,000 to
17,000 stations. With ``--window PT1H`` they grow in stations. The alternative, in the same run, is a window read whole
into one Polars frame.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from measure import peak_megabytes

START = datetime(2026, 6, 21, tzinfo=UTC)
LENGTHS = {"PT1H": 1, "PT6H": 6, "P1D": 24}
NOW = datetime(2026, 7, 1, tzinfo=UTC)
CONFIG = """
sources:
  scheduler: {{windows: [{{source_name: ioncannon, window_size: {window}}}]}}
  ioncannon: {{num_stations: {stations}, measurement_frequency_minutes: 1, start: 2026-06-21,
    aggregation_span: {window}}}
"""
STEPS = ("collect", "ingest", "build", "odb", "pygeoapi", "in memory")


def step(name: str, rows: int, length: str) -> None:
    from ionbeam_dagster.config import IonbeamConfig
    from ionbeam_dagster.domain.windows import Window
    from ionbeam_dagster.pipeline.build import build
    from ionbeam_dagster.pipeline.collect import collect
    from ionbeam_dagster.pipeline.export import export
    from ionbeam_dagster.pipeline.ingest import ingest
    from ionbeam_dagster.pipeline.recovery import open_platform

    Path("config.yaml").write_text(CONFIG.format(stations=rows // (60 * LENGTHS[length]), window=length))
    platform = open_platform(IonbeamConfig.load(Path("config.yaml")))
    window = Window(START, START + timedelta(hours=LENGTHS[length]))
    begun = time.perf_counter()
    match name:
        case "collect":
            collect(platform, platform.source("ioncannon"), window, NOW)
        case "ingest":
            ingest(platform, platform.source("ioncannon"), window)
        case "build":
            build(platform, platform.dataset("ioncannon"), window, NOW)
        case "in memory":
            import polars as pl

            latest = platform.ledger.latest_revision("ioncannon", window)
            pl.read_parquet(latest.path).sort("station_id", "datetime")
        case format:
            export(platform, platform.dataset("ioncannon"), platform.config.window_exporters[format], window)
    seconds = time.perf_counter() - begun
    print(json.dumps([seconds, peak_megabytes()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000, 20_000_000])
    parser.add_argument("--window", choices=LENGTHS, help="one length of all windows, which then grow in stations")
    parser.add_argument("--step", choices=STEPS)
    given = parser.parse_args()
    if given.step:
        step(given.step, given.rows[0], given.window)
        return
    print("memory: peak MB (seconds) of each step, a process each")
    print("  rows        " + "".join(f"{name:>18}" for name in STEPS))
    for rows in given.rows:
        length = given.window or next((one for one, hours in LENGTHS.items() if rows <= hours * 1_000_000), "P1D")
        cells = []
        with tempfile.TemporaryDirectory() as folder:
            for name in STEPS:
                command = [sys.executable, __file__, "--rows", str(rows), "--window", length, "--step", name]
                done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
                seconds, peak = json.loads(done.stdout.splitlines()[-1])
                cells.append(f"{peak:8.0f} ({seconds:6.1f})")
        print(f"  {rows:<12,}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
