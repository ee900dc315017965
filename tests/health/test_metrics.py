"""Figures of a platform, scraped by a real Prometheus, whose alert fires and ends."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import pytest
import yaml
from servers import free_port

from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.windows import DAY, Window, window_of, windows_between
from ionbeam_dagster.health.disks import stats
from ionbeam_dagster.health.pages import pages, served
from ionbeam_dagster.health.watch import Watch
from ionbeam_dagster.orchestration.doctor import Runs
from ionbeam_dagster.pipeline.agenda import Work
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest

MONITORING = Path(__file__).parents[2] / "deployments" / "monitoring"
SOURCE = "  ioncannon: {num_stations: 12, start: 2026-06-21, aggregation_span: PT1H, exports: [odb]}"


@pytest.fixture
def platform(platform_of):
    """A platform on which the hour before the last one was built; half of it was collected."""
    platform = platform_of(SOURCE, automation="{enabled: false}")
    now = platform.now()
    hour = window_of(now - timedelta(hours=2), timedelta(hours=1))
    source, dataset = platform.source("ioncannon"), platform.dataset("ioncannon")
    for window in list(windows_between(hour.start, hour.end, timedelta(minutes=5)))[:6]:
        collect(platform, source, window, now)
        ingest(platform, source, window)
    build(platform, dataset, hour, now, insist=True)
    export(platform, dataset, platform.config.window_exporters["odb"], hour)
    return platform


def _figures(platform, watch) -> dict[str, float]:
    status, _, body = pages(platform, watch, True)["/metrics"]()
    assert status == 200
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_the_figures_are_those_of_the_ledger(platform):
    watch = Watch(platform)
    watch.look()
    told = _figures(platform, watch)
    assert told['ionbeam_windows{dataset="ioncannon",state="incomplete"}'] == 1
    assert told['ionbeam_window_coverage_ratio{dataset="ioncannon"}'] == 0.5
    assert told['ionbeam_window_stations{dataset="ioncannon"}'] == 12
    rows = told['ionbeam_window_rows{dataset="ioncannon"}']
    assert rows == told['ionbeam_rows{source="ioncannon"}'] > 0
    begun = platform.ledger.begun("ioncannon")
    asked = platform.now() - timedelta(minutes=5) - begun
    assert told['ionbeam_collected_ratio{source="ioncannon"}'] == pytest.approx(timedelta(minutes=30) / asked, rel=0.02)
    assert told['ionbeam_exported_ratio{export="ioncannon/odb"}'] == 1
    assert 3600 < told['ionbeam_built_age_seconds{dataset="ioncannon"}'] < 3 * 3600
    assert any(name.startswith("ionbeam_window_flags{") for name in told)
    assert 0 < told[f'ionbeam_disk_used_ratio{{folder="{Path("ionbeam-state").absolute()}"}}'] < 1
    assert told["process_resident_memory_bytes"] > 1e6


def test_a_figure_that_cannot_be_taken_takes_no_other_with_it(platform, monkeypatch, caplog):
    def fails(*given):
        raise KeyError("gone")

    monkeypatch.setattr("ionbeam_dagster.health.metrics._told", {})
    watch = Watch(platform)
    watch.look()
    monkeypatch.setattr("ionbeam_dagster.health.disks.disks", fails)
    told = _figures(platform, watch)
    assert "ionbeam_work_still_seconds" in told and 'ionbeam_rows{source="ioncannon"}' in told
    assert not any(name.startswith("ionbeam_disk_used_ratio") for name in told)
    _figures(platform, watch)
    assert caplog.text.count("not all figures can be given (KeyError): 'gone'") == 1


def test_a_source_whose_end_has_passed_is_not_silent(platform_of):
    ended = "  ioncannon: {start: 2026-06-20, end: 2026-06-21}"
    platform = platform_of(ended, automation="{enabled: false}")
    platform.now = lambda: datetime(2026, 6, 21, 12, tzinfo=UTC)
    hour = Window(datetime(2026, 6, 20, 23, tzinfo=UTC), datetime(2026, 6, 21, tzinfo=UTC))
    claim = Claim("last", "ioncannon", "ioncannon", hour, platform.ledger.arrival_of("last"), 1)
    platform.ledger.record_claim(claim, platform.sources["ioncannon"].metadata, {hour: 1})
    told = _figures(platform, Watch(platform))
    assert told['ionbeam_collected_age_seconds{source="ioncannon"}'] == 0
    assert told['ionbeam_collected_ratio{source="ioncannon"}'] == 1


def test_what_is_due_of_a_window_that_is_open_is_not_of_a_time_to_come(platform):
    watch, now = Watch(platform), platform.now()
    watch.look()
    watch.progress.due = [Work("ingest", "ioncannon", Window(now, now + DAY), "", "")]
    told = _figures(platform, watch)
    assert told['ionbeam_due_oldest_age_seconds{product="ioncannon",stage="ingest"}'] == 0


def test_a_file_of_the_journal_that_goes_meanwhile_is_left_out(tmp_path):
    (tmp_path / "there").write_bytes(b"123")
    assert [one.st_size for one in stats([tmp_path / "there", tmp_path / "gone"])] == [3]


def _names_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:ionbeam|process)_[a-z_]+", text))


def _of_the_board() -> dict[str, str]:
    """The expressions of the board, each with the panel that shows it."""
    panels = json.loads((MONITORING / "grafana.json").read_text())["panels"]
    return {target["expr"]: panel["title"] for panel in panels for target in panel.get("targets", ())}


def test_rules_and_board_ask_for_figures_that_there_are(platform):
    watch = Watch(platform)
    watch.look()
    platform.ledger.reconciliations.note(platform.now())
    with dg.DagsterInstance.ephemeral() as instance:
        _, _, body = pages(platform, watch, True, Runs(instance))["/metrics"]()
    known = set(re.findall(r"# TYPE ((?:ionbeam|process)_[a-z_]+)", body.decode()))
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    expressions = " ".join(rule["expr"] for group in rules["groups"] for rule in group["rules"])
    assert _names_in(expressions) <= known, _names_in(expressions) - known
    board = " ".join(_of_the_board())
    assert _names_in(board) <= known, _names_in(board) - known


def _promtool() -> str:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (make servers; Debian: apt-get install prometheus)")
    return tool


def test_the_rules_do_as_they_say():
    for arguments in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([_promtool(), *arguments], cwd=MONITORING, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_it_shows_every_panel_of_the_board_and_an_alert_fires_and_ends(platform, tmp_path):
    _promtool()
    watch = Watch(platform)
    watch.look()
    watch.progress.look(platform)
    port = free_port()
    with (
        dg.DagsterInstance.ephemeral() as instance,
        served(pages(platform, watch, True, Runs(instance)), "127.0.0.1", 0) as pages_at,
    ):
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(MONITORING / "alerts.yml")],
            "scrape_configs": [
                {"job_name": "ionbeam-worker", "static_configs": [{"targets": [f"127.0.0.1:{pages_at}"]}]}
            ],
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        command = [
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'db'}",
        ]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
            )  # fmt: skip

        def asked(path: str) -> dict:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=5) as answer:
                return json.load(answer)["data"]

        def until(question):
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    if found := question():
                        return found
                except OSError:
                    pass
                time.sleep(0.3)
            raise AssertionError((tmp_path / "log").read_text()[-3000:])

        def firing() -> list[str]:
            return [one["labels"]["alertname"] for one in asked("alerts")["alerts"] if one["state"] == "firing"]

        try:
            coverage = until(lambda: asked(f"query?query={quote('ionbeam_window_coverage_ratio')}")["result"])
            assert coverage[0]["metric"]["dataset"] == "ioncannon" and float(coverage[0]["value"][1]) == 0.5
            until(lambda: asked("query?query=ionbeam_runs")["result"])
            shown = {expr for expr in _of_the_board() if asked(f"query?query={quote(expr)}")["result"]}
            assert set(_of_the_board()) - shown == {"max by (queue) (ionbeam_queue_messages)"}  # there is no broker
            assert "IonbeamWorkStandsStill" not in firing()
            watch.progress.still = 75.0
            until(lambda: "IonbeamWorkStandsStill" in firing())
            watch.progress.still = 0.0
            until(lambda: "IonbeamWorkStandsStill" not in firing())
        finally:
            process.terminate()
            process.wait(20)


def test_the_board_is_one_of_grafanas_own_schema():
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    from grafana_foundation_sdk.cog.plugins import register_default_plugins

    register_default_plugins()
    written = json.loads((MONITORING / "grafana.json").read_text())
    read = json.loads(encoder.JSONEncoder().encode(models.Dashboard.from_json(written)))
    unknown = _unknown(written, read)
    assert not unknown, f"Grafana's schema does not know {unknown}"
    places = [panel["gridPos"] for panel in written["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) == 23  # none covers another


def _unknown(written, read, at: str = "") -> list[str]:
    """The keys that were written, and are lost when Grafana's models read them."""
    if isinstance(written, dict):
        lost = [f"{at}.{key}" for key, value in written.items() if key not in read and value not in ({}, [], "", None)]
        both = sorted(written.keys() & read.keys())
        return lost + [one for key in both for one in _unknown(written[key], read[key], f"{at}.{key}")]
    if isinstance(written, list):
        pairs = enumerate(zip(written, read, strict=True))
        return [one for number, pair in pairs for one in _unknown(*pair, f"{at}[{number}]")]
    return [] if written == read else [f"{at} ({written!r})"]
