"""Freshness tells the truth: it turns when work stands still, and is not content with a run that went well."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import dagster as dg

from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest

NOW = datetime(2026, 6, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CANNON = """
  scheduler: {windows: [{source_name: ioncannon, window_size: PT1H}]}
  ioncannon: {num_stations: 3, start: 2026-06-20, aggregation_span: PT1H, exports: [odb]}
"""


class Checks:
    """The sensor, tick after tick, and what each check says."""

    def __init__(self, platform) -> None:
        definitions = build_definitions(WatchedPlatform(platform))
        self._sensor = definitions.resolve_sensor_def("freshness")
        self._cursor: str | None = None
        self.said: dict[str, str | None] = {}

    def tick(self) -> dict[str, bool]:
        """What was evaluated at this tick."""
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_sensor_context(instance, cursor=self._cursor)
            found = self._sensor(context)
        self._cursor = found.cursor
        assert json.loads(found.cursor).keys() == {"ioncannon/observations", "ioncannon/dataset"}
        self.said |= {one.asset_key.to_user_string(): one.description for one in found.asset_events}
        return {one.asset_key.to_user_string(): one.passed for one in found.asset_events}


def _collect(platform, *windows: Window) -> None:
    for window in windows:
        collect(platform, platform.source("ioncannon"), window, platform.now())
        ingest(platform, platform.source("ioncannon"), window)


def test_it_turns_when_work_stands_still_also_when_no_run_fails(platform_of):
    platform = platform_of(CANNON)
    later = timedelta(0)
    platform.now = lambda: NOW + later
    checks = Checks(platform)
    assert checks.tick() == {"ioncannon/observations": False, "ioncannon/dataset": False}, "nothing was collected"
    assert "no window behind" in checks.said["ioncannon/observations"]
    _collect(platform, Window(NOW - 48 * HOUR, NOW - 47 * HOUR))  # a backfill: a run that went well
    assert checks.tick() == {"ioncannon/dataset": False}, "for another reason"
    newest = list(windows_between(NOW - 6 * HOUR, NOW, HOUR))
    _collect(platform, *newest)
    assert checks.tick() == {"ioncannon/observations": True}, "and the dataset stands still"
    assert "windows could be built and are not" in checks.said["ioncannon/dataset"]
    for window in newest:
        build(platform, platform.dataset("ioncannon"), window, platform.now(), insist=True)
    assert checks.tick() == {"ioncannon/dataset": True}
    later = 2 * HOUR
    assert checks.tick() == {}
    later = 5 * HOUR
    assert checks.tick() == {"ioncannon/observations": False, "ioncannon/dataset": False}
    _collect(platform, *windows_between(NOW, NOW + 5 * HOUR, HOUR))
    for window in windows_between(NOW, NOW + 5 * HOUR, HOUR):
        build(platform, platform.dataset("ioncannon"), window, platform.now(), insist=True)
    checks.tick()
    assert "was built and is not exported as odb" in checks.said["ioncannon/dataset"]
    for window in (*newest, *windows_between(NOW, NOW + 5 * HOUR, HOUR)):
        export(platform, platform.dataset("ioncannon"), platform.config.window_exporters["odb"], window)
    assert checks.tick() == {"ioncannon/dataset": True}


def test_windows_that_are_collected_and_have_no_row_are_not_well_for_ever(platform_of, monkeypatch):
    platform = platform_of(CANNON)
    platform.now = lambda: NOW
    monkeypatch.setattr(type(platform.sources["ioncannon"]), "fetch", lambda self, window: iter(()))
    _collect(platform, *windows_between(NOW - 30 * HOUR, NOW, HOUR))
    checks = Checks(platform)
    assert checks.tick()["ioncannon/observations"] is False
    assert "no row is newer than" in checks.said["ioncannon/observations"]
