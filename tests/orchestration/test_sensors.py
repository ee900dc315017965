"""The sensor of sources that tell what changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from told import HOUR, QUARTER, START, key, window

from ionbeam_dagster.domain.windows import DAY, Window, window_of
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.internals import partition_tags
from ionbeam_dagster.orchestration.resources import WatchedPlatform

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

SOURCE = "  told_changes: {start: 2026-06-21T00:00:00Z}"


class Sensed:
    """A platform's sensor, ticked by hand with the cursor that it left."""

    def __init__(self, platform, instance) -> None:
        self.platform = platform
        self.source = platform.sources["told_changes"]
        self.defs = build_definitions(WatchedPlatform(platform))
        self.repository = self.defs.get_repository_def()
        self.sensor = self.repository.get_sensor_def("told_changes__changes")
        self.instance = instance
        self.cursor = None

    def tick(self) -> list[str]:
        """The windows that stand on the agenda afterwards, to be collected."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, repository_def=self.repository, sensor_name=self.sensor.name
        )
        result = self.sensor.evaluate_tick(context)
        assert result.run_requests == []
        self.cursor = result.cursor
        self.skipped = result.skip_message
        return [one.window.key for one in self.platform.ledger.attempts.open("collect", "told_changes")]

    def perform(self) -> list[str]:
        """What automation asks for, and runs; the windows that failed stay on the agenda."""
        asked = dg.evaluate_automation_conditions(
            self.defs, self.instance, evaluation_time=self.platform.now(), cursor=None
        )
        keys = sorted(asked.get_requested_partitions(dg.AssetKey(["told_changes", "raw"])))
        for each in keys:
            self_run(self, each, each)
        return keys


def test_what_changed_is_collected_once(platform_with, instance):
    sensed = Sensed(platform_with(SOURCE), instance)
    assert sensed.tick() == []
    assert sensed.skipped == "nothing of told_changes changed"

    minute = timedelta(minutes=1)
    sensed.source.changed = [
        Window(window("03:00").start + minute, window("03:30").start + minute),
        Window(START - DAY, START + minute),
        window("05:00"),
    ]
    changed = [key(time) for time in ("00:00", "03:00", "03:15", "03:30", "05:00")]
    assert sensed.tick() == changed and sensed.skipped == "5 windows changed"
    assert sensed.tick() == changed, "it is remembered until it is done"
    assert sensed.perform() == changed
    assert sensed.tick() == [] and sensed.perform() == []

    sensed.source.changed.append(window("03:15"))
    assert sensed.tick() == [key("03:15")]


def test_where_a_source_has_nothing_no_window_is_noted_but_what_was_collected_before(
    platform_with, instance, monkeypatch
):
    sensed = Sensed(platform_with(SOURCE), instance)
    sensed.source.changed = [window("03:15")]
    assert sensed.tick() == [key("03:15")] == sensed.perform()
    hole = Window(window("00:50").start, window("05:10").start)  # whole windows of the dataset are left out
    monkeypatch.setattr(sensed.source, "nothing_in", lambda range: [hole], raising=False)
    sensed.source.changed.append(Window(window("00:30").start, window("05:00").end))
    assert sensed.tick() == [key(time) for time in ("00:30", "00:45", "03:15", "05:00")]


def test_a_window_whose_run_failed_stays_due_and_is_tried_at_once_when_it_changes_again(platform_with, instance):
    sensed = Sensed(platform_with(SOURCE), instance)
    sensed.source.changed = [window("03:00")]
    sensed.source.failing = {key("03:00")}
    for _ in range(4):
        sensed.tick()
        assert sensed.perform() in ([key("03:00")], [])
    [failing] = sensed.platform.ledger.attempts.open()
    assert (failing.window, failing.error) == (window("03:00"), f"no answer for {key('03:00')}") and failing.tries
    sensed.source.failing = set()
    sensed.source.changed.append(window("03:00"))
    assert sensed.tick() == [key("03:00")]
    assert sensed.perform() == [key("03:00")] and sensed.tick() == []


def test_a_bounded_number_of_windows_is_open_and_the_rest_follow(platform_with, instance, monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.orchestration.sensors.files.MOST_OPEN", 3)
    sensed = Sensed(platform_with(SOURCE), instance)
    sensed.source.changed = [Window(START, START + HOUR), Window(START + DAY, START + DAY + QUARTER)]
    assert sensed.tick() == [key("00:30"), key("00:45"), "20260622T000000"]
    assert sensed.tick() == [key("00:30"), key("00:45"), "20260622T000000"]
    sensed.perform()
    assert sensed.tick() == [key("00:00"), key("00:15")]


def test_a_change_in_a_window_that_has_not_ended_waits_for_its_end(platform_with, instance):
    sensed = Sensed(platform_with(SOURCE), instance)
    now = datetime.now(UTC)
    begun = window_of(now, QUARTER)
    sensed.source.changed = [Window(now - QUARTER, now), Window(now, now + timedelta(days=40_000))]
    assert sensed.tick() == [window_of(now - QUARTER, QUARTER).key]
    sensed.platform.now = lambda: begun.end + timedelta(seconds=1)
    assert sensed.tick() == [window_of(now - QUARTER, QUARTER).key, begun.key]


def self_run(sensed: Sensed, first: str, last: str) -> dg.ExecuteInProcessResult:
    return sensed.repository.get_job("told_changes__collect").execute_in_process(
        tags=partition_tags(first, last),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        instance=sensed.instance,
        raise_on_error=False,
    )
