"""Files that were lost, damaged or are from the future: each comes back by itself, once, while the sensors tick."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from told import HOUR, QUARTER

from ionbeam_dagster.domain.windows import Window, window_of, windows_between
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.internals import partition_tags
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.agenda import due
from ionbeam_dagster.pipeline.reconciliation import reconcile

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

TICK = timedelta(seconds=30)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Ticking:
    """A platform of today whose sensors tick, by a clock as fast as a test wants; its runs are run at once."""

    def __init__(self, platform, instance) -> None:
        self.platform, self.instance = platform, instance
        self.defs = build_definitions(WatchedPlatform(platform))
        self.repository = self.defs.get_repository_def()
        self.clock = datetime.now(UTC)
        self.cursors: dict[str, str] = {}
        self.begun: Counter[tuple[str, str]] = Counter()
        platform.now = lambda: self.clock

    def tick(self, later: timedelta = TICK) -> None:
        """The clock goes on, and every sensor ticks; what automation asks for is run, a window a run."""
        self.clock += later
        for name in ("reconciliation", "told_changes__changes"):
            if self.repository.has_sensor_def(name):
                self._sense(name)
        asked = dg.evaluate_automation_conditions(
            self.defs, self.instance, evaluation_time=self.clock, cursor=self.cursors.get("conditions")
        )
        self.cursors["conditions"] = asked.cursor
        assets = self.defs.resolve_asset_graph().get_all_asset_keys() - {dg.AssetKey("pygeoapi_config")}
        wanted = {asset: asked.get_requested_partitions(asset) for asset in assets}
        for asset in sorted(wanted, key=lambda asset: _ORDER.index(asset.path[-1]) if wanted[asset] else 0):
            for key in sorted(wanted[asset]):
                self._run(asset, key)

    def _sense(self, name: str) -> None:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursors.get(name), repository_def=self.repository, sensor_name=name
        )
        told = self.repository.get_sensor_def(name).evaluate_tick(context)
        self.cursors[name] = told.cursor or self.cursors.get(name)

    def _run(self, asset: dg.AssetKey, key: str) -> None:
        self.begun["/".join(asset.path), key] += 1
        self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[asset],
            tags=partition_tags(key, key) | {"dagster/from_automation_condition": "true"},
            instance=self.instance,
            run_config=QUIET,
            raise_on_error=False,
        )

    def for_ten_minutes(self) -> Counter[tuple[str, str]]:
        """What is begun in ten minutes."""
        self.begun.clear()
        for _ in range(20):
            self.tick()
        return self.begun


_ORDER = ["raw", "observations", "dataset", "odb", "pygeoapi"]


@pytest.fixture
def ticking(platform_with, instance):
    """All of an hour is there: the one before the last that ended, so that what the clock makes due is of another."""
    today = datetime.now(UTC).date()
    platform = platform_with(
        f"  told: {{start: {today - timedelta(days=2)}, exports: [odb, pygeoapi]}}", automation="{lookback: PT15M}"
    )
    made = Ticking(platform, instance)
    made.hour = window_of(made.clock - 3 * HOUR, HOUR)
    for quarter in windows_between(made.hour.start, made.hour.end, QUARTER):
        made._run(dg.AssetKey(["told", "raw"]), quarter.key)
    for _ in range(8):
        made.tick()
    assert platform.ledger.export("told", made.hour, "odb").number == 1
    return made


def made_of(ticking: Ticking, window: Window) -> dict[str, Path]:
    ledger = ticking.platform.ledger
    return {
        "raw": Path(ledger.raw("told", window_of(window.start, QUARTER)).path),
        "dataset": Path(ledger.latest_revision("told", window).path),
        "odb": Path(ledger.export("told", window, "odb").path),
        "pygeoapi": Path(ledger.export("told", window, "pygeoapi").path),
    }


def test_a_lost_export_dataset_file_and_raw_file_come_back_by_themselves_within_ten_minutes_once(ticking):
    files = made_of(ticking, ticking.hour)
    before = {name: path.read_bytes() for name, path in files.items()}
    assert of(ticking.hour, ticking.for_ten_minutes()) == {}
    for path in files.values():
        path.unlink()
    begun = of(ticking.hour, ticking.for_ten_minutes())
    assert {name: path.read_bytes() for name, path in files.items()} == before
    quarter = window_of(ticking.hour.start, QUARTER).key
    assert begun["told/raw", quarter] == 1
    assert set(begun.values()) == {1}, begun
    assert of(ticking.hour, ticking.for_ten_minutes()) == {}
    assert ticking.platform.ledger.latest_revision("told", ticking.hour).revision.number == 1


def test_a_damaged_file_is_made_again_and_nothing_that_is_whole(ticking):
    mended: set[str] = set()
    for which, path in made_of(ticking, ticking.hour).items():
        before = path.read_bytes()
        path.write_bytes(before[:-10])
        os.utime(path, (ticking.clock.timestamp(),) * 2)
        reasons = [work.reason for work in reconcile(ticking.platform, ticking.clock).work if str(path) in work.reason]
        assert which != "dataset" or f"it has {len(before) - 10} bytes instead of {len(before)}" in reasons[0]
        begun = of(ticking.hour, ticking.for_ten_minutes())
        assert path.read_bytes() == before
        assert set(begun.values()) == {1} and next(iter(begun))[0] == f"told/{which}"
        assert not {asset for asset, _ in begun} & mended
        mended.add(f"told/{which}")
    assert of(ticking.hour, ticking.for_ten_minutes()) == {}


def test_what_a_clock_that_was_ahead_collected_is_collected_again_when_it_has_passed(ticking):
    """An hour ahead, nothing of an hour that is to come is there; afterwards it is."""
    source, coming = ticking.platform.sources["told"], window_of(ticking.clock + 30 * TICK, QUARTER)
    source.empty = {coming.key}
    real = ticking.clock
    ticking.clock = coming.end + timedelta(minutes=1)
    ticking.tick()
    raw = ticking.platform.ledger.raw("told", coming)
    assert raw.rows == 0, "a window that is all to come was collected"
    os.utime(raw.path, (ticking.clock.timestamp(),) * 2)
    ticking.clock = real
    source.empty = set()
    for _ in range(8):
        ticking.tick()
    assert ticking.platform.ledger.raw("told", coming).rows == 0, "it has not passed yet"
    ticking.clock = coming.end
    ticking.for_ten_minutes()
    assert ticking.platform.ledger.raw("told", coming).rows == 2


def test_what_clients_sent_and_is_lost_is_told(platform_with):
    from ionbeam_dagster.domain.records import RawPartition

    platform = platform_with("  told: {type: told, kind: external, start: 2026-06-21T00:00:00Z}")
    now = datetime.now(UTC)
    quarter = window_of(now - HOUR, QUARTER)
    platform.ledger.record_sent([(RawPartition("sent", "told", quarter, "data-raw/told/gone.parquet", 2), [quarter])])
    found = reconcile(platform, now)
    assert found.work == [] and len(found.for_a_person) == 1
    assert "its raw file is gone" in found.for_a_person[0] and "ionbeam reingest told --from" in found.for_a_person[0]


def test_open_work_of_what_is_configured_no_longer_is_forgotten(ticking):
    attempts = ticking.platform.ledger.attempts
    [work, *_] = [*due(ticking.platform, ticking.clock + HOUR)]
    from dataclasses import replace

    from ionbeam_dagster.pipeline import agenda

    agenda.note(ticking.platform, [replace(work, of="gone")], ticking.clock)
    assert attempts.open(product="gone")
    reconcile(ticking.platform, ticking.clock)
    assert attempts.open(product="gone") == []


def of(hour: Window, begun: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """What was begun of one hour."""
    keys = {window.key for window in windows_between(hour.start, hour.end, QUARTER)}
    return Counter({asset_and_key: times for asset_and_key, times in begun.items() if asset_and_key[1] in keys})
