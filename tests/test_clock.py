"""What a clock that was ahead has collected is told, and counts as collected nowhere, until it was collected again.

So is told what stations send whose clocks are ahead.
"""

from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import HOUR, Window, window_of
from ionbeam_dagster.health import clocks
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")


def test_status_and_gaps_tell_of_a_clock_that_was_ahead(platform_of, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    this = window_of(datetime.now(UTC), HOUR)
    platform = platform_of(f"  ioncannon: {{num_stations: 2, start: {this.start - timedelta(days=2):%Y-%m-%d}}}")
    size = platform.source("ioncannon").window_size

    def take(start: datetime, now: datetime) -> None:
        platform.now = lambda: now
        collect(platform, platform.source("ioncannon"), Window(start, start + size), now)
        ingest(platform, platform.source("ioncannon"), Window(start, start + size))

    def told(command: str) -> str:
        until = f"{this.end + HOUR:%Y-%m-%dT%H:%MZ}"
        done = CliRunner().invoke(
            app,
            [
                "--config",
                "config.yaml",
                command,
                "ioncannon",
                "--from",
                f"{this.start - HOUR:%Y-%m-%dT%H:%MZ}",
                "--to",
                until,
            ],
        )
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    take(this.start - HOUR, this.start)
    assert "clock" not in told("status") + told("gaps")
    ahead = this.end + HOUR
    coming = window_of(datetime.now(UTC) + size, size).start
    for number in range(2):
        take(coming + number * size, ahead + 2 * size)
    line = f"ioncannon: 2 ranges until {coming + 2 * size:%Y-%m-%d %H:%M} came in by a clock that was ahead"
    assert line in told("status") and line in told("gaps")
    assert "the windows are collected again once they have passed" in told("gaps")
    assert "100% collected" not in told("gaps")


def test_rows_of_a_time_to_come_are_told_with_their_stations(platform_of, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    last = window_of(datetime.now(UTC) - HOUR, HOUR)
    platform = platform_of(f"  ioncannon: {{num_stations: 2, start: {last.start - timedelta(days=2):%Y-%m-%d}}}")
    source, feed = platform.source("ioncannon"), platform.sources["ioncannon"]
    window = Window(last.start, last.start + source.window_size)
    tomorrow = Window(window.start + timedelta(hours=20), window.end + timedelta(hours=20))
    collect(platform, source, window, last.end)
    ingest(platform, source, window)
    assert agenda.to_come(platform, datetime.now(UTC)) == []
    monkeypatch.setattr(type(feed), "fetch", lambda self, asked, fetch=feed.fetch: fetch(tomorrow))
    collect(platform, source, window, last.end)
    ingest(platform, source, window)
    [told] = agenda.to_come(platform, datetime.now(UTC))
    ended = window_of(tomorrow.start, HOUR).end
    assert told.startswith(f"ioncannon: 2 rows of a time to come are there, until {ended:%Y-%m-%d %H:%M} (stations: ")
    assert "set their clocks" in told and "sources.ioncannon.future_tolerance" in told
    assert "2 rows of a time to come" in CliRunner().invoke(app, ["--config", "config.yaml", "status"]).output
    assert [one.severity for one in clocks.at_a_glance(platform)] == ["warning", "well"]
    assert agenda.to_come(platform, tomorrow.end) == []


def test_a_clock_that_is_set_is_told_for_an_hour_or_until_it_is_set_back(monkeypatch):
    steady, ahead = 0.0, timedelta(0)
    monkeypatch.setattr(clocks, "now", lambda: datetime(2026, 6, 21, tzinfo=UTC) + timedelta(seconds=steady) + ahead)
    steps = clocks.Steps(lambda: steady)

    def told(seconds: float = 10) -> list[str]:
        nonlocal steady
        steady += seconds
        return [one.words for one in steps.findings()]

    assert not told() and not told(8 * 3600)  # a machine that slept
    ahead = timedelta(seconds=50)
    assert not told()
    ahead += timedelta(hours=1)
    [words] = told()
    assert words == "this host's clock was put ahead by 1 h, as was noticed when it said 2026-06-21 09:01"
    assert told() == [words]
    ahead -= timedelta(hours=1)
    assert not told()
    ahead -= timedelta(minutes=30)
    [words] = told()
    assert words.startswith("this host's clock was put back by 30 min")
    assert told(3590) and not told(20) and not told()
