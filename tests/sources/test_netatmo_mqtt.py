"""Netatmo over MQTT, with a real broker: nothing is lost over any crash, late messages and codes find their windows."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as paho
import polars as pl
import pytest
import yaml
from backends import Mosquitto
from esoh_messages import TEMPERATURE, message
from paho.mqtt.enums import CallbackAPIVersion

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.pipeline.agenda import needs_collecting
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.forgetting import forget, who_is
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.sources.netatmo.journal import Journal, Writer
from ionbeam_dagster.sources.netatmo.mqtt import NetatmoMqtt, NetatmoMqttConfig

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(
    NOW.replace(minute=0, second=0, microsecond=0) - 3 * HOUR, NOW.replace(minute=0, second=0, microsecond=0) - 2 * HOUR
)
CANONICAL = "air_temperature__degC__2.0__point__PT0S"


def at(seconds: float) -> datetime:
    return WINDOW.start + timedelta(seconds=seconds)


def platform_of(folder: Path, port: int) -> Platform:
    settings = {
        "state_path": str(folder / "state"),
        "dataset_aggregator": {"data_path": str(folder / "data")},
        "sources": {
            "scheduler": {"windows": [{"source_name": "netatmo_mqtt", "window_size": "PT1H"}]},
            "netatmo_mqtt": {
                "host": "127.0.0.1",
                "port": port,
                "tls": False,
                "data_path": str(folder / "raw"),
                "start": WINDOW.start.isoformat(),
                "exports": [],
            },
        },
    }
    path = folder / "ionbeam.yaml"
    path.write_text(yaml.safe_dump(settings))
    return open_platform(IonbeamConfig.load(path))


def built(platform: Platform) -> tuple[int, pl.DataFrame]:
    """The window's revision after all that was journaled so far, and its rows."""
    collect(platform, platform.source("netatmo_mqtt"), WINDOW, datetime.now(UTC))
    ingest(platform, platform.source("netatmo_mqtt"), WINDOW)
    done = build(platform, platform.dataset("netatmo_mqtt"), WINDOW, datetime.now(UTC))
    assert done.revision is not None
    return done.revision.revision.number, pl.read_parquet(done.revision.path)


class Listening:
    """`ionbeam mqtt` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._command = [
            str(Path(sys.executable).with_name("ionbeam")),
            "--config",
            str(folder / "ionbeam.yaml"),
            "mqtt",
        ]
        self._output = folder / "mqtt.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        connected = self.connections
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output)
        until = time.monotonic() + 60
        while self.connections == connected:
            assert self._process.poll() is None and time.monotonic() < until, self._output.read_text()
            time.sleep(0.05)

    @property
    def connections(self) -> int:
        return self._output.read_text().count("connected to") if self._output.exists() else 0

    def end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(60)


class Publisher(threading.Thread):
    """Publishes messages until the broker has taken each. A broker that is killed may forget the last moment of what it
    has taken (its saving is its own affair), so what it took then is published once more: a message may come twice."""

    def __init__(self, port: int, messages: list[bytes], rate: float) -> None:
        super().__init__(daemon=True)
        self.waiting = dict(enumerate(messages))
        self._taken: dict[int, float] = {}
        self._port, self._rate, self._messages = port, rate, messages

    def broker_was_killed(self) -> None:
        before = time.monotonic() - 2
        again = [number for number, moment in list(self._taken.items()) if moment > before]
        self.waiting |= {number: self._messages[number] for number in again}

    def run(self) -> None:
        while self.waiting:
            with suppress(OSError, ValueError, RuntimeError):
                self._one_connection()
            time.sleep(0.1)

    def _one_connection(self) -> None:
        client = paho.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        client.connect("127.0.0.1", self._port)
        client.loop_start()
        try:
            waiting = list(self.waiting.items())
            for first in range(0, len(waiting), 20):
                some = [
                    (n, client.publish("raw-obs/no/netatmo/x", one, qos=1)) for n, one in waiting[first : first + 20]
                ]
                time.sleep(len(some) / self._rate)
                for number, sent in some:
                    sent.wait_for_publish(10)
                    if not sent.is_published():
                        return
                    self._taken[number] = time.monotonic()
                    del self.waiting[number]
        finally:
            client.loop_stop()


def publish(port: int, topic: str, messages: list[bytes]) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for each in [client.publish(topic, one, qos=1) for one in messages]:
        each.wait_for_publish(30)
    client.loop_stop()
    client.disconnect()


def test_raw_observations_and_later_codes_become_revisions(tmp_path, mosquitto: Mosquitto):
    platform = platform_of(tmp_path, mosquitto.port)
    listening = Listening(tmp_path)
    listening.start()
    stations = [f"0-578-0-{number}" for number in range(3)]
    raw = [message(one, at(60), 20.5 + place, NOW) for place, one in enumerate(stations)]
    twice = message(stations[0], at(60), 20.5, NOW)
    corrected = message(stations[1], at(60), 19.0, NOW + timedelta(seconds=5), place=(59.91, "10.75"))
    kelvin = message(stations[2], at(120), 290.15, NOW, unit="K")
    wind = message(stations[2], at(120), 4.5, NOW, parameter="wind_speed:2.0:mean:PT5M")
    bad = [b"\xff\xfe", b"{", json.dumps(message("x", NOW + 2 * HOUR, 1, NOW)).encode()]
    bad += [
        json.dumps(message("x", at(1), "warm", NOW)).encode(),
        json.dumps(message("x", at(1), 1, NOW, unit="hPa")).encode(),
    ]
    pretty = json.dumps(raw[0], indent=2).encode()
    good = [json.dumps(one).encode() for one in [corrected, *raw, twice, kelvin, wind]]
    publish(mosquitto.port, "raw-obs/no/netatmo/x", [pretty, *good, *bad])
    assert listening.end(signal.SIGTERM) == 0
    number, rows = built(platform)
    assert number == 1
    flag = f"{CANONICAL}__provider_flag"
    assert rows.select("station_id", CANONICAL, flag).rows() == [
        (stations[0], 20.5, None), (stations[1], 19.0, None), (stations[2], 22.5, None), (stations[2], 17.0, None)
    ]  # fmt: skip
    assert rows["wind_speed__m s-1__2.0__mean__PT5M"].to_list() == [None, None, None, 4.5]
    assert rows["platform_id"].to_list() == rows["station_id"].to_list()
    assert set(rows["mobility"]) == {"fixed"} and set(rows["indoor"]) == {"false"}
    source = platform.sources["netatmo_mqtt"]
    kept = pl.concat([pl.read_parquet(path) for path in source.journal.refused()])
    assert kept.height == len(bad) and "warm" in " ".join(kept["text"])
    assert "is no JSON object" in " ".join(source.problems())
    assert not needs_collecting(platform, "netatmo_mqtt", WINDOW)
    changed, cursor = source.changes(None)
    assert changed.pop() == source.journal.listened()
    assert changed and all(one.overlaps(WINDOW) for one in changed)
    assert source.changes(cursor) == ([], cursor)

    listening.start()
    codes = [message(one, at(60), 20.5 + place, NOW + HOUR, code=3) for place, one in enumerate(stations[:2])]
    publish(mosquitto.port, "qc-obs/no/netatmo/x", [json.dumps(one).encode() for one in codes])
    assert listening.end(signal.SIGINT) == 0
    assert needs_collecting(platform, "netatmo_mqtt", WINDOW)
    late, listened = source.changes(cursor)[0]
    assert (late.start, late.end) == (at(60), at(61))
    assert listened.end == source.journal.listened().end
    number, rows = built(platform)
    assert number == 2
    assert rows.select("station_id", CANONICAL, flag).rows() == [
        (stations[0], 20.5, 3), (stations[1], 21.5, 3), (stations[2], 22.5, None), (stations[2], 17.0, None)
    ]  # fmt: skip


def killed_in_a_loop(folder: Path, broker: Mosquitto, messages: int, rounds: int, rate: float) -> None:
    platform = platform_of(folder, broker.port)
    listening = Listening(folder)
    listening.start()
    moments = {(f"0-578-0-{n % 50}", at(n // 50)): round(random.uniform(-20, 30), 2) for n in range(messages)}
    publisher = Publisher(
        broker.port,
        [json.dumps(message(one, when, value, NOW)).encode() for (one, when), value in moments.items()],
        rate,
    )
    publisher.start()
    for round_number in range(rounds):
        time.sleep(random.uniform(0.3, 1.0))
        if round_number % 2 == 0:
            assert listening.end(signal.SIGKILL) != 0
            time.sleep(random.uniform(0, 0.5))
            listening.start()
        else:
            broker.process.stop(signal.SIGKILL)
            time.sleep(random.uniform(0, 0.5))
            broker.process.start()
            publisher.broker_was_killed()
    publisher.join(120 + messages / 50)
    assert not publisher.is_alive(), f"{len(publisher.waiting)} messages were never published"
    until = time.monotonic() + 60
    while (counted := built(platform)[1].height if settled(platform) else 0) < messages and time.monotonic() < until:
        time.sleep(1)
    assert listening.end(signal.SIGTERM) == 0
    rows = built(platform)[1]
    assert counted <= rows.height == messages
    found = {(one, when): value for one, when, value in rows.select("station_id", "datetime", CANONICAL).iter_rows()}
    assert found == moments
    assert not platform.sources["netatmo_mqtt"].journal.refused()


def settled(platform: Platform) -> bool:
    """Whether the source has something to give already."""
    return needs_collecting(platform, "netatmo_mqtt", WINDOW)


def test_each_message_is_in_the_dataset_once_whoever_is_killed(tmp_path, mosquitto: Mosquitto):
    killed_in_a_loop(tmp_path, mosquitto, messages=600, rounds=4, rate=300)


@pytest.mark.soak
def test_each_message_is_in_the_dataset_once_over_many_kills(tmp_path, mosquitto: Mosquitto):
    killed_in_a_loop(tmp_path, mosquitto, messages=int(os.environ.get("SOAK_MESSAGES", "8000")), rounds=30, rate=200)


def source_at(folder: Path, **settings: object) -> NetatmoMqtt:
    return NetatmoMqtt("m", NetatmoMqttConfig(data_path=folder, **settings))


def test_what_was_cut_off_by_a_crash_was_never_acknowledged(tmp_path):
    source = source_at(tmp_path)
    writer = Writer(source.journal)
    with pytest.raises(SourceError, match="another process fills this journal"):
        source.subscriber()
    for number in range(3):
        writer.add("raw-obs/x", json.dumps(message(f"s{number}", at(number), number, NOW)).encode())
    writer.commit()
    assert not source.journal.published_since(0)  # the writer still has it
    writer.rotate(force=True)
    [path] = (tmp_path / "m.journal" / "arrived").glob("*.lines")
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    copy = path.with_name(path.name.replace("-", "-1", 1))
    copy.write_bytes(content)
    [batch] = source.fetch(WINDOW)
    assert batch.column("station_id").to_pylist() == ["s0", "s1", "s2"]
    files = sorted(file.path for file in source.journal.published_since(0))
    copy.write_bytes(content)  # sorted, but a crash came before it was removed
    source.journal.sort()
    assert sorted(file.path for file in source.journal.published_since(0)) == files


def test_a_full_disk_acknowledges_nothing(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    writer = Writer(journal)
    writer.add("t", json.dumps(message("a", at(1), 1, NOW)).encode())
    writer.commit()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", full)
        writer.add("t", json.dumps(message("b", at(2), 2, NOW)).encode())
        with pytest.raises(OSError, match="No space"):
            writer.commit()
    writer.rotate(force=True)
    assert journal.sort() == 1
    assert journal.rows(WINDOW)["platform"].to_list() == ["a"]


def test_what_is_published_of_a_station_that_is_forgotten_is_in_no_hour_of_the_journal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    platform = platform_of(tmp_path, 1)
    source = platform.sources["netatmo_mqtt"]
    writer = Writer(source.journal)

    def journaled(second):
        for station in ("gone", "stays"):
            writer.add("t", json.dumps(message(station, at(second), 1, NOW)).encode())
        writer.commit()
        writer.rotate(force=True)
        source.journal.sort()
        return source.journal.rows(WINDOW)["platform"].to_list()

    assert sorted(journaled(1)) == ["gone", "stays"]
    found = forget(platform, who_is(platform, "netatmo_mqtt", "gone"))
    assert [(one.kind, one.rows) for one in found.removed] == [("rows of journals", 1)]
    assert journaled(2) == ["stays", "stays"]


def test_what_the_journal_keeps_no_more_is_a_failure(tmp_path):
    source = source_at(tmp_path, retention="PT2H")
    writer = Writer(source.journal)
    for hours in (1, 5):
        writer.add("t", json.dumps(message("a", NOW - hours * HOUR, 1, NOW)).encode())
    writer.commit()
    writer.rotate(force=True)
    source._sort_and_forget()
    [left] = source.journal.published_since(0)
    assert left.first >= NOW - timedelta(hours=1, seconds=1)
    with pytest.raises(SourceError, match="keeps messages for 2:00:00 only"):
        list(source.fetch(Window(NOW - 6 * HOUR, NOW - 5 * HOUR)))


def test_a_window_is_empty_only_when_we_listened_all_the_time(tmp_path, mosquitto: Mosquitto):
    platform_of(tmp_path, mosquitto.port)
    source = source_at(tmp_path / "raw")
    source.name = "netatmo_mqtt"
    with pytest.raises(SourceError, match="listened never yet; let it run"):
        list(source.fetch(WINDOW))
    listening = Listening(tmp_path)
    listening.start()
    assert listening.end(signal.SIGTERM) == 0
    with pytest.raises(SourceError, match="nothing was journaled, but `ionbeam mqtt` listened only from"):
        list(source.fetch(WINDOW))
    first = source.journal.listened()
    listening.start()  # the broker kept our session
    assert listening.end(signal.SIGTERM) == 0
    heard = source.journal.listened()
    assert heard.start == first.start and heard.end > first.end
    assert list(source.fetch(Window(heard.start, heard.end))) == []


def test_a_broker_with_tls_and_passwords(tmp_path, mosquitto_with_tls):
    server, authority = mosquitto_with_tls
    given = {"host": "localhost", "port": server.port, "username": "someone", "ca_file": str(authority)}
    source = source_at(tmp_path, password="very-secret", **given)
    subscriber = source.subscriber()
    thread = threading.Thread(target=subscriber.run)
    thread.start()
    until = time.monotonic() + 20
    while not subscriber.counts.connections and time.monotonic() < until:
        time.sleep(0.05)
    subscriber.stop()
    thread.join(20)
    assert subscriber.counts.connections == 1, subscriber.counts
    with pytest.raises(SourceError, match=r"not allowed to connect|are wrong") as refused:
        source_at(tmp_path / "other", password="mistyped-secret", **given).subscriber().run()
    assert "mistyped-secret" not in str(refused.value)


def test_wrong_passwords_are_never_sent_in_the_clear():
    with pytest.raises(ValueError, match="in the clear"):
        NetatmoMqttConfig(host="broker.example.org", tls=False, username="me", password="secret")
    assert "secret" not in repr(NetatmoMqttConfig(username="me", password="secret"))
    assert TEMPERATURE in NetatmoMqttConfig().parameters
