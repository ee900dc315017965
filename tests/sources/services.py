"""The outside services of examples/crowd.yaml on the loopback interface, as a program.

    python tests/sources/services.py                   until Ctrl-C
    python tests/sources/services.py ionbeam run ...   as long as the command runs; its exit code is the command's

What they serve is synthetic, and is there for 21 June 2026.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, date, datetime
from pathlib import Path

from acronet_service import Liguria
from meteotracker_service import MeteoTrackers, synthetic_drive
from netatmo_feed import Feed, write_archive
from netatmo_service import Weather
from sensor_community_service import Archive, LiveDocument, synthetic_day, synthetic_records

from ionbeam_dagster.testing.service import Service

DAY = date(2026, 6, 21)
HOURS = range(6, 13)
FIRST_PORT = 18401
DEMO = Path("demo")
CROWD = Path(__file__).parents[2] / "examples" / "crowd.yaml"


def services() -> Iterator[tuple[str, Service]]:
    """Each service with its name, on the port that examples/crowd.yaml knows."""
    noon = datetime(2026, 6, 21, 12, tzinfo=UTC)
    morning = noon.replace(hour=7, minute=10)
    drives = [
        synthetic_drive("64b7f0c2a1", "Genova LL1", morning, 80, 44.41, 8.93),
        synthetic_drive("64b7f0c2a2", "Bologna LL1", noon.replace(hour=9), 50, 44.49, 11.34),
    ]
    yield "sensor_community", Archive({f"{DAY}": synthetic_day(DAY, 200, 288)}, port=FIRST_PORT)
    yield "sensor_community_live", LiveDocument(synthetic_records(noon, 500), port=FIRST_PORT + 1)
    yield "meteotracker", MeteoTrackers(drives, port=FIRST_PORT + 2)
    yield "netatmo", Weather(port=FIRST_PORT + 3)
    yield "acronet", Liguria(port=FIRST_PORT + 4)


def main(command: list[str]) -> int:
    with ExitStack() as running:
        if _answers(FIRST_PORT):
            print("the services run already", flush=True)
        else:
            for name, service in services():
                running.enter_context(service)
                print(f"{name}: {service.url}", flush=True)
            print(f"netatmo_archive: {write_archive(DEMO / 'archives', DAY, HOURS)}", flush=True)
            journal = DEMO / "data-raw" / "netatmo_mqtt.journal"
            feed = running.enter_context(Feed(CROWD, "netatmo_mqtt", journal, DAY, HOURS, FIRST_PORT + 5))
            print(f"netatmo_mqtt: {feed.url}{feed.note}", flush=True)
        if command:
            return subprocess.run(command, check=False).returncode
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((Service.host, port)) == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
