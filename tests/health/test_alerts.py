"""People are told of each trouble once when it begins and once when it ends, whoever is away meanwhile."""

from __future__ import annotations

import json
import os
from collections import namedtuple
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from aiosmtpd.controller import Controller
from servers import free_port

from ionbeam_dagster.health.alerts import Alerting
from ionbeam_dagster.health.messages import ways
from ionbeam_dagster.health.watch import Watch

SOURCE = "  ioncannon: {start: 2026-06-21}"
DISK = namedtuple("stat", "f_blocks f_bfree f_bavail f_frsize f_files f_ffree f_favail")


class Told:
    """A webhook and a mail server, which may be away."""

    def __init__(self) -> None:
        self.web, self.mail = free_port(), free_port()
        self.posted: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.mailed: list[str] = []
        self._servers: list = []

    def open(self) -> None:
        told = self

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self):
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.posted.append((document["state"], document["subject"]))
                told.texts.append(document["text"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args):
                pass

        class Mailbox:
            async def handle_DATA(self, server, session, envelope):
                told.mailed.append(envelope.content.decode())
                return "250 taken"

        web = ThreadingHTTPServer(("127.0.0.1", self.web), Hook)
        Thread(target=web.serve_forever, daemon=True).start()
        mail = Controller(Mailbox(), hostname="127.0.0.1", port=self.mail)
        mail.start()
        self._servers = [web, mail]

    def close(self) -> None:
        if self._servers:
            self._servers[0].shutdown()
            self._servers[0].server_close()
            self._servers[1].stop()
            self._servers = []


@pytest.fixture
def told() -> Iterator[Told]:
    one = Told()
    yield one
    one.close()


@pytest.fixture
def platform(platform_of, told):
    mail = f"{{server: 127.0.0.1, port: {told.mail}, starttls: false, sender: i@example.org, to: [duty@example.org]}}"
    hook = f"http://127.0.0.1:{told.web}/a-secret"
    alerts = f"{{webhook: '{hook}', email: {mail}, silence: PT2H, completeness: 0.9, after: PT1M}}"
    platform = platform_of(SOURCE, automation="{enabled: false}", alerts=alerts)
    platform.ledger.reconciliations.last()
    begun, platform.later = platform.now(), timedelta(0)
    platform.now = lambda: begun + platform.later
    return platform


def _alerting(platform) -> tuple[Alerting, Watch]:
    watch, settings = Watch(platform), platform.config.sections.alerts
    return Alerting(platform, settings, watch, list(ways(settings))), watch


def test_each_trouble_is_told_once_and_its_end_once(platform, told, monkeypatch, caplog):
    measured = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: DISK(1000, 30, 30, 4096, 1000, 900, 900))
    alerting, watch = _alerting(platform)

    def look(later: int) -> None:
        platform.later += timedelta(seconds=later)
        watch.look()
        alerting.look()

    look(0)
    assert not caplog.records or "webhook" not in caplog.text  # it has to last for a minute
    look(61)
    assert "the webhook at 127.0.0.1 does not take an alert" in caplog.text and "mail server" in caplog.text
    assert "a-secret" not in caplog.text
    told.open()
    look(10)
    begins = {("begins", "disk"), ("begins", "silence of ioncannon"), ("begins", "gaps of ioncannon")}
    assert len(told.posted) == 3 and set(told.posted) == begins and len(told.mailed) == 3
    assert any("97.0% full" in text and "ionbeam purge --dry-run" in text for text in told.texts)
    assert any("Subject: Ionbeam: disk is not well" in mail and "97.0% full" in mail for mail in told.mailed)
    look(10)
    alerting._job.close()
    alerting, watch = _alerting(platform)  # the process was started again
    look(10)
    look(61)
    assert len(told.posted) == 3
    told.close()
    monkeypatch.setattr(os, "statvfs", measured)
    look(10)  # it ends while nobody can be told
    look(10)
    told.open()
    look(10)
    look(10)
    assert told.posted[3:] == [("ended", "disk")] and "disk is well again" in told.texts[-1]
    assert {one.subject for one in platform.ledger.alerts.all()} == {"silence of ioncannon", "gaps of ioncannon"}


def test_one_process_of_all_tells(platform, told):
    told.open()
    (one, watch), (other, _) = _alerting(platform), _alerting(platform)
    watch.look()
    for alerting in (one, other):
        alerting.look()
    platform.later += timedelta(minutes=2)
    for alerting in (other, one, other):
        alerting.look()
    assert sorted(told.posted) == [("begins", "gaps of ioncannon"), ("begins", "silence of ioncannon")]


def test_what_ends_within_a_minute_is_not_told(platform, told, monkeypatch):
    told.open()
    alerting, watch = _alerting(platform)
    with monkeypatch.context() as full:
        full.setattr(os, "statvfs", lambda path: DISK(1000, 30, 30, 4096, 1000, 900, 900))
        watch.look()
    alerting.look()
    platform.later += timedelta(seconds=30)
    watch.look()
    alerting.look()
    platform.later += timedelta(seconds=90)
    alerting.look()
    assert not [one for one in told.posted if one[1] == "disk"]


def test_stations_that_fall_silent_are_named(platform_of, told, monkeypatch):
    import polars as pl

    from ionbeam_dagster.health import alerts
    from ionbeam_dagster.pipeline.heard import StationsHeard

    told.open()
    platform = platform_of(
        SOURCE, automation="{enabled: false}",
        alerts=f"{{webhook: 'http://127.0.0.1:{told.web}/', after: PT0S, silent_stations: 0.05}}",
    )  # fmt: skip
    platform.ledger.reconciliations.last()
    found = pl.DataFrame({"station_id": [f"s{n:02}" for n in range(20)], "silent": [n < 2 for n in range(20)]})
    now = platform.now()
    monkeypatch.setattr(alerts, "heard", lambda *given: StationsHeard(now, now, found, 0))
    alerting, watch = _alerting(platform)
    watch.look()
    alerting.look()
    assert ("begins", "stations of ioncannon") in told.posted
    assert any("2 of 20 stations fell silent: s00, s01" in text for text in told.texts)
