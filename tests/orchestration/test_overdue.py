"""What fails for long is named where a person looks for a late window: `status`, `gaps`, and the asset's page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from told import HOUR, QUARTER, START
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import DAY, Window, window_of, windows_between
from ionbeam_dagster.health.work import failing as failing_work
from ionbeam_dagster.orchestration.overdue import report_overdue
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.stores.ledger.attempts import FIRST_WAIT, Failure
from ionbeam_dagster.stores.ledger.leases import lease_of

FIRST, HOUR_OF_IT = Window(START, START + QUARTER), Window(START, START + HOUR)
LATER = START + 4 * HOUR


@pytest.fixture
def failing(platform_with, tmp_path, monkeypatch):
    """A platform on which one window cannot be collected, and one cannot be exported, for three hours."""
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z, exports: [odb]}", automation="{lookback: PT15M}")
    for stage, of, window in (("collect", "told", FIRST), ("export", "told/odb", HOUR_OF_IT)):
        for hour in (1, 2):
            agenda.begin(platform, [agenda.Work(stage, of, window, "2026-06-21", "")], START + hour * HOUR)
            in_hand = agenda.in_hand(platform, stage, of)
            in_hand.settle([], {window: Failure(f"{stage}: no [b]answer[/b]")}, START + hour * HOUR)
    monkeypatch.setenv("IONBEAM_CONFIG_PATH", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("COLUMNS", "400")
    return platform


def test_the_command_line_names_it(failing):
    collecting = (
        "told cannot be collected (2026-06-21 00:00-00:15; since 2026-06-21 01:00, 2 tries): collect: no "
        "[b]answer[/b]; `ionbeam run told --from 2026-06-21T00:00Z --to 2026-06-21T00:15Z` tries it now and shows more"
    )
    status = CliRunner().invoke(app, ["status"]).output
    assert collecting in status and "told cannot be exported as odb" in status
    gaps = CliRunner().invoke(app, ["gaps", "told"]).output
    assert collecting in gaps and "exported" not in gaps
    assert collecting not in CliRunner().invoke(app, ["gaps", "told", "--from", "2026-06-22"]).output


def test_the_pages_of_assets_name_it_once_while_it_stays_the_same(failing, instance):
    reported = report_overdue(failing, instance, LATER, [])
    assert len(reported) == 2 and report_overdue(failing, instance, LATER, reported) == reported
    for path, window in ((["told", "raw"], FIRST), (["told", "odb"], HOUR_OF_IT)):
        [record] = instance.fetch_observations(dg.AssetKey(path), limit=10).records
        told = record.event_log_entry.dagster_event.asset_observation_data.asset_observation
        assert told.partition == window.key and told.metadata["tries"].value == 2
        assert "tries it now and shows more" in told.description
    in_hand = agenda.in_hand(failing, "collect", "told")
    in_hand.settle([], {FIRST: Failure("another reason")}, LATER)
    assert len({*report_overdue(failing, instance, LATER + timedelta(minutes=1), reported)} - {*reported}) == 1
    agenda.in_hand(failing, "collect", "told").settle([FIRST], {}, LATER)
    assert len(report_overdue(failing, instance, LATER, reported)) == 1


def test_a_first_try_that_goes_on_is_no_failure_and_one_that_was_killed_is(platform_with, monkeypatch):
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z}", automation="{lookback: PT15M}")
    now, work = platform.now(), [agenda.Work("collect", "told", FIRST, "2026-06-21", "")]
    monkeypatch.setattr(platform, "now", lambda: now)
    agenda.begin(platform, work, now)
    assert agenda.failing(platform, now) == []
    now += FIRST_WAIT
    assert agenda.failing(platform, now) == []
    now += timedelta(minutes=2)
    platform.ledger.workers.beat("a run", "here", 1, "works")
    platform.ledger.leases.take([lease_of("collect", "told", FIRST)], "a run")
    assert agenda.failing(platform, now) == []
    platform.ledger.workers.leave("a run")
    [killed] = agenda.failing(platform, now)
    assert "were they killed?" in agenda.in_words(platform, [killed])
    agenda.begin(platform, work, now)
    [tried_again] = agenda.failing(platform, now)
    assert "it is tried again now" in agenda.in_words(platform, [tried_again])
    now += timedelta(minutes=2)
    platform.ledger.workers.beat("a run", "here", 1, "works")
    platform.ledger.leases.take([lease_of("collect", "told", FIRST)], "a run")
    assert "it is tried again now" in agenda.in_words(platform, [tried_again])
    platform.ledger.workers.leave("a run")
    assert "were they killed?" in agenda.in_words(platform, [tried_again])


def test_what_fails_for_a_moment_is_named_at_once_in_one_line_and_is_a_gap(platform_with, tmp_path, monkeypatch):
    now = datetime.now(UTC)
    hour = window_of(now - HOUR, HOUR)
    platform = platform_with(f"  told: {{start: {hour.start:%Y-%m-%dT%H:%MZ}}}", automation="{lookback: PT15M}")
    windows = list(windows_between(hour.start, hour.end, QUARTER))
    agenda.begin(platform, [agenda.Work("collect", "told", window, "t", "") for window in windows], now)
    collect(platform, platform.source("told"), windows[0], now)
    ingest(platform, platform.source("told"), windows[0])
    failed = {one: Failure(f"{number} Internal Server Error") for number, one in enumerate(windows[1:], 500)}
    agenda.in_hand(platform, "collect", "told").settle(windows[:1], failed, now)
    monkeypatch.setenv("IONBEAM_CONFIG_PATH", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("COLUMNS", "400")
    lost = f"3 windows of {Window(windows[1].start, hour.end)}; since {now:%Y-%m-%d %H:%M}, 1 try"
    line = f"told cannot be collected ({lost}): 500 Internal Server Error"
    assert line in CliRunner().invoke(app, ["status"]).output
    gaps = CliRunner().invoke(app, ["gaps", "told"]).output
    assert line in gaps and "25.0% collected, 1 gap" in gaps
    [found] = [one for one in failing_work(platform) if one.severity != "well"]
    assert (
        found.severity == "note"
        and found.words in line + " Internal Server Error"
        and "`ionbeam run told" in found.remedy
    )


def test_time_to_come_of_a_window_that_fails_is_no_gap(platform_with, tmp_path, monkeypatch):
    today = window_of(datetime.now(UTC), DAY)
    platform = platform_with(
        "  scheduler: {windows: [{source_name: told, window_size: P1D}]}\n"
        f"  told: {{start: {today.start.isoformat()}, aggregation_span: P1D}}"
    )
    agenda.begin(platform, [agenda.Work("collect", "told", today, "today", "")], platform.now())
    agenda.in_hand(platform, "collect", "told").settle([], {today: Failure("no answer")}, platform.now())
    monkeypatch.setenv("IONBEAM_CONFIG_PATH", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("COLUMNS", "400")
    told = CliRunner().invoke(app, ["gaps", "told"]).output
    assert "told cannot be collected" in told and f".. {today.end:%Y-%m-%d %H:%M}" not in told
