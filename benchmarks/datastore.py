"""Data of the Restream service, item by item and into a CSV file: our client beside `restreamsolutions` 0.1.0.

``python benchmarks/datastore.py`` serves one-second items from a process of its own, and prints both sides, each in a
process of its own; the other package in an environment of its own, made by uv or else by venv and pip. `--items` is
their number for ours (10,000,000 as in the promise of flat memory); the other reads a tenth, and saves a hundredth, for
it is slower and holds all rows of a CSV file. Where other work goes on beside it, the processor's time says more than
the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import peak_megabytes

PEER = "restreamsolutions==0.1.0"


def serve(items: int) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "client_datastore"))
    from long_service import LongService

    with LongService(items) as service:
        print(service.url, flush=True)
        sys.stdin.read()


def measured(side: str, what: str) -> None:
    if side == "ours":
        from ionbeam_client.datastore import Site
    else:
        from restreamsolutions import Site
    begun, used = time.perf_counter(), time.process_time()
    data = Site(id=1).get_data()
    if what == "items":
        count = sum(1 for _ in data.data_fetcher)
    else:
        with tempfile.TemporaryDirectory() as folder:
            data.save(f"{folder}/data.csv")
            with Path(folder, "data.csv").open("rb") as file:
                count = sum(1 for _ in file) - 1
    seconds, processor = time.perf_counter() - begun, time.process_time() - used
    print(json.dumps({"count": count, "seconds": seconds, "processor": processor, "peak": peak_megabytes()}))


def peer_python(folder: str) -> str | None:
    """The Python of an environment with the other package; None where it cannot be had."""
    python = f"{folder}/bin/python"
    if uv := shutil.which("uv"):
        make = [uv, "venv", "--quiet", "--python", sys.executable, folder]
        install = [uv, "pip", "install", "-p", python]
    else:
        make, install = [sys.executable, "-m", "venv", folder], [python, "-m", "pip", "install"]
    subprocess.run(make, check=True)
    done = subprocess.run([*install, "--quiet", PEER], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"{PEER} cannot be had, so ours stands alone: {done.stderr.strip()[-200:]}")
        return None
    return python


def told(python: str, side: str, what: str, items: int) -> dict[str, float]:
    command = [__file__, "--side", side, "--what", what]
    with subprocess.Popen(
        [sys.executable, __file__, "--side", "serve", "--items", str(items)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        environment = os.environ | {
            "RESTREAM_HOST": server.stdout.readline().strip(), "TALLY_AUTH_TOKEN": "any", "RESTREAM_AUTH_TOKEN": "any",
        }  # fmt: skip
        result = json.loads(subprocess.check_output([python, *command], env=environment, text=True))
        server.terminate()
    assert result["count"] == items, f"{side}: {result['count']} of {items}"
    return result  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--side", choices=["serve", "ours", "peer"])
    parser.add_argument("--what", choices=["items", "csv"])
    given = parser.parse_args()
    if given.side == "serve":
        serve(given.items)
    elif given.side:
        measured(given.side, given.what)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _all(given.items, peer_python(folder))


def _all(items: int, peer: str | None) -> None:
    print(f"Restream data over HTTP, {items:,} one-second items of five fields")
    print(f"{'':<32}{'items':>12}{'seconds':>10}{'processor':>11}{'items/s':>12}{'peak MB':>10}")
    for what, name, fewer in (("items", "item by item", 10), ("csv", "save as CSV", 100)):
        sides = [("ours", sys.executable, items)] + [("peer", peer, max(items // fewer, 1))] * (peer is not None)
        speeds = {}
        for side, python, count in sides:
            one = told(str(python), side, what, count)
            speeds[side] = count / one["seconds"], count / one["processor"]
            label = f"{name}, {'ours' if side == 'ours' else 'restreamsolutions'}"
            times = f"{one['seconds']:>10.1f}{one['processor']:>11.1f}"
            print(f"{label:<32}{count:>12,}{times}{speeds[side][0]:>12,.0f}{one['peak']:>10.0f}")
        if "peer" in speeds:
            by_clock, by_processor = (own / other for own, other in zip(speeds["ours"], speeds["peer"], strict=True))
            print(f"  ours is {by_clock:.1f} times as fast, {by_processor:.1f} times by the processor's time")


if __name__ == "__main__":
    main()
