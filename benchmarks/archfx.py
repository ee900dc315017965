"""Readings a second into a streamer report, against the vendor's package `archfx-cloud`, whose bytes are the same.

``python benchmarks/archfx.py`` encodes 100,000 readings (`FromReadings`) that are already made, and makes them, three
times each with ours and, in its own environment, with the vendor's; the best counts, of processor time and of the
clock. Then it decodes ours.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from measure import peak_megabytes

START = datetime(2021, 1, 20, tzinfo=UTC)


def measured(package: str, count: int) -> dict[str, object]:
    if package == "vendor":
        from archfx_cloud.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport
        from archfx_cloud.reports.report import ArchFXDataPoint
    else:
        from ionbeam_client.archfx.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport
        from ionbeam_client.archfx.reports.report import ArchFXDataPoint
    made, encoded, clock = [], [], []
    for _ in range(3):
        began = time.process_time()
        readings = [
            ArchFXDataPoint(
                timestamp=START + timedelta(milliseconds=100 * number),
                stream="0001-5090",
                value=number / 8,
                summary_data={"foo": 5, "bar": "foobar"},
                reading_id=1000 + number,
            )
            for number in range(count)
        ]
        made.append(time.process_time() - began)
        began, at = time.process_time(), time.perf_counter()
        report = ArchFXFlexibleDictionaryReport.FromReadings("d--1234", readings, sent_timestamp=START)
        encoded.append(time.process_time() - began)
        clock.append(time.perf_counter() - at)
    peak = peak_megabytes()
    began = time.process_time()
    assert len(report.visible_data) == count
    return {
        "made": count / min(made),
        "encoded": count / min(encoded),
        "by the clock": count / min(clock),
        "both": count / (min(made) + min(encoded)),
        "decoded": count / (time.process_time() - began),
        "bytes": hashlib.sha256(report.encode()).hexdigest(),
        "megabytes": len(report.encode()) / 1e6,
        "peak": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=100_000)
    parser.add_argument("--only", choices=["ours", "vendor"])
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measured(given.only, given.readings)))
        return
    tests = Path(__file__).parents[1] / "tests"
    sys.path[:0] = [str(tests), str(tests / "client_archfx")]
    from archfx_oracle import vendors_python

    found = {}
    for package, python in (("ours", sys.executable), ("vendor", vendors_python())):
        command = [python, __file__, "--only", package, "--readings", str(given.readings)]
        found[package] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        kinds = "made", "encoded", "by the clock", "both"
        rates = "  ".join(f"{name} {found[package][name]:>9,.0f}/s" for name in kinds)
        print(f"  {package:<7}{given.readings:>9,} readings  {rates}  peak {found[package]['peak']:.0f} MB", flush=True)
    print(f"  ours           decoded {found['ours']['decoded']:>9,.0f}/s, {found['ours']['megabytes']:.1f} MB")
    assert found["ours"]["bytes"] == found["vendor"]["bytes"]
    encoded, both = (found["ours"][name] / found["vendor"][name] for name in ("encoded", "both"))
    print(f"ArchFX: ours encodes {encoded:.1f} times as many; with making them {both:.1f} times")


if __name__ == "__main__":
    main()
