"""A tick of automation with ever more windows that wait: half collected, and never to be built with gaps.

Ours: the ledger is asked for the windows whose answer can be another one by now. The alternative is to look at every
window that is due, tick by tick. Both are shown for a tick in which one of the windows did change.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.windows import HOUR, Window
from ionbeam_dagster.pipeline.agenda import assess, due_of
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.recovery import open_platform

START, NOW = datetime(2016, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
NAME = "ioncannon"
TICKS, ASKED_ONE_BY_ONE = 20, 300


def collect_a_part(platform: Platform, number: int, time: int = 0) -> None:
    window = Window(START + number * HOUR, START + (number + 1) * HOUR)
    id, collected = f"{number} {time}", Window(window.start, window.start + HOUR / 2)
    claim = Claim(id, NAME, NAME, collected, platform.ledger.arrival_of(id), 10, arrived_at=NOW)
    platform.ledger.record_claim(claim, platform.metadata(platform.source(NAME)), {window: 10})


def measure(platform: Platform, sizes: list[int], label: str) -> None:
    done = 0
    for size in sizes:
        for number in range(done, size):
            collect_a_part(platform, number)
        done = size
        begun = time.perf_counter()
        due = platform.ledger.due(NAME)
        for window in due[:ASKED_ONE_BY_ONE]:
            assess(platform, platform.dataset(NAME), window, NOW)
        every = (time.perf_counter() - begun) * len(due) / min(len(due), ASKED_ONE_BY_ONE)
        due_of(platform, "build", NAME, NOW)
        spent = 0.0
        for tick in range(TICKS):
            collect_a_part(platform, tick, time=size)
            begun = time.perf_counter()
            due_of(platform, "build", NAME, NOW)
            spent += time.perf_counter() - begun
        ours = spent / TICKS
        print(f"  {label:<8}{size:>9,}{ours * 1000:>14.2f}{every * 1000:>16.1f}{every / ours:>10,.0f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 1_000, 10_000], help="windows that wait")
    sizes = parser.parse_args().rows
    from backends import start_redis

    print("a tick with waiting windows: milliseconds")
    print(f"  {'ledger':<8}{'waiting':>9}{'ours':>14}{'every window':>16}{'ratio':>10}")
    with TemporaryDirectory() as folder:
        place = Path(folder)
        server = start_redis(place)
        try:
            for label, section in (("sqlite", ""), ("redis", f"redis: {{redis_url: '{server.url}'}}\n")):
                config = place / f"{label}.yaml"
                config.write_text(
                    f"sources:\n  {NAME}: {{start: 2016-01-01, aggregation_span: PT1H, allow_incomplete: never}}\n"
                    f"state_path: {place / label}\n{section}"
                )
                measure(open_platform(IonbeamConfig.load(config)), sizes, label)
        finally:
            server.process.stop()


if __name__ == "__main__":
    main()
