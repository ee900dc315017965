"""A source that changes a unit is told by the values that quality control then doubts."""

from __future__ import annotations

from datetime import timedelta

from ionbeam_dagster.domain.records import BuiltRevision, Revision, RevisionFacts
from ionbeam_dagster.domain.windows import HOUR, Window, window_of, windows_between
from ionbeam_dagster.health import quality
from ionbeam_dagster.health.watch import Watch
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest

SOURCE = "  ioncannon: {num_stations: 12, start: 2026-06-21, quality: {air_temperature: {range: [250, 320]}}}"


def test_a_variable_of_which_most_is_doubted_is_told(platform_of):
    """Limits in kelvin, and values in degrees Celsius."""
    platform = platform_of(SOURCE, automation="{enabled: false}")
    platform.ledger.reconciliations.last()
    now = platform.now()
    hour = window_of(now - 2 * HOUR, HOUR)
    assert [one.severity for one in quality.quality(platform)] == ["well"]
    for window in list(windows_between(hour.start, hour.end, timedelta(minutes=5)))[:6]:
        collect(platform, platform.source("ioncannon"), window, now)
        ingest(platform, platform.source("ioncannon"), window)
    build(platform, platform.dataset("ioncannon"), hour, now, insist=True)
    watch = Watch(platform)
    watch.look()
    [told] = [one for one in watch.findings() if one.subject == quality.SUBJECT and one.severity != "well"]
    assert told.severity == "warning"
    assert told.words == f"ioncannon: quality control doubts 100% of air_temperature since {hour.start:%Y-%m-%d %H:%M}"
    assert "see whether ioncannon changed a unit" in told.remedy
    after = Window(hour.end, hour.end + HOUR)
    for rows, is_told in ((40, True), (60, False)):  # of fewer than fifty values the window before tells as well
        facts = RevisionFacts(rows, flags={"air_temperature__degC__2.0__point__PT0S": {"pass": rows}})
        revision = Revision("ioncannon", after, rows, "")
        platform.ledger.record_revision(BuiltRevision(revision, "data/next.parquet", now, facts), [])
        assert any(one.severity == "warning" for one in quality.quality(platform)) == is_told
    platform.now = lambda: now + timedelta(days=1)
    assert [one.severity for one in quality.quality(platform)] == ["well"]
