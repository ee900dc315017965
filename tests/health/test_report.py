"""The daily report: what it says, that it is text, and that it is sent."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import dagster as dg
import polars as pl
import pytest
from alerted import Told
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import DAY, HOUR, Window
from ionbeam_dagster.health.report import report
from ionbeam_dagster.orchestration.assets.report import report_asset
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.stores.ledger.attempts import Attempt, Failure

MIDNIGHT = datetime(2026, 6, 21, tzinfo=UTC)
TODAY = Window(MIDNIGHT, MIDNIGHT + DAY)
HOSTILE = "<b>x</b>|[a](http://b)"
CROWD = """
  scheduler: {windows: [{source_name: crowd, window_size: PT1H}]}
  crowd:
    type: files
    path: in
    start: 2026-06-21
    aggregation_span: PT1H
    settle: PT0S
    exports: [pygeoapi]
    time: t
    latitude: lat
    longitude: lon
    variables: [{column: warm, standard_name: air_temperature, cf_unit: degC, level: 2.0}]
    metadata: {station_id: s}
"""


@pytest.fixture
def platform(platform_of, tmp_path):
    """Four hours of two stations, of which one falls silent; rows of a third cannot be used."""
    rows = ["t,s,lat,lon,warm"]
    for minute in range(0, 240, 10):
        moment = f"{MIDNIGHT + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"
        rows += [f"{moment},a,52.0,5.0,20.0", f"{moment},c,99.0,5.0,20.0"]
        rows += [f"{moment},{HOSTILE},52.5,5.5,20.0"] if minute < 60 else []
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "all.csv").write_text("\n".join(rows) + "\n")
    told = Told()
    mail = f"{{server: 127.0.0.1, port: {told.mail}, starttls: false, sender: i@example.org, to: [chief@example.org]}}"
    alerts = f"{{webhook: 'http://127.0.0.1:{told.web}/', email: {mail}}}"
    platform = platform_of(CROWD, automation="{enabled: false}", alerts=alerts)
    platform.now = lambda: MIDNIGHT + timedelta(hours=4)
    for hour in range(4):
        window = Window(MIDNIGHT + hour * timedelta(hours=1), MIDNIGHT + (hour + 1) * timedelta(hours=1))
        collect(platform, platform.source("crowd"), window, platform.now())
        ingest(platform, platform.source("crowd"), window)
        build(platform, platform.dataset("crowd"), window, platform.now(), insist=True)
    platform.told = told
    yield platform
    told.close()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.sources: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]


def test_a_day_is_told_in_both_forms_and_what_comes_from_outside_is_text(platform):
    window = Window(MIDNIGHT, MIDNIGHT + timedelta(hours=1))
    platform.ledger.attempts.note([Attempt("build", "crowd", window, "a", "it is lost", 0, MIDNIGHT, MIDNIGHT)])
    platform.ledger.attempts.fail("build", "crowd", {window: Failure("<i>it</i> fails")}, MIDNIGHT)
    made = report(platform, TODAY, platform.now())
    assert made.verdict == "30 rows came. To look at: 1 failing window; 1 silent station."
    assert "| crowd | 30 | 24 |" in made.markdown and "| crowd | 4 of 4 | 0 | 30 |" in made.markdown
    assert "- crowd: latitude out of range (24)" in made.markdown
    assert "crowd, 1 of 2 (last heard): <b>x</b>¦[a](http://b) (06-21 00:50) `" in made.markdown, "as code"
    assert "<i>it</i> fails" in made.markdown and "% used" in made.markdown
    page = _Page()
    page.feed(made.html)
    assert not page.tags & {"i", "script", "a", "link"} and all(one.startswith("data:") for one in page.sources)
    assert "&lt;b&gt;x&lt;/b&gt;|[a](http://b)" in made.html and "&lt;i&gt;it&lt;/i&gt; fails" in made.html


def test_a_day_that_lacks_something_or_rows_that_were_refused_is_not_as_it_should_be(platform):
    [lost] = platform.ledger.claims("crowd", Window(MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR))
    platform.ledger.withdraw_claim(lost.id)
    with platform.quarantine.writing(platform.quarantine.refused_path("crowd", "x")) as refused:
        refused.add(pl.DataFrame({"warm": [1.0, 2.0], "reason": ["of an hour that is no longer kept"] * 2}))
    made = report(platform, TODAY, platform.now())
    assert made.verdict == "24 rows came. To look at: 1 incomplete source; 2 refused rows; 1 silent station."
    assert "75.0% of the day was collected; `ionbeam gaps crowd` shows each gap" in made.html
    assert "2 rows refused by the time-series server; `ionbeam quarantine list`" in made.html


def test_a_report_is_printed_or_written_as_a_page(platform, tmp_path):
    def run(*words: str):
        done = CliRunner().invoke(app, ["--config", "config.yaml", "report", *words])
        return done.exit_code, done.output

    code, said = run("--day", "2026-06-21")
    assert code == 0 and said.startswith("# Ionbeam: report of 2026-06-21\n") and "## Disks" in said
    assert run("--day", "2026-06-21", "--html", "out.html")[0] == 0
    assert "<h2>Sources</h2>" in (tmp_path / "out.html").read_text()
    assert "is still to come" in run("--day", "2099-01-01")[1] and run("--day", "today")[0] == 1


def test_the_asset_sends_it_by_every_way_that_there_is_and_fails_where_none_takes_it(platform):
    platform.now = lambda: MIDNIGHT + timedelta(hours=29)
    watched = WatchedPlatform(platform)
    with pytest.raises(dg.Failure, match=r"could not be sent: the webhook at .*; the mail server"):
        report_asset(dg.build_asset_context(), ionbeam=watched)
    definitions = build_definitions(watched)
    dg.Definitions.validate_loadable(definitions)
    job = definitions.resolve_job_def("daily_report")
    platform.told.open()
    done = job.execute_in_process()
    [event] = done.get_asset_materialization_events()
    assert event.materialization.metadata["sent by"].value == 2
    assert platform.told.posted == [("report", "Ionbeam: report of 2026-06-21")]
    assert platform.told.texts[0].splitlines()[1].startswith("30 rows came.")
    [mail] = platform.told.mailed
    assert "Subject: Ionbeam: report of 2026-06-21" in mail and re.search("text/html", mail)
