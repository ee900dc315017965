"""From the end of a window to its exported file, ten sources of one-minute windows beside each other.

Ours: `ionbeam worker`. The alternative is Dagster's daemon alone (`dagster dev` on the same definitions). Each is given
`--minutes` of windows after a minute to begin in; the last line is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ionbeam_dagster.config import CONFIG_VARIABLE, IonbeamConfig
from ionbeam_dagster.orchestration.home import ensure_home
from ionbeam_dagster.pipeline.recovery import open_platform

SOURCE = (
    "  s{n}: {{num_stations: 100, measurement_frequency_minutes: 1, type: ioncannon, start: {start}, "
    "aggregation_span: PT1M, exports: [odb]}}"
)
WINDOW = "{{source_name: s{n}, window_size: PT1M}}"


def configuration(folder: Path, sources: int) -> Path:
    start = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:00Z}"
    windows = ", ".join(WINDOW.format(n=n) for n in range(sources))
    blocks = "\n".join(SOURCE.format(n=n, start=start) for n in range(sources))
    path = folder / "network.yaml"
    head = "state_path: state\nautomation: {interval: 5, lookback: PT10M}\nsources:\n"
    path.write_text(f"{head}  scheduler: {{windows: [{windows}]}}\n{blocks}\n")
    return path


def lateness(command: list[str], sources: int, minutes: int) -> list[float]:
    """Seconds from the end of each window to its file."""
    bin = Path(sys.executable).parent
    with TemporaryDirectory() as name:
        folder = Path(name)
        config = configuration(folder, sources)
        home = ensure_home(folder / "dagster")
        environment = os.environ | {CONFIG_VARIABLE: str(config), "DAGSTER_HOME": str(home)}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(bin / command[0]), *command[1:]], cwd=folder, env=environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            begun = datetime.now(UTC) + timedelta(minutes=1)
            until = begun + timedelta(minutes=minutes)
            time.sleep((until - datetime.now(UTC)).total_seconds() + 60)  # the last windows have a minute, too
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        os.chdir(folder)
        platform = open_platform(IonbeamConfig.load(config))
        found = []
        for n in range(sources):
            for one in platform.ledger.revisions(f"s{n}", begun, until):
                made = platform.ledger.export(f"s{n}", one.revision.window, "odb")
                file = platform.files.found(made.path) if made and made.path else None
                if file is not None and one.revision.window.end < until:
                    found.append((file.modified - one.revision.window.end).total_seconds())
        os.chdir("/")
        return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=10)
    parser.add_argument("--minutes", type=int, default=4)
    given = parser.parse_args()
    sides = {
        "ionbeam worker": ["ionbeam", "worker"],
        "dagster daemon": ["dagster", "dev", "-m", "ionbeam_dagster.definitions", "--port", "23998"],
    }
    print(f"\nwindow end to exported file, {given.sources} sources of one-minute windows, {given.minutes} minutes")
    print(f"  {'':<16}{'windows':>9}{'p50':>9}{'p95':>9}{'worst':>9}")
    medians = {}
    for name, command in sides.items():
        found = lateness(command, given.sources, given.minutes)
        wanted = given.sources * given.minutes
        if not found:
            print(f"  {name:<16}{f'0 of {wanted}':>9}")
            continue
        medians[name] = median(found)
        p95 = found[int(len(found) * 0.95) - 1]
        print(
            f"  {name:<16}{f'{len(found)}/{wanted}':>9}{medians[name]:>8.1f}s{p95:>8.1f}s{found[-1]:>8.1f}s", flush=True
        )
    if len(medians) == 2:
        ours, theirs = medians.values()
        print(f"  the worker is {theirs / ours:.1f} times as fast")


if __name__ == "__main__":
    main()
