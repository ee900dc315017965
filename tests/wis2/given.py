"""A platform that gives a crowd's windows away, what changes in them, and somebody who listens to what is told."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as mqtt
from crowd import crowd
from paho.mqtt.enums import CallbackAPIVersion

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform

HOUR = timedelta(hours=1)
DAY = datetime(2026, 6, 21, tzinfo=UTC)
WINDOWS = [Window(DAY + number * HOUR, DAY + (number + 1) * HOUR) for number in range(3)]
LATER = DAY + timedelta(days=3)
CENTRE = "de-example-test"
URL = "https://data.example/wis2"
CHANNEL = f"origin/a/wis2/{CENTRE}/data/recommended/weather/experimental/crowd"
RECORDS = f"origin/a/wis2/{CENTRE}/metadata"
SOURCES = crowd(
    "[bufr, pygeoapi]", "{station_id: s}", licence="https://creativecommons.org/licenses/by/4.0/",
    title="A crowd's stations", description="'What many people measure.'", when_removed="withdraw",
)  # fmt: skip
WIS2 = """{
  centre_id: CENTRE, url: 'https://data.example/wis2', output_path: given, broker: BROKER,
  contact: {organization: Somebody, email: wis2@data.example},
  datasets: {crowd: {topic: weather/experimental/crowd, start: 2026-06-21, formats: FORMATS}}}"""


def section(port: int, formats: str = "[bufr]", broker: str = "") -> str:
    address = broker or f"{{url: 'mqtt://127.0.0.1:{port}'}}"
    return WIS2.replace("CENTRE", CENTRE).replace("BROKER", address).replace("FORMATS", formats)


def write_rows(folder: Path, warm: float = 20.0, hours: tuple[int, ...] = (0, 1, 2)) -> None:
    """One row every ten minutes of those hours."""
    lines = ["t,s,lat,lon,warm"]
    for hour in hours:
        for minute in range(0, 60, 10):
            moment = f"{DAY + hour * HOUR + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"
            lines += [f"{moment},a,53.25,6.5,{warm}", f"{moment},b,51.5,4.75,{warm + 1}"]
    folder.mkdir(exist_ok=True)
    (folder / "all.csv").write_text("\n".join(lines) + "\n")


def brought_up_to_date(platform: Platform, windows: list[Window] = WINDOWS) -> None:
    """Collect, ingest, build and export windows of what the file holds now."""
    source, dataset = platform.source("crowd"), platform.dataset("crowd")
    for window in windows:
        collect(platform, source, window, LATER)
        ingest(platform, source, window)
        build(platform, dataset, window, LATER)
        for format in dataset.exports:
            export(platform, dataset, platform.config.window_exporters[format], window)


class Listener:
    """Somebody who takes every notification, reads its file at once, as it lies in `given`, and compares it."""

    def __init__(self, port: int, given: Path, prepared: Callable[[mqtt.Client], None] | None = None) -> None:
        self.heard: list[tuple[str, dict]] = []
        self.wrong: list[str] = []
        self._given = given
        self._ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, f"listener-{port}", clean_session=False)
        if prepared is not None:
            prepared(self._client)
        self._client.on_connect = lambda client, *_: client.subscribe("origin/a/wis2/#", qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.connect("localhost", port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def messages(self, topic: str = CHANNEL, at_least: int = 0) -> list[dict]:
        """What was heard on a topic, as soon as it is so many."""
        until = time.monotonic() + 20
        while True:
            found = [told for heard, told in self.heard if heard == topic]
            if len(found) >= at_least:
                return found
            assert time.monotonic() < until, found
            time.sleep(0.02)

    def _on_message(self, _: object, __: object, message: mqtt.MQTTMessage) -> None:
        told = json.loads(message.payload)
        [link] = told["links"]
        if link["rel"] != "deletion":
            if fault := fault_of(self._given, told):
                self.wrong.append(f"{told['properties']['data_id']}: {fault}")
        elif file_of(self._given, told).exists():
            self.wrong.append(f"{link['href']} is still there")
        self.heard.append((message.topic, told))


def file_of(given: Path, told: dict) -> Path:
    return given / told["links"][0]["href"].removeprefix(URL + "/")


def fault_of(given: Path, told: dict) -> str:
    """What of a file is not as its notification says."""
    try:
        content = file_of(given, told).read_bytes()
    except FileNotFoundError:
        return "its file is not there"
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != told["properties"]["integrity"]["value"]:
        return "its file is another one"
    inline = told["properties"].get("content")
    if inline is not None and base64.b64decode(inline["value"]) != content:
        return "what travels along is another file"
    return "" if told["links"][0]["length"] == len(content) else "its file has another length"
