"""The book-keeping of a month of 5-minute windows of one source: the ledger's, and Dagster's own.

A network of one station, so that nearly all of the work is book-keeping, is collected in 5-minute windows and built
hourly: by the plain pipeline, and in Dagster's range runs. Prints what the ledger took and holds, and what Dagster's
adds for each partition in a range run, against the named alternative: a run for each partition, of which some are done.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

START = datetime(2026, 1, 1, tzinfo=UTC)
FIVE, HOUR = timedelta(minutes=5), timedelta(hours=1)
ALONE = 24
"""Windows that are done in runs of their own."""
CONFIG = """
state_path: state
sources:
  scheduler: {windows: [{source_name: ioncannon, window_size: PT5M}]}
  ioncannon: {num_stations: 1, start: 2026-01-01, aggregation_span: PT1H, exports: []}
"""


class Timed:
    """A ledger, or a subject of it, that counts the calls of its methods, and the time that they take."""

    def __init__(self, ledger, counts=None) -> None:
        self._ledger = ledger
        self.counts = {"seconds": 0.0, "calls": 0} if counts is None else counts

    def __getattr__(self, name: str):
        member = getattr(self._ledger, name)
        if not callable(member):
            return Timed(member, self.counts)

        def timed(*given, **named):
            begun = time.perf_counter()
            try:
                return member(*given, **named)
            finally:
                self.counts["seconds"] += time.perf_counter() - begun
                self.counts["calls"] += 1

        return timed


def opened():
    from ionbeam_dagster.config import IonbeamConfig
    from ionbeam_dagster.pipeline.recovery import open_platform

    Path("config.yaml").write_text(CONFIG)
    platform = open_platform(IonbeamConfig.load(Path("config.yaml")))
    platform.ledger = Timed(platform.ledger)
    return platform


def rows_of(database: Path) -> dict[str, int]:
    with sqlite3.connect(database) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def plain(end: datetime) -> dict:
    from ionbeam_dagster.domain.windows import windows_between
    from ionbeam_dagster.pipeline.agenda import assess
    from ionbeam_dagster.pipeline.build import build
    from ionbeam_dagster.pipeline.collect import collect
    from ionbeam_dagster.pipeline.ingest import ingest

    platform, now = opened(), datetime.now(UTC)
    begun = time.perf_counter()
    for window in windows_between(START, end, FIVE):
        collect(platform, platform.source("ioncannon"), window, now)
        ingest(platform, platform.source("ioncannon"), window)
    hours = list(windows_between(START, end, HOUR))
    for window in hours:
        build(platform, platform.dataset("ioncannon"), window, now)
    seconds = time.perf_counter() - begun
    counts = dict(platform.ledger.counts)
    begun = time.perf_counter()
    for window in hours[-100:]:
        assess(platform, platform.dataset("ioncannon"), window, now)
    asked = (time.perf_counter() - begun) / len(hours[-100:])
    begun = time.perf_counter()
    platform.ledger.claims_between("ioncannon", START, end)
    database = Path("state/ledger.sqlite")
    return {
        "seconds": seconds, "ledger": counts["seconds"], "calls": counts["calls"], "assess": asked,
        "range": time.perf_counter() - begun, "rows": rows_of(database), "megabytes": database.stat().st_size / 1e6,
    }  # fmt: skip


def in_dagster(end: datetime, alone: bool) -> dict:
    from ionbeam_dagster.domain.windows import windows_between
    from ionbeam_dagster.orchestration.home import dagster_at, ensure_home
    from ionbeam_dagster.orchestration.runs import run_range

    home = Path("dagster").absolute()
    ensure_home(home)
    os.environ["DAGSTER_HOME"] = str(home)
    platform = opened()
    with dagster_at(home) as instance:
        begun = time.perf_counter()
        for part in windows_between(START, end, FIVE if alone else end - START):
            run_range(platform, "ioncannon", max(part.start, START), min(part.end, end), instance)
        seconds = time.perf_counter() - begun
        partitions = 2 * ((end - START) // FIVE) + (end - START) // HOUR
        runs = instance.get_runs_count()
    events = sum(rows_of(path).get("event_logs", 0) for path in home.rglob("*.db"))
    return {"seconds": seconds, "partitions": partitions, "runs": runs, "events": events, "megabytes": megabytes(home)}


def measured(side: str, end: datetime) -> None:
    done = plain(end) if side == "plain" else in_dagster(end, alone=side == "alone")
    print(json.dumps(done))


def ask(side: str, hours: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--side", side, "--hours", str(hours)]
        done = subprocess.run(
            command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
        )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--side", choices=["plain", "range", "alone"])
    parser.add_argument("--hours", type=int)
    given = parser.parse_args()
    if given.side:
        measured(given.side, START + timedelta(hours=given.hours))
        return
    hours = given.days * 24
    windows = hours * 12
    print(f"bookkeeping: {given.days} days, {windows:,} windows of 5 minutes, {hours} dataset windows")
    kept = ask("plain", hours)
    rows = sum(kept["rows"].values())
    print(
        f"  ledger   {kept['ledger']:7.1f} s of {kept['seconds']:.1f} s, {kept['calls']:,} calls, "
        f"{kept['ledger'] / windows * 1000:.2f} ms and {rows / windows:.1f} rows a window; {rows:,} rows, "
        f"{kept['megabytes']:.1f} MB; a window assessed in {kept['assess'] * 1000:.1f} ms, all claims of the range "
        f"read in {kept['range'] * 1000:.0f} ms"
    )
    ranged, alone = ask("range", hours), ask("alone", ALONE // 12)
    added = (ranged["seconds"] - kept["seconds"]) / ranged["partitions"]
    single = (alone["seconds"] - kept["seconds"] * (ALONE / windows)) / alone["partitions"]
    for name, one, each in (("range", ranged, added), ("one each", alone, single)):
        print(
            f"  {name:8} {one['seconds']:7.1f} s, {one['runs']:,} runs of {one['partitions']:,} partitions, "
            f"{one['events']:,} events, {one['megabytes']:.1f} MB; Dagster adds {each * 1000:.0f} ms, "
            f"{one['events'] / one['partitions']:.1f} events and {one['megabytes'] / one['partitions'] * 1000:.1f} kB "
            "a partition"
        )
    print(f"  range runs add {single / added:.1f} times less time for each partition than runs of their own")


if __name__ == "__main__":
    main()
