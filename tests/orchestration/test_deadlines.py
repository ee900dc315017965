"""A service that accepts and never answers costs the time of one window: the window fails and is due again, those that
its run did not come to are first the next time, and what cannot be interrupted ends with its process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pyarrow as pa
import pytest
from told import START, Told, key, window

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.orchestration.runs import run_range
from ionbeam_dagster.sources import SourceConfig
from ionbeam_dagster.sources.http import HttpClient

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]
TOLD = "  told: {type: told, start: 2026-06-21, deadline: PT1S}"


class Holding(ThreadingHTTPServer):
    """Never answers for what is in `held`."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Holding

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.strip("/") in self.server.held:
            self.server.over.wait(60)
        with suppress(OSError):
            self.send_response(204)
            self.end_headers()


class AskingConfig(SourceConfig):
    address: str = ""


class Asking(Told):
    """Asks a web service before it gives a window."""

    Config = AskingConfig

    def __init__(self, name: str, config: AskingConfig) -> None:
        super().__init__(name, config)
        self.client = HttpClient(config.address)

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        self.client.get(window.key)
        yield from super().fetch(window)


@pytest.fixture
def service():
    with Holding() as holding:
        threading.Thread(target=holding.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield holding
        holding.over.set()
        holding.shutdown()


@pytest.fixture
def asking(platform_of, monkeypatch, service):
    points = {"asking": SimpleNamespace(load=lambda: Asking)}
    monkeypatch.setattr("ionbeam_dagster.config.resolving.installed_sources", lambda: points)
    return platform_of(
        f"  asking: {{type: asking, start: 2026-06-21, end: 2026-06-21T01:00, deadline: PT2S, address: 'http://127.0.0.1:{service.server_port}'}}\n"
        f"  beside: {{type: asking, start: 2026-06-21, address: 'http://127.0.0.1:{service.server_port}'}}",
        automation="{lookback: P400D}",
    )


def _outcome(platform, name, instance):
    done = run_range(platform, name, START, START + timedelta(hours=1), instance)
    return {result.window.key: result.failure for result in done if result.asset == f"{name}/raw"}


def _open(platform):
    opened = platform.ledger.attempts.open("collect", "asking")
    return [f"{one.window.start:%H:%M}" for one in opened if one.error]


def test_what_is_never_answered_fails_and_holds_up_nothing_else(asking, service, instance):
    assert set(_outcome(asking, "beside", instance).values()) == {None}
    service.held = {key("00:00"), key("00:15"), key("00:30")}
    first = _outcome(asking, "asking", instance)
    assert all("not answered in the time that it is given" in first[key(time)] for time in ("00:00", "00:15"))
    assert all(first[key(time)].startswith("not tried: ") for time in ("00:30", "00:45"))
    assert _open(asking) == ["00:00", "00:15", "00:30", "00:45"]

    second = _outcome(asking, "asking", instance)
    assert second[key("00:45")] is None, "what was not tried comes first"
    assert all("not answered" in second[key(time)] for time in ("00:00", "00:15", "00:30"))
    assert _open(asking) == ["00:00", "00:15", "00:30"]

    service.held = set()
    assert set(_outcome(asking, "asking", instance).values()) == {None}
    assert _open(asking) == []


def test_what_waits_for_something_else_is_interrupted(platform_with, instance, monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.orchestration.deadlines.ALARM_AFTER", 0.1)
    platform = platform_with(TOLD)

    def fetch(window):
        threading.Event().wait(60)
        yield

    monkeypatch.setattr(platform.sources["told"], "fetch", fetch)
    failed = _outcome(platform, "told", instance)
    assert "took longer than the 0:00:01 that it may, and was interrupted" in failed[key("00:00")]
    assert [failed[key(time)][:9] for time in ("00:30", "00:45")] == ["not tried", "not tried"]


def test_what_cannot_be_interrupted_ends_with_its_process(platform_of, tmp_path, monkeypatch):
    config = tmp_path / "config.yaml"
    config.write_text(
        "state_path: state\nautomation: {lookback: P400D}\n"
        "sources:\n  stuck: {type: stuck, start: 2026-06-21, end: 2026-06-21T01:00, deadline: PT1S}\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    here = Path(__file__).parent
    process = subprocess.run(
        [sys.executable, str(here / "stuck.py"), str(config), "1"],
        cwd=tmp_path, env=os.environ | {"DAGSTER_HOME": str(home)}, timeout=120, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 1, process.stderr

    monkeypatch.setattr(
        "ionbeam_dagster.config.resolving.installed_sources",
        lambda: {"stuck": SimpleNamespace(load=lambda: Told)},
    )
    platform = platform_of(
        "  stuck: {type: stuck, start: 2026-06-21, end: 2026-06-21T01:00, deadline: PT1S}",
        state_path="state",
        automation="{lookback: P400D}",
    )
    opened = {one.window: one.error for one in platform.ledger.attempts.open("collect", "stuck")}
    assert "its process was ended" in opened.get(window("00:00"), "")
    assert opened.get(window("00:15"), "").startswith("not tried: ")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        [run] = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert not instance.event_log_storage.get_concurrency_run_ids()
