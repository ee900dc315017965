"""Netatmo's messages of one day for the demonstration: published by a real Mosquitto, and packed as an archive.

Belongs here: the messages, and starting what carries them. Does not belong here: any test.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from socket import create_connection
from tempfile import TemporaryDirectory
from typing import Any, Self

import paho.mqtt.client as paho
from esoh_messages import message
from paho.mqtt.enums import CallbackAPIVersion

from ionbeam_dagster.sources.netatmo.journal import Journal, Writer

STATIONS = 60
EVERY = timedelta(minutes=10)
HUMIDITY = "relative_humidity:2.0:point:PT0S"
GOOD, POOR = 1, 3


def messages(day: date, hours: range, prefix: str, west: float, south: float) -> Iterator[dict[str, Any]]:
    """Temperature and humidity of stations on a grid, every ten minutes."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    moment = midnight + timedelta(hours=hours.start)
    while moment < midnight + timedelta(hours=hours.stop):
        warm = 12 + 6 * math.sin(((moment - midnight) / timedelta(hours=1) - 9) / 24 * 2 * math.pi)
        for number in range(STATIONS):
            place = (f"{south + number // 10 * 0.08:.4f}", round(west + number % 10 * 0.12, 4))
            station, published = f"{prefix}-{number:04d}", moment + timedelta(minutes=2)
            value = round(warm + number % 7 / 4, 1)
            yield message(station, moment, value, published, place=place)
            yield message(station, moment, round(90 - 2 * warm), published, parameter=HUMIDITY, place=place)
        moment += EVERY


def codes(given: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same observations with their quality codes, two hours later: of one station in ten they are poor."""
    for one in given:
        told = one["properties"]
        code = POOR if told["platform"].endswith("7") else GOOD
        published = datetime.fromisoformat(told["pubtime"]) + timedelta(hours=2)
        yield {**one, "properties": {**told, "quality_code": code, "pubtime": published.isoformat()}}


def write_archive(folder: Path, day: date, hours: range) -> Path:
    """An archive of Dutch stations, a member an hour; one that is there already stays as it is."""
    path = folder / f"netatmo-raw-{day:%Y%m%d}{hours.start:02d}-{day:%Y%m%d}{hours.stop:02d}.tar.gz"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for hour in hours:
            lines = [json.dumps(one) for one in messages(day, range(hour, hour + 1), "0-528-5", 4.6, 51.9)]
            content = "\n".join([*lines, ""]).encode()
            entry = tarfile.TarInfo(f"netatmo-raw/nl/{day:%Y%m%d}{hour:02d}.jsonl")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


class Feed:
    """A Mosquitto that has published the messages of a day to the `ionbeam mqtt` of a configuration; a context manager.

    Without Mosquitto on the machine it writes the journal itself: `note` says so.
    """

    def __init__(self, config: Path, source: str, journal: Path, day: date, hours: range, port: int) -> None:
        self._command = [str(Path(sys.executable).with_name("ionbeam")), "--config", str(config), "mqtt", source]
        self._journal, self._port = journal, port
        raw = list(messages(day, hours, "0-208-5", 8.3, 55.3))
        self._messages = [("raw-obs/dk/netatmo/x", one) for one in raw]
        self._messages += [("qc-obs/dk/netatmo/x", one) for one in codes(raw)]
        self._binary = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        self.note = "" if self._binary else " (not there: make servers; the journal is written without it)"
        self.url = f"mqtt://127.0.0.1:{port}"

    def __enter__(self) -> Self:
        if self._binary is None:
            writer = Writer(Journal(self._journal))
            for topic, one in self._messages:
                writer.add(topic, json.dumps(one).encode())
            writer.commit()
            writer.rotate(force=True)
            return self
        self._folder = TemporaryDirectory()
        settings = Path(self._folder.name) / "mosquitto.conf"
        settings.write_text(f"listener {self._port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
        self._broker = subprocess.Popen([self._binary, "-c", settings], stderr=subprocess.DEVNULL)
        self._wait(self._answers, "the broker does not answer")
        began = time.time()
        with (Path(self._folder.name) / "log").open("wb") as log:
            listening = subprocess.Popen(self._command, stderr=log)
        try:
            noted = self._journal / "listening.json"
            self._wait(lambda: noted.exists() and noted.stat().st_mtime > began, "ionbeam mqtt does not listen")
            time.sleep(1)  # it subscribes
            self._publish()
            wanted = len(self._messages)
            self._wait(lambda: self._arrived(began) >= wanted, "not all that was published has arrived")
        finally:
            listening.terminate()
            listening.wait(30)
        return self

    def __exit__(self, *error: object) -> None:
        if self._binary is not None:
            self._broker.terminate()
            self._broker.wait(30)
            self._folder.cleanup()

    def _answers(self) -> bool:
        with suppress(OSError), create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False

    def _publish(self) -> None:
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.max_inflight_messages_set(1000)
        client.connect("127.0.0.1", self._port)
        client.loop_start()
        for sent in [client.publish(topic, json.dumps(one), qos=1) for topic, one in self._messages]:
            sent.wait_for_publish(60)
        client.loop_stop()
        client.disconnect()

    def _arrived(self, began: float) -> int:
        arrivals = [path for path in (self._journal / "arrived").glob("*.lines") if path.stat().st_mtime >= began]
        return sum(path.read_bytes().count(b"\n") for path in arrivals)

    def _wait(self, done: Any, otherwise: str) -> None:
        until = time.monotonic() + 180  # a loaded machine
        while not done():
            if time.monotonic() > until:
                raise RuntimeError(f"{self.url}: {otherwise}")
            time.sleep(0.1)
