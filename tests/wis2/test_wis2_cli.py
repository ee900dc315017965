"""`ionbeam wis2`, and what a configuration is told that cannot be given away."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from given import CENTRE, DAY, HOUR, SOURCES, WINDOWS, Listener, brought_up_to_date, section, write_rows
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.errors import ConfigError
from ionbeam_dagster.health.wis2 import wis2
from ionbeam_dagster.wis2.telling import publish


@pytest.fixture
def giving(platform_of, tmp_path, mosquitto):
    write_rows(tmp_path / "in")
    platform = platform_of(SOURCES, wis2=section(mosquitto.port))
    brought_up_to_date(platform, WINDOWS[:2])
    return platform


@pytest.fixture
def listener(mosquitto, tmp_path):
    found = Listener(mosquitto.port, tmp_path / "given")
    yield found
    found.close()
    assert found.wrong == []


def ionbeam(*arguments):
    done = CliRunner().invoke(app, ["--config", "config.yaml", "wis2", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_what_is_due_is_shown_told_and_told_again(giving, listener):
    status, shown, _ = ionbeam("show")
    assert status == 0 and re.search(r"crowd +│ bufr +│ +0 │ +2 │", shown)
    assert ionbeam("publish") == (0, "3 notifications told.\n", "")
    status, shown, _ = ionbeam("show")
    assert status == 0 and re.search(r"crowd +│ bufr +│ +2 │ +0 │ \d{4}", shown) and "record" in shown
    first = WINDOWS[0].as_options.split()
    assert ionbeam("republish", "crowd", *first) == (0, "2 notifications told.\n", "")
    once, _, again = listener.messages(at_least=3)
    assert once == again
    status, shown, _ = ionbeam("show", "crowd", *first)
    record, message = map(json.loads, shown.splitlines())
    assert status == 0 and message == once and record["properties"]["data_id"] == f"{CENTRE}/crowd/record"


def test_what_nobody_tells_is_found_by_the_doctor_until_it_is_told(giving, monkeypatch):
    monkeypatch.setattr(type(giving), "now", lambda self: DAY + 6 * HOUR)
    exports = giving.ledger.exports("crowd", WINDOWS, ["bufr"])
    for made in exports:
        os.utime(made.path, ((DAY + 2 * HOUR).timestamp(),) * 2)
    [found] = wis2(giving)
    assert found.severity == "warning" and "start `ionbeam wis2 publish --follow`" in found.remedy
    assert found.words == "2 files are given away, and others are not told of them, the oldest for 4 h"
    publish(giving)
    assert [found.severity for found in wis2(giving)] == ["well"]


def test_a_broker_that_is_away_is_told_and_so_is_what_is_not_given(giving, mosquitto):
    mosquitto.process.stop()
    status, _, told = ionbeam("publish")
    assert status == 1 and re.search(r"ionbeam: MQTT broker 127.0.0.1:\d+ does not answer", told)
    status, _, told = ionbeam("republish", "other")
    assert status == 1 and "other is not given away (wis2.datasets); crowd is" in told


def test_a_platform_that_gives_nothing_away_is_told_where_to_read(platform_of):
    platform_of(SOURCES)
    status, _, told = ionbeam("publish")
    assert status == 1 and "config.yaml has no section wis2; docs/wis2.md shows one" in told


def test_who_follows_tells_each_export_until_it_is_stopped(giving, listener, tmp_path, mosquitto):
    command = [sys.executable, "-m", "ionbeam", "--config", "config.yaml", "wis2", "publish", "--follow"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        try:
            listener.messages(at_least=2)
            mosquitto.process.stop()
            brought_up_to_date(giving, WINDOWS[2:])
            mosquitto.process.start()
            until = time.monotonic() + 30
            while len({told["id"] for told in listener.messages()}) < 3:  # the broker may send one again
                assert time.monotonic() < until
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (("crowd: {topic", "others: {topic"), "wis2.datasets.others: there is no such dataset; there is crowd"),
        (
            ("formats: [bufr]", "formats: [odb]"),
            ".crowd.formats: odb is not among the exports of its windows",
        ),
        (("redistribution: true", "redistribution: false"), "what crowd gives may not be given to others"),
        (("exact_in: []", "exact_in: [bufr]"), "bufr shows all as it is (privacy.exact_in)"),
        (("licence: https", "description: https"), "recommended data need a licence that is told; give crowd its"),
        (("weather/experimental", "wether/experimental"), "'wether/experimental/crowd' begins with none of weather"),
        (("'mqtt://127", "'amqp://127"), "wis2.broker.url: is not the address of an MQTT broker"),
        ((CENTRE, "De_Example"), "wis2.centre_id"),
    ],
)
def test_what_cannot_be_given_away_is_refused_with_what_would_be_right(platform_of, changed, fault):
    more = "    redistribution: true\n    privacy: {position: 1000, exact_in: []}\n"
    sources = (
        SOURCES.replace("    description: 'What many people measure.'\n", "").replace("[bufr, pygeoapi]", "[bufr]")
        + more
    )
    platform_of(sources, wis2=section(1883))
    with pytest.raises(ConfigError, match=re.escape(fault)):
        platform_of(sources.replace(*changed), wis2=section(1883).replace(*changed))


def test_a_password_is_never_told(platform_of):
    broker = "{url: 'mqtts://broker.example:8883', username: someone, password: very-secret}"
    platform = platform_of(SOURCES, wis2=section(0, broker=broker))
    assert "very-secret" not in repr(platform.config)
    assert isinstance(platform.config, IonbeamConfig)
