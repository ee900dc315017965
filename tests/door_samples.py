"""What the tests of the HTTP door share: a platform with one, open in this process or in one of its own.

Belongs here: set-up. Does not belong here: any test.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import httpx
import polars as pl
from servers import free_port

from ionbeam_dagster.doors.http.serving import OpenDoor
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.ingest import ingest

HOUR = timedelta(hours=1)
TOKEN, OTHER = "garden-token-1", "valley-token-2"
TEMPERATURE = "air_temperature__degC__2.0__point__PT0S"
GARDEN = f"""
  garden:
    kind: door
    token: {TOKEN}
    start: 2026-06-01
    aggregation_span: PT1H
    exports: [pygeoapi]
    stations:
      roof: {{latitude: 52.1, longitude: 5.2, altitude: 12.0}}
    variables:
      - {{field: temperature, measurement: weather, standard_name: air_temperature,
         unit: degF, cf_unit: degC, level: 2.0}}
      - {{measurement: weather, field: pressure, standard_name: air_pressure, cf_unit: hPa}}
"""
SOURCES = "  scheduler: {windows: [{source_name: garden, window_size: PT1H}]}\n" + GARDEN
FLEET = f"""
  scheduler: {{windows: [{{source_name: garden, window_size: PT1H}}]}}
  garden:
    kind: door
    token: {TOKEN}
    start: 2026-06-01
    aggregation_span: PT1H
    exports: [pygeoapi]
    station: device
    latitude: 52.1
    longitude: 5.2
    metadata: {{variable: variable}}
    variables:
      - {{measurement: report, field: 0000-5001, standard_name: air_temperature, cf_unit: degC, level: 2.0}}
"""


@contextmanager
def opened(platform, every=3600.0):
    """The door of a platform, open in this process; it takes in when it is told to."""
    door = OpenDoor(platform, "127.0.0.1", free_port(), every)
    thread = Thread(target=door.run)
    thread.start()
    try:
        yield door, f"http://127.0.0.1:{door.port}"
    finally:
        door.stop()
        thread.join(20)
    assert not thread.is_alive()


class Receiving:
    """`ionbeam receive` in a process of its own, which may be killed and started again at the same address."""

    def __init__(self, folder, **environment):
        self._folder, self.port = folder, free_port()
        self._environment = os.environ | {"IONBEAM_CONFIG_PATH": str(folder / "config.yaml"), **environment}
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def start(self):
        with (self._folder / "receive.log").open("ab") as output:
            self.process = subprocess.Popen(
                self.command(), cwd=self._folder, env=self._environment, stdout=output, stderr=output
            )
        try:
            wait_for(self._answers, 240)
        except AssertionError:
            self.kill()
            raise

    def command(self):
        return [Path(sys.executable).with_name("ionbeam"), "receive", "--port", str(self.port)]

    def _answers(self):
        assert self.process.poll() is None, self.log()
        try:
            return httpx.get(f"{self.url}/ping").status_code == 204
        except httpx.HTTPError:
            return False

    def log(self):
        return (self._folder / "receive.log").read_text()

    def kill(self):
        self.process.kill()
        self.process.wait(20)

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(120)
        finally:
            self.process.kill()


def write(url, body, token=TOKEN, **more):
    headers = {"Authorization": f"Token {token}", **more.pop("headers", {})}
    return httpx.post(f"{url}/api/v2/write", content=body, headers=headers, timeout=30, **more)


def nanoseconds(moment):
    return int(moment.timestamp()) * 10**9


def bring_up_to_date(platform):
    """What automation does: ingest what waits."""
    for window in platform.ledger.waiting("garden"):
        ingest(platform, platform.source("garden"), window)


def points(platform, window):
    """The rows of a window that is built now."""
    made = build(platform, platform.dataset("garden"), window, datetime.now(UTC))
    return pl.read_parquet(made.revision.path)


def wait_for(done, seconds=20):
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


def raws_that_wait(platform):
    """The garden's raw files that are not ingested, each once: two windows have it, where an hour ended meanwhile."""
    waiting = platform.ledger.waiting("garden")
    return [*{raw.path: raw for window in waiting for raw in platform.ledger.sent("garden", window)}.values()]
