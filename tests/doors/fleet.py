"""A fleet of devices behind bad lines: what each measured, and how its reports reach a door that dies.

Belongs here: the truth, the reports and their way. Does not belong here: what has to come of it (test_door_fleet.py).
"""

from __future__ import annotations

import random
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import requests
from door_samples import TEMPERATURE, TOKEN, Receiving

from ionbeam_client.archfx.api.connection import Api
from ionbeam_client.archfx.api.exceptions import RestBaseException
from ionbeam_client.archfx.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport
from ionbeam_client.archfx.reports.report import ArchFXDataPoint
from ionbeam_client.archfx.utils.slugs import ArchFxDeviceSlug

AT_ONCE = 12


class DyingDoor(Receiving):
    """A door in a process of its own that dies `deaths` times, with a chance of `dies` at each report, and is started
    again by whoever finds it dead."""

    def __init__(self, folder: Path, deaths: int, dies: float) -> None:
        super().__init__(folder)
        self._left, self._dies = deaths, dies
        self.died = 0
        self._restarting = threading.Lock()

    def command(self):
        self._environment["DIES"] = str(self._dies if self.died < self._left else 0.0)
        return [sys.executable, Path(__file__).with_name("dying_door.py"), "receive", "--port", str(self.port)]

    def __exit__(self, *_):
        self.kill()

    def revive(self) -> None:
        with self._restarting:
            if self.process.poll() is not None:
                self.died += 1
                self.start()


@dataclass
class Fleet:
    """Devices 1 to `devices` that measure `readings` times, every `step` from `start` on, and report `a_report` at a
    time."""

    devices: int
    readings: int
    a_report: int
    start: datetime
    step: timedelta

    def truth(self) -> pl.DataFrame:
        device = pl.Series("device", range(1, self.devices + 1)).cast(pl.Int64)
        number = pl.Series("number", range(1, self.readings + 1)).cast(pl.Int64)
        every = device.to_frame().join(number.to_frame(), how="cross")
        slugs = pl.DataFrame({"device": device, "station_id": [str(ArchFxDeviceSlug(one)) for one in device]})
        return (
            every.join(slugs, on="device")
            .select(
                "station_id",
                (pl.lit(self.start) + pl.col("number") * self.step).dt.cast_time_unit("us").alias("datetime"),
                (pl.col("device") + pl.col("number") / 1000).alias(TEMPERATURE),
            )
            .sort("station_id", "datetime")
        )

    def report(self, device: int, numbers: range) -> ArchFXFlexibleDictionaryReport:
        readings = [
            ArchFXDataPoint(self.start + n * self.step, 0x5001, device + n / 1000, reading_id=n) for n in numbers
        ]
        return ArchFXFlexibleDictionaryReport.FromReadings(device, readings, streamer=0x100)

    def sendings(self) -> list[tuple[int, range]]:
        """What is sent, in the order of sending: reports that overlap the one before, some twice, some out of order,
        some at the end of all."""
        todo = []
        for device in range(1, self.devices + 1):
            for first in range(1, self.readings + 1, self.a_report):
                begin = max(1, first - random.randrange(self.a_report))
                numbers = range(begin, min(first + self.a_report, self.readings + 1))
                late = random.random() < 0.1
                when = self.readings if late else first + random.gauss(0, 2 * self.a_report)
                todo += [(when + n * random.random() * self.a_report, device, numbers) for n in range(self._times())]
        return [(device, numbers) for _, device, numbers in sorted(todo, key=lambda one: one[0])]

    def _times(self) -> int:
        return 2 if random.random() < 0.2 else 1

    def send_all(self, door: DyingDoor) -> int:
        """Send all until it is answered; returns the sum of the answers' counts."""
        own = threading.local()

        def deliver(sending: tuple[int, range]) -> int:
            if not hasattr(own, "api"):
                own.api = Api(door.url)
                own.api.set_token(TOKEN, token_type="token")
            report = self.report(*sending)
            if random.random() < 0.05:
                into_the_void(door.url, report.encode())
            while True:
                try:
                    return report.upload(own.api)
                except RestBaseException:
                    door.revive()

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return sum(pool.map(deliver, self.sendings()))


def into_the_void(url: str, body: bytes) -> None:
    """Send a report, and be gone before it is answered."""
    made = requests.Request(
        "POST", f"{url}/api/v1/streamer/report/", files={"file": ("report.mp", body)},
        headers={"Authorization": f"token {TOKEN}"},
    ).prepare()  # fmt: skip
    address = urlsplit(url)
    lines = [f"POST {made.path_url} HTTP/1.1", f"Host: {address.netloc}"]
    lines += [f"{name}: {value}" for name, value in made.headers.items()]
    with suppress(OSError), socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + made.body)
