"""A day of Sensor.Community's archive: our source against a plain download of the same files.

``python benchmarks/sensor_community.py`` serves ``--files`` files of ``--rows`` rows each from a process of its own,
and prints both sides, each in a process of its own with five connections. The plain side makes nothing of the files: it
says what the server can give at best. Ours also lists the day, keeps every file until the day is complete, and makes
Arrow batches of the rows.

It does so twice: with a server that takes ``--latency`` seconds over each file (0.02 by default, which is a near one on
the internet), where both should take the same time, for they wait for the server; and with one that takes none, where
both only use up the processor, which they share with the server. ``--latency 0`` does the second alone.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from measure import peak_megabytes

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "sources"))

DAY = date(2026, 6, 21)
CONNECTIONS = 5


def serve(files: int, rows: int, latency: float) -> None:
    from sensor_community_service import Archive, synthetic_day

    from ionbeam_dagster.testing.service import slow

    with Archive({f"{DAY}": synthetic_day(DAY, files, rows)}) as service:
        if latency:
            service.break_("_sensor_", slow(latency), times=math.inf)
        print(service.url, flush=True)
        sys.stdin.read()


def ours(url: str) -> int:
    from ionbeam_dagster.domain.windows import Window
    from ionbeam_dagster.sources.sensor_community.archive import Archive, ArchiveConfig

    start = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    with tempfile.TemporaryDirectory() as folder:
        config = ArchiveConfig(base_url=url, data_path=folder, concurrency=CONNECTIONS)
        batches = Archive("sensor_community", config).fetch(Window(start, start + timedelta(days=1)))
        return sum(batch.num_rows for batch in batches)


def plain(url: str) -> int:
    from ionbeam_dagster.sources.http import HttpClient
    from ionbeam_dagster.sources.sensor_community.listing import find_day

    place, files = find_day(HttpClient(url), DAY)
    names = [f"{place}{file.stem}{file.suffix}" for file in files.values()]

    def some(part: list[str]) -> int:
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        lines = 0
        for name in part:
            connection.request("GET", name)
            lines += connection.getresponse().read().count(b"\n") - 1
        return lines

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(some, [names[first::CONNECTIONS] for first in range(CONNECTIONS)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=55)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds that the server takes over a file")
    parser.add_argument("--side", choices=["serve", "ours", "plain"])
    parser.add_argument("--url", default="")
    given = parser.parse_args()
    if given.side == "serve":
        serve(given.files, given.rows, given.latency)
    elif given.side:
        begun = time.perf_counter()
        rows = {"ours": ours, "plain": plain}[given.side](given.url)
        print(json.dumps({"rows": rows, "seconds": time.perf_counter() - begun, "peak": peak_megabytes()}))
    else:
        for latency in sorted({given.latency, 0.0}, reverse=True):
            _both(given.files, given.rows, latency)


def _both(files: int, rows: int, latency: float) -> None:
    command = [sys.executable, __file__, "--files", str(files), "--rows", str(rows), "--latency", str(latency)]
    with subprocess.Popen(
        [*command, "--side", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        told = {
            side: json.loads(subprocess.check_output([*command, "--side", side, "--url", url], text=True))
            for side in ("plain", "ours")
        }
        server.terminate()
    print(f"Sensor.Community, a day of {files:,} files, from a server that takes {1000 * latency:g} ms over each")
    print(f"{'':<22}{'rows':>12}{'seconds':>10}{'files/s':>10}{'peak MB':>10}")
    for side, name in (("plain", "plain download"), ("ours", "ours, to Arrow")):
        one = told[side]
        speed = files / one["seconds"]
        print(f"{name:<22}{one['rows']:>12,}{one['seconds']:>10.2f}{speed:>10,.0f}{one['peak']:>10.0f}")
    print(f"ours takes {told['ours']['seconds'] / told['plain']['seconds']:.2f} times as long as the plain download\n")


if __name__ == "__main__":
    main()
